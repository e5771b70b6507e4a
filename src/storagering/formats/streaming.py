"""A whole source as a stream of arrays in bounded memory, with the columns that it turns out to have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import awkward as ak
import numpy as np

from storagering.errors import SchemaError
from storagering.formats.forms import UnsupportedTypeError, assign_keys, describe_column
from storagering.formats.source import Source, UnreadableColumnsError
from storagering.types import OnBadColumn, Schema, SkippedColumn
from storagering.urls import redact_url

#: Some entries of some columns as Awkward arrays, and how many entries these are.
Piece = tuple[Mapping[str, Any], int]

_PROBE_ENTRIES = 1000
_PIECE_BYTES = 16 << 20
#: A compressed block larger than this many pieces is read in parts, though each part unpacks it again.
_PIECES_PER_READ = 8


class SourceStream:
    """The wanted columns of a source.

    Attributes:
        schema: what they are, seen from the first entries.
        skipped: those that cannot be read, and why.

    Raises:
        SchemaError: a column that cannot be read, under ``on_bad_column="fail"``.
    """

    def __init__(self, source: Source, names: Sequence[str], on_bad_column: OnBadColumn) -> None:
        self._source, self._on_bad_column = source, on_bad_column
        self.skipped: tuple[SkippedColumn, ...] = ()
        self._probed = min(source.entries, _PROBE_ENTRIES)
        self._bytes = 0
        columns = []
        for name, array in self._probe(list(names)).items():
            try:
                columns.append(describe_column(name, array, doc=source.doc(name)))
                self._bytes += int(array.nbytes)
            except UnsupportedTypeError as error:
                self.skip(name, str(error))
        self.schema: Schema = assign_keys(columns)

    def skip(self, name: str, reason: str) -> None:
        """Go on without a column.

        Raises:
            SchemaError: under ``on_bad_column="fail"``.
        """
        shown = redact_url(self._source.url)
        if self._on_bad_column == "fail":
            raise SchemaError(f"{shown}: column {name!r} cannot be read: {reason}")
        self.skipped += (SkippedColumn(name, self._source.columns.get(name, ""), reason, shown),)

    def _probe(self, names: list[str]) -> dict[str, Any]:
        try:
            read = self._source.read(names, 0, self._probed)
        except UnreadableColumnsError as error:
            for name, reason in error.reasons.items():
                self.skip(name, reason)
            return self._probe([n for n in names if n not in error.reasons])
        return {name: ak.Array(read[name]) for name in names}

    def pieces(self, names: Sequence[str], start: int, stop: int, started: Callable[[int], None]) -> Iterator[Piece]:
        """Entries ``start`` to ``stop`` of the named columns, on block boundaries where that is sensible.

        Raises:
            UnreadableColumnsError: columns that turn out to be unreadable further on.
            StorageringError: what reading raises.
        """
        started(stop - start)
        for a, b in self._cut(names):
            first, last = max(a, start), min(b, stop)
            if first < last:
                read = self._source.read(names, first, last)
                yield {name: ak.Array(array) for name, array in read.items()}, last - first

    def _cut(self, names: Sequence[str]) -> Iterator[tuple[int, int]]:
        bounds = self._source.boundaries(names)
        per_piece = max(1, int(_PIECE_BYTES * max(1, self._probed) / max(1, self._bytes)))
        start, last = 0, bounds[-1]
        for here, following in pairwise([*bounds[1:], last]):
            if here == last or following - start > per_piece:
                parts = -(-(here - start) // (per_piece * _PIECES_PER_READ))
                yield from pairwise(np.linspace(start, here, max(1, parts) + 1).astype(int).tolist())
                start = here
