"""Entries from anywhere in a dataset, for an exact shuffle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import numpy as np

from storagering.cache.packed import PackedRows
from storagering.cache.rows import is_packed
from storagering.errors import CorruptDataError
from storagering.loaders.buffers import BufferPool
from storagering.loaders.feed import Group
from storagering.loaders.kernels import take_lists, take_rows
from storagering.loaders.rows import RowGatherer
from storagering.loaders.supply import ChunkSupply
from storagering.loaders.taking import Taking
from storagering.loaders.windows import Rows, Window, as_matrix
from storagering.types import Array, Chunk, Manifest


class RandomRows(Protocol):
    """Any entries of those that take part, in any order; safe to use from several threads."""

    def take(self, numbers: Array) -> Window:
        """A window of one batch of these entries; -1 is padding."""


class Table:
    """All entries that take part, decoded in memory."""

    def __init__(self, everything: Window, pool: BufferPool) -> None:
        self._everything, self._pool = everything, pool

    def take(self, numbers: Array) -> Window:
        """See `RandomRows.take`."""
        return _one_batch([take_entries(whole, numbers, self._pool) for whole in self._everything.rows], numbers)


class PackedEntries:
    """Entries read alone from chunks in the rows layout, whose files stay mapped.

    Args:
        groups: all of them packed: see `is_packed_group`.
        taking: which entries of the chunks take part.
    """

    def __init__(self, groups: Sequence[Group], supply: ChunkSupply, taking: Taking, pool: BufferPool) -> None:
        self._groups, self._pool = groups, pool
        chunks = [chunk for unit in range(len(supply.entries)) for chunk in supply.chunks(unit)]
        taken = [taking.rows(chunk) for chunk in chunks]
        counts = [c.num_entries if rows is None else len(rows) for c, rows in zip(chunks, taken, strict=True)]
        self._starts = np.array(list(accumulate(counts, initial=0)))
        known = [rows.astype(np.uint32) for rows in taken if rows is not None]
        self._rows = np.concatenate(known) if known else None
        self._gatherers = [
            RowGatherer(len(chunks), lambda number: _packed_rows(supply, chunks[number]), group.columns, group.dtype)
            for group in groups
        ]

    def take(self, numbers: Array) -> Window:
        """See `RandomRows.take`."""
        wanted = np.maximum(numbers, 0)
        chunk = np.searchsorted(self._starts, wanted, side="right") - 1
        row = wanted - self._starts[chunk] if self._rows is None else self._rows[wanted].astype(np.int64)
        found = []
        for group, gatherer in zip(self._groups, self._gatherers, strict=True):
            out = self._pool.array((len(numbers), *group.row_shape), group.dtype)
            gatherer.gather(chunk.astype(np.int32), row, out)
            out[numbers < 0] = 0
            found.append(Rows(out))
        return _one_batch(found, numbers)


class SideBySide:
    """Some groups from one, the others from another.

    Args:
        parts: the numbers of the groups, and who has them.
    """

    def __init__(self, parts: Sequence[tuple[Sequence[int], RandomRows]]) -> None:
        self._parts = parts

    def take(self, numbers: Array) -> Window:
        """See `RandomRows.take`."""
        rows: dict[int, Rows] = {}
        for places, part in self._parts:
            rows.update(zip(places, part.take(numbers).rows, strict=True))
        return _one_batch([rows[number] for number in sorted(rows)], numbers)


def take_entries(rows: Rows, numbers: Array, pool: BufferPool) -> Rows:
    """Entries of those numbers, in their order; -1 is one of zeros, or without items. Images stay where they are."""
    values, offsets = rows.values, rows.offsets
    if offsets is None:
        out = pool.array((len(numbers), *values.shape[1:]), values.dtype)
        take_rows(as_matrix(values), numbers, as_matrix(out))
        return Rows(out, None, rows.images)
    counts = np.where(numbers >= 0, offsets[numbers + 1] - offsets[numbers], 0)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    items = pool.array((int(ends[-1]), *values.shape[1:]), values.dtype)
    take_lists(as_matrix(values), offsets, numbers, ends, as_matrix(items))
    return Rows(items, ends)


def is_packed_group(group: Group, manifest: Manifest) -> bool:
    """Whether an entry of a group can be read alone."""
    return manifest.spec.layout == "rows" and all(is_packed(column) for column in group.columns)


def _packed_rows(supply: ChunkSupply, chunk: Chunk) -> PackedRows:
    packed = supply.open(chunk).packed_rows()
    if packed is None:
        raise CorruptDataError(f"{supply.where}: {chunk.file} has no rows, as its manifest says")
    return packed


def _one_batch(rows: Sequence[Rows], numbers: Array) -> Window:
    return Window(tuple(rows), (0, len(numbers)), int((numbers < 0).sum()))
