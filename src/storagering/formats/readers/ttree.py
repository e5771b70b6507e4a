"""TTrees as sources of columns, read by uproot."""

from __future__ import annotations

import re
import struct
import warnings
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, count
from typing import Any

import awkward as ak
import numpy as np

from storagering.config import Settings
from storagering.errors import CorruptDataError
from storagering.formats.blob import Blob
from storagering.formats.forms import describe_column, to_batch
from storagering.formats.limits import bounded_memory
from storagering.formats.readers.baskets import (
    Arena,
    BasketColumn,
    BasketRead,
    UnusualBasketError,
    describe_branch,
    is_checked,
)
from storagering.formats.readers.names import check_names
from storagering.formats.readers.root_source import RootSource, compression_name, plain_text, typename_of
from storagering.formats.remote.options import scheme_of
from storagering.formats.source import Storage
from storagering.types import Array, Batch, Schema
from storagering.urls import redact_url

_DIMENSIONS = re.compile(r"(\[[^\]]*\])*$")
_LEAFLIST = re.compile(r"[\w.#]*(\[[^\]]*\])*(/[A-Za-z]+(\[.*\])?)?(:[\w.]+(\[[^\]]*\])*(/[A-Za-z]+)?)*_?")


class TreeSource(RootSource):
    """A TTree; its columns are the branches that hold numbers, by their full path (``path#2`` for a second one)."""

    format = "ttree"

    def __init__(self, blob: Blob, tree: str, model: Any, file: Any, settings: Settings) -> None:
        super().__init__(blob, tree, model, file)
        self._settings = settings
        self.title = plain_text(model.title)
        self._blob = blob
        self._together = bool(scheme_of(blob.url))  # one request instead of many
        self._plans: dict[str, BasketColumn | None] = {}
        self._forms: dict[tuple[Any, ...], str] = {}
        self._branches: dict[str, Any] = {}
        self._bare_names = Counter(branch.name for branch in model.itervalues(recursive=True))
        for name, branch in model.iteritems(recursive=True):
            if not _is_group(branch):
                self._branches[_unused(plain_text(name), self._branches)] = branch
        self.columns = {n: typename_of(b) for n, b in self._branches.items()}

    def doc(self, name: str) -> str:
        branch = self._branches[name]
        title = plain_text(branch.title)
        says_nothing = _LEAFLIST.fullmatch(title) or _DIMENSIONS.sub("", title) == branch.name
        return "" if says_nothing else title

    def storage(self) -> dict[str, Storage]:
        return {
            name: Storage(
                compression=_compression_of(branch),
                blocks=int(branch.num_baskets),
                stored_bytes=int(branch.compressed_bytes),
                decoded_bytes=int(branch.uncompressed_bytes),
            )
            for name, branch in self._branches.items()
        }

    def boundaries(self, names: Iterable[str]) -> list[int]:
        common: set[int] | None = None
        for name in names:
            branch = self._branches[name]
            if branch.num_baskets:
                try:
                    own = {int(offset) for offset in branch.entry_offsets}
                except ValueError:  # baskets that do not add up; reading it will tell
                    continue
                common = own if common is None else common & own
        return sorted({0, self.entries} | {e for e in common or () if 0 < e < self.entries})

    @property
    def self_checked(self) -> bool:  # type: ignore[override]
        """For local files only: elsewhere it would take a request for every basket."""
        if scheme_of(self.url):
            return False
        return all(_is_checked(branch, self._blob) for branch in self._branches.values())

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        check_names(names, self.columns, self.url)
        plans = {n: self._plan(n) for n in names}
        decoded = self._decode(names, start, stop)
        others = super().read([n for n in names if n not in decoded], start, stop)
        return {n: _as_awkward(plans[n], decoded[n]) if n in decoded else others[n] for n in names}

    def read_batch(self, schema: Schema, start: int, stop: int) -> Batch:
        decoded = self._decode([c.name for c in schema.columns if self._form_of(c.name) == c.form], start, stop)
        rest = Schema(tuple(c for c in schema.columns if c.name not in decoded))
        others = to_batch(rest, super().read(rest.names, start, stop), stop - start).arrays
        return Batch(schema, stop - start, {n: decoded[n] if n in decoded else others[n] for n in schema.names})

    def _plan(self, name: str) -> BasketColumn | None:
        if name not in self._plans:
            branch = self._branches[name]
            known = _interpretation(branch) in ("AsDtype", "AsJagged", "AsStrings") and not self._is_short(branch)
            self._plans[name] = describe_branch(name, branch) if known else None
        return self._plans[name]

    def _form_of(self, name: str) -> str:
        """Awkward form, as JSON, of what `_decode` makes of the column; '' if that is nothing."""
        plan = self._plan(name)
        if plan is None:
            return ""
        layout = (plan.stored, plan.shape, plan.header is None, plan.is_string)
        if layout not in self._forms:
            empty = BasketRead(plan, 0, 0, [], "").decode(Arena(0))
            self._forms[layout] = describe_column("", _as_awkward(plan, empty)).form
        return self._forms[layout]

    def _decode(self, names: Sequence[str], start: int, stop: int) -> dict[str, tuple[Array, ...]]:
        """The arrays of those columns that are read from their baskets here, all in one request."""
        reads: dict[str, BasketRead] = {}
        plans = {n: plan for n in names if (plan := self._plan(n)) is not None}
        ranges = {n: plan.ranges(plan.overlapping(start, stop)) for n, plan in plans.items()}
        stored = iter(self._blob.read_ranges([r for found in ranges.values() for r in found]))
        for name, plan in plans.items():
            data = [next(stored) for _ in ranges[name]]
            with self._unless_unusual(name):
                reads[name] = BasketRead(plan, start, stop, data, redact_url(self.url))
                reads[name].check_sizes(self._settings)
        arena = Arena(sum(read.room for read in reads.values() if not read.is_mostly_unwanted))
        decoded: dict[str, tuple[Array, ...]] = {}
        shared: dict[tuple[int, int], list[Array]] = {}
        for name, read in reads.items():
            with self._unless_unusual(name):
                own = Arena(read.room) if read.is_mostly_unwanted else arena
                *offsets, values = read.decode(own)
                values = values if own is arena else values.copy()
                decoded[name] = (*(_share(o, shared) for o in offsets), values)
        return decoded

    @contextmanager
    def _unless_unusual(self, name: str) -> Iterator[None]:
        try:
            yield
        except UnusualBasketError:
            self._plans[name] = None

    def _read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        """From a server in one request where that is safe, otherwise one by one.

        uproot's ``arrays`` looks branches up by their bare names: quadratic in their number, and wrong for
        all but the first of a name.
        """
        together = [n for n in names if self._is_unique(n)] if len(names) > 1 else []
        wanted = {id(self._branches[name]) for name in together}
        read: dict[str, Any] = {}
        if together:
            read = self._model.arrays(
                filter_branch=lambda b: id(b) in wanted, entry_start=start, entry_stop=stop, library="ak", how=dict
            )
        return {n: read[n] if n in read else self._read_one(self._branches[n], start, stop) for n in names}

    def _is_short(self, branch: Any) -> bool:
        """A branch that was not filled as often as the tree."""
        return int(branch.num_entries) < self.entries

    def _read_one(self, branch: Any, start: int, stop: int) -> Any:
        if self._is_short(branch):
            raise _MisreadError(f"it has {branch.num_entries:,} entries, its tree {self.entries:,}")
        if not _is_object(branch):
            return branch.array(entry_start=start, entry_stop=stop, library="ak")
        try:
            with bounded_memory():
                return branch.array(entry_start=start, entry_stop=stop, library="ak")
        except MemoryError as error:
            raise _MisreadError("uproot takes it for larger than memory") from error

    def _is_unique(self, name: str) -> bool:
        branch = self._branches[name]
        return (
            not self._is_short(branch)
            and self._bare_names[branch.name] == 1
            and "/" not in name
            and not _is_object(branch)
        )


