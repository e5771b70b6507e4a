"""Planning a build: which columns come out, how the work is cut into tasks.

The cut depends on the sources and the chunk size only, never on the number of workers: any number of
them makes the same dataset, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, log2
from typing import Any

import numpy as np

from storagering.cache.deals import DEAL_CHUNKS
from storagering.cache.entry_keys import ENTRY_ID, fits_in_ids
from storagering.cache.finished import key_tasks
from storagering.cache.inspection import Inspection
from storagering.cache.messages import BuildContext, Mixing, Task, blamed_on, spool_of
from storagering.cache.opened import KeptSource
from storagering.cache.selection import Selection, made_names
from storagering.config import Settings
from storagering.errors import NoColumnsError, SchemaError, SpecError
from storagering.formats.arrow import arrow_type
from storagering.formats.forms import UnsupportedTypeError, assign_keys, describe_column
from storagering.formats.precision import with_precision
from storagering.formats.readers import open_source
from storagering.formats.source import Source, UnreadableColumnsError
from storagering.formats.sparse import with_sparse
from storagering.types import Array, Column, ConversionSpec, Schema, SkippedColumn, SourceFile, Span
from storagering.urls import redact_url

_PROBE_ENTRIES = 1000
#: Chunks' worth of input after which a task ends: enough to outweigh the cost of opening a file.
_CHUNKS_PER_TASK = 4
#: The same where a file ends: no more is lost when a build is interrupted. Small files then share one chunk,
#: which has room left for what is larger than was expected.
_CHUNKS_AT_END = 0.75
#: One compressed block larger than this many chunks is read in parts, though each part unpacks it again.
_CHUNKS_PER_READ = 8
#: More piles would be made of snippets.
_MAX_PILE_BITS = 15


@dataclass(frozen=True)
class BuildPlan:
    """What is to be done.

    Attributes:
        skipped: columns that cannot be had (with ``on_bad_column="skip"``).
        known: all arrays that there are to read, if finding out their types took reading them all.
        chunk_entries: expected of one chunk, before selection.
    """

    context: BuildContext
    tasks: list[Task]
    skipped: tuple[SkippedColumn, ...]
    known: Mapping[str, Any] | None
    chunk_entries: int


def plan_build(
    inspection: Inspection, spec: ConversionSpec, settings: Settings, staging: str, spool: str, kept: KeptSource
) -> BuildPlan:
    """Find the schema and cut the work.

    Args:
        kept: may have the source that is looked into, and gets it back.

    Raises:
        SpecError: an expression that cannot be evaluated, or a name that is used twice.
        SchemaError: a bad column under ``on_bad_column="fail"``, or none is left.
    """
    number = next(i for i, f in enumerate(inspection.files) if f.entries)
    file = inspection.files[number]
    location = inspection.locations[number]
    with blamed_on(number), ExitStack() as stack:
        source = kept.take(location, file.tree) or open_source(location, file.tree, settings, spool_of(spool, location))
        stack.callback(kept.leave, location, source)
        probe = _Probe(source, inspection, spec)
        schema = probe.schema()
    told = sum(inspection.entry_bytes.get(name, 0.0) for name in probe.read_names)
    sizes = _Sizes(_likelier(probe.bytes_per_entry, told), spec.chunk_bytes)
    context = BuildContext(
        spec, schema, inspection.files, inspection.locations, probe.read_names, staging, spool, settings
    )
    if spec.mix is not None:
        context = replace(context, mixing=_plan_mixing(inspection.files, sizes))
    pieces = [p for number, bounds in enumerate(inspection.bounds) for p in _cut_file(number, bounds, sizes)]
    known = probe.arrays if pieces == [Span(number, 0, probe.entries)] else None
    tasks = key_tasks(context, _group(pieces, sizes, spec))
    return BuildPlan(context, tasks, probe.skipped, known, sizes.entries_in(1))


def _plan_mixing(files: Sequence[SourceFile], sizes: _Sizes) -> Mixing:
    """As many piles as keep each small; a power of two, which a few entries more or less seldom change."""
    if not fits_in_ids(len(files), max(file.entries for file in files)):
        raise SpecError("there are too many sources, or entries in one of them, to mix: ids of entries have 63 bits")
    chunks = sum(file.entries for file in files) / sizes.entries_in(1)
    return Mixing(bits=min(_MAX_PILE_BITS, ceil(log2(max(1.0, chunks / DEAL_CHUNKS)))))


def _likelier(probed: float, told: float) -> float:
    """Bytes of an entry: as probed, unless the files tell far more, as where the first entries are small ones.

    What they tell counts the headers of their blocks, too, so a little more means nothing.
    """
    return told if told > 2 * probed else probed


class _Probe:
    """Reads the first entries of a source to learn the types of what will be written."""

    def __init__(self, source: Source, inspection: Inspection, spec: ConversionSpec) -> None:
        self._source, self._spec = source, spec
        self._typenames = inspection.typenames
        self.skipped: tuple[SkippedColumn, ...] = ()
        self._outputs = list(inspection.names)
        self._check_names()
        self._selection = Selection(spec, list(source.columns))
        hidden = [n for n in self._selection.source_names if n not in self._outputs]
        self.arrays = self._read([*self._outputs, *hidden])
        self.read_names = tuple(self.arrays)
        self.bytes_per_entry = sum(a.nbytes for a in self.arrays.values()) / max(1, self.entries)

    @property
    def entries(self) -> int:
        return min(self._source.entries, _PROBE_ENTRIES)

    def schema(self) -> Schema:
        spec = self._spec
        kinds = {ENTRY_ID: np.uint64}
        made: dict[str, Array] = {n: np.zeros(self.entries, kinds.get(n, np.int64)) for n in made_names(spec)}
        arrays, _ = self._selection.apply(self.arrays, self.entries, made)
        wanted = [n for n in self._outputs if n in arrays] + [n for n, _ in spec.define]
        columns = [c for n in [*wanted, *made] if (c := self._describe(n, arrays[n]))]
        if not columns:
            raise NoColumnsError(
                f"{redact_url(self._source.url)}: no column is left to convert ({len(self.skipped)} cannot be read)"
            )
        return with_precision(with_sparse(assign_keys(columns), spec.sparse), spec.precision)

    def _check_names(self) -> None:
        defined = [*(name for name, _ in self._spec.define), *made_names(self._spec)]
        for name in defined:
            if defined.count(name) > 1:
                raise SpecError(f"column {name!r} is defined twice")
            if name in self._outputs:
                raise SpecError(f"the source has a column {name!r} already; leave it out with --exclude {name!r}")

    def _read(self, names: list[str]) -> dict[str, Any]:
        known: dict[str, Any] = {}
        while True:
            try:
                known |= self._source.read([n for n in names if n not in known], 0, self.entries)
            except UnreadableColumnsError as error:
                for name, reason in error.reasons.items():
                    self._skip(name, reason)
                known |= error.arrays
                names = [n for n in names if n not in error.reasons]
            else:
                return {n: known[n] for n in names}

    def _skip(self, name: str, reason: str) -> None:
        if self._spec.on_bad_column == "fail":
            raise SchemaError(f"{redact_url(self._source.url)}: column {name!r} cannot be converted: {reason}")
        skipped = SkippedColumn(name, self._typenames.get(name, ""), reason, redact_url(self._source.url))
        self.skipped += (skipped,)

    def _describe(self, name: str, array: Any) -> Column | None:
        try:
            column = describe_column(name, array, doc=self._source.doc(name) if name in self._typenames else "")
            if self._spec.format == "parquet":
                arrow_type(column)
        except UnsupportedTypeError as error:
            self._skip(name, str(error))
            return None
        return column


@dataclass(frozen=True)
class _Sizes:
    bytes_per_entry: float
    chunk_bytes: int

    def entries_in(self, chunks: float) -> int:
        """Entries that decode to that many chunks of the target size."""
        return max(1, int(chunks * self.chunk_bytes / max(1.0, self.bytes_per_entry)))


def _cut_file(number: int, bounds: Sequence[int], sizes: _Sizes) -> Iterator[Span]:
    """Pieces of one file, on its own block boundaries wherever these are not absurdly far apart."""
    start, last = 0, bounds[-1]
    for here, following in pairwise([*bounds[1:], last]):
        if here == last or following - start > sizes.entries_in(1):
            parts = -(-(here - start) // sizes.entries_in(_CHUNKS_PER_READ))
            cuts = np.linspace(start, here, parts + 1).astype(int).tolist()
            yield from (Span(number, a, b) for a, b in pairwise(cuts))
            start = here


def _group(pieces: Sequence[Span], sizes: _Sizes, spec: ConversionSpec) -> Iterator[Task]:
    limit = sizes.entries_in(_CHUNKS_PER_TASK)
    # A selection leaves less: tasks that end early would make chunks that are small.
    limit_at_end = sizes.entries_in(_CHUNKS_AT_END) if spec.where is None else limit
    group: list[Span] = []
    count = number = 0
    for piece, following in zip(pieces, [*pieces[1:], None], strict=True):
        group.append(piece)
        count += piece.stop - piece.start
        ends = following is None or following.source != piece.source
        if following is None or count >= (limit_at_end if ends else limit):
            yield Task(number, tuple(group))
            group, count, number = [], 0, number + 1