def _unused(name: str, taken: Container[str]) -> str:
    """The name, or ``name#2``, ``name#3``...: a tree may have several branches of one name."""
    names = chain([name], (f"{name}#{number}" for number in count(2)))
    return next(n for n in names if n not in taken)


def _is_checked(branch: Any, blob: Blob) -> bool:
    """Whether all baskets of a branch carry checksums."""
    if not _compression_of(branch).startswith(("zlib", "lzma", "lz4")) or branch.embedded_baskets:
        return False
    number = branch._num_normal_baskets
    places = zip(branch.member("fBasketSeek")[:number], branch.member("fBasketBytes")[:number], strict=True)
    try:
        return all(is_checked(blob.read(int(seek), int(seek) + int(size))) for seek, size in places)
    except (ValueError, struct.error, CorruptDataError):
        return False


def _as_awkward(plan: BasketColumn | None, arrays: tuple[Array, ...]) -> Any:
    """As uproot gives them."""
    assert plan is not None  # noqa: S101  (for the type checker)
    if plan.is_string:
        content = ak.contents.NumpyArray(arrays[1], parameters={"__array__": "char"})
        offsets = ak.index.Index64(arrays[0])
        return ak.Array(ak.contents.ListOffsetArray(offsets, content, parameters={"__array__": "string"}))
    content = ak.from_numpy(arrays[-1], regulararray=True, highlevel=False)
    if plan.header is None:
        return ak.Array(content)
    return ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(arrays[0]), content))


def _share(offsets: Array, known: dict[tuple[int, int], list[Array]]) -> Array:
    """The same array for all columns whose lists are equally long: kept, counted and stored once."""
    alike = known.setdefault((len(offsets), int(offsets[-1])), [])
    for other in alike:
        if np.array_equal(other, offsets):
            return other
    alike.append(offsets)
    return offsets


class _MisreadError(Exception):
    """A column's type sends uproot astray."""


def _is_object(branch: Any) -> bool:
    """Whether uproot reads the branch object by object, believing every length that it finds."""
    return _interpretation(branch) == "AsObjects"


def _compression_of(branch: Any) -> str:
    """The branch's setting; the file's where the branch claims to have none and is compressed all the same."""
    smaller = branch.compressed_bytes < branch.uncompressed_bytes
    return compression_name(branch.member("fCompress")) or (compression_name(branch.file.fCompress) if smaller else "")


def _is_group(branch: Any) -> bool:
    """A branch that only holds other branches."""
    return len(branch.branches) > 0 and _interpretation(branch) in ("AsGrouped", "UnknownInterpretation")


def _interpretation(branch: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return type(branch.interpretation).__name__
        except Exception:  # noqa: BLE001  (uproot raises many kinds)
            return "UnknownInterpretation"
