"""A window: a rank's part of several chunks, decoded and laid out by rows, batch after batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from storagering.cache.store import ChunkReader
from storagering.errors import CorruptDataError, SchemaError
from storagering.loaders.buffers import BufferPool
from storagering.loaders.feed import Group
from storagering.loaders.kernels import (
    invert,
    scatter_columns,
    scatter_counts,
    scatter_lists,
    scatter_rows,
    scatter_shaped_lists,
)
from storagering.loaders.plan import Piece, Share
from storagering.loaders.supply import ChunkSupply
from storagering.loaders.taking import Taking
from storagering.loaders.threads import ThreadCrew
from storagering.types import Array, Chunk

#: Chunks of which a window used a part are kept decoded for the next one, up to this size together.
_KEPT_BYTES = 128 << 20


#: A group's columns of one chunk, each an array by itself.
_Columns = tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """A group's part of a window, in the order of use.

    Attributes:
        values: one row for each entry; of a jagged group, the items of all entries, one row each.
        offsets: of a jagged group, where each entry's items begin (int64, one more than entries).
    """

    values: Array
    offsets: Array | None


@dataclass(frozen=True, slots=True)
class Window:
    """All groups of a rank's window.

    Attributes:
        rows: group by group.
        bounds: where each batch begins; last, the number of rows.
        padding: rows at the end that are none of the dataset's.
    """

    rows: tuple[Rows, ...]
    bounds: tuple[int, ...]
    padding: int


@dataclass(frozen=True, slots=True)
class _Opened:
    """A chunk that is open: its reader, and the offsets of jagged groups."""

    reader: ChunkReader
    offsets: tuple[Array | None, ...]


@dataclass(frozen=True, slots=True)
class _Job:
    """The entries of one chunk: from ``start`` on, they go to the rows ``targets``; -1 is nowhere."""

    chunk: Chunk
    start: int
    targets: Array


class WindowMaker:
    """Decodes chunks in parallel, and writes their entries to where batches want them, in one pass."""

    def __init__(
        self, supply: ChunkSupply, groups: Sequence[Group], taking: Taking, crew: ThreadCrew, pool: BufferPool
    ) -> None:
        self._supply, self._groups, self._taking, self._crew, self._pool = supply, groups, taking, crew, pool
        self._kept: dict[str, tuple[_Columns, ...]] = {}

    def make(self, share: Share) -> Window:
        """A rank's window.

        Raises:
            CorruptDataError: a chunk is damaged (see `ChunkReader`).
            SchemaError: the jagged columns of a group have different lengths.
        """
        count = share.bounds[-1]
        targets = np.empty(sum(piece.stop - piece.start for piece in share.pieces), np.int32)
        invert(share.sources, targets)
        jobs = list(self._jobs(share.pieces, targets))
        opened = self._crew.map(self._open, [job.chunk for job in jobs])
        rows = tuple(self._make_room(number, jobs, opened, count) for number in range(len(self._groups)))
        left = [self._crew.submit(self._fill, job, chunk, rows) for job, chunk in zip(jobs, opened, strict=True)]
        self._keep(jobs, [future.result() for future in left])
        return Window(rows, share.bounds, int((share.sources < 0).sum()))

    def _jobs(self, pieces: Sequence[Piece], targets: Array) -> Iterator[_Job]:
        at = 0
        for piece in pieces:
            before = 0
            for chunk in self._supply.chunks(piece.unit):
                taken = self._taking.rows(chunk)
                count = chunk.num_entries if taken is None else len(taken)
                start, stop = max(piece.start - before, 0), min(piece.stop - before, count)
                if stop > start:
                    own = targets[at : at + stop - start]
                    at += stop - start
                    yield _Job(chunk, start, own) if taken is None else _spread(chunk, taken[start:stop], own)
                before += count

    def _open(self, chunk: Chunk) -> _Opened:
        reader = self._supply.open(chunk)
        return _Opened(reader, tuple(_read_offsets(reader, group, chunk) for group in self._groups))

    def _make_room(self, number: int, jobs: Sequence[_Job], opened: Sequence[_Opened], count: int) -> Rows:
        """A group's rows, to be filled; and where the items of each begin."""
        group = self._groups[number]
        if not group.jagged:
            return Rows(self._pool.array((count, *group.row_shape), group.dtype), None)
        ends = np.zeros(count + 1, np.int64)
        for job, chunk in zip(jobs, opened, strict=True):
            offsets = chunk.offsets[number]
            if offsets is not None:
                scatter_counts(offsets, job.start, job.targets, ends[1:])
        np.cumsum(ends, out=ends)
        return Rows(self._pool.array((int(ends[-1]), *group.row_shape), group.dtype), ends)

    def _fill(self, job: _Job, opened: _Opened, rows: Sequence[Rows]) -> tuple[_Columns, ...]:
        """Decode a chunk and write its entries to their rows; what was decoded, if the next window may want it."""
        kept = self._kept.get(job.chunk.file)
        decoded = []
        for number, group in enumerate(self._groups):
            offsets = opened.offsets[number]
            items = job.chunk.num_entries if offsets is None else int(offsets[-1])
            columns = self._read(opened.reader, group, items) if kept is None else kept[number]
            _scatter(group, columns, offsets, job, rows[number])
            decoded.append(columns)
        return tuple(decoded) if job.start + len(job.targets) < job.chunk.num_entries else ()

    def _read(self, reader: ChunkReader, group: Group, items: int) -> _Columns:
        """A group's columns: where they lie in the file, if they lie there as they are wanted, else decoded."""
        found = []
        for column in group.columns:
            stored = column.parts[-1]
            same = np.dtype(stored.dtype) == group.dtype
            values = reader.view_column(column.name)
            if values is None:
                out = self._pool.array((items, *stored.shape), group.dtype) if same else None
                values = reader.read_column(column.name, out)[-1]
            _check(values, column.name, items)
            found.append(values if same else values.astype(group.dtype))
        return tuple(found)

    def _keep(self, jobs: Sequence[_Job], left: Sequence[tuple[_Columns, ...]]) -> None:
        """Keep what the next window may go on with: chunks of which this one left some entries."""
        kept, nbytes = {}, 0
        for job, values in zip(jobs, left, strict=True):
            nbytes += sum(array.nbytes for columns in values for array in columns)
            if values and nbytes <= _KEPT_BYTES:
                kept[job.chunk.file] = values
        self._kept = kept


def _spread(chunk: Chunk, taken: Array, targets: Array) -> _Job:
    """A job over the chunk's entries from the first that is taken to the last: others go nowhere."""
    first = int(taken[0])
    spread = np.full(int(taken[-1]) + 1 - first, -1, targets.dtype)
    spread[taken - first] = targets
    return _Job(chunk, first, spread)


def _scatter(group: Group, columns: _Columns, offsets: Array | None, job: _Job, rows: Rows) -> None:
    target = as_matrix(rows.values)
    if group.flat_items:
        places = np.array([column.ctypes.data for column in columns], np.uint64)
        if offsets is None or rows.offsets is None:
            scatter_columns(places, job.start, job.targets, target)
        else:
            scatter_lists(places, offsets, job.start, job.targets, rows.offsets, target)
    elif offsets is None or rows.offsets is None:
        scatter_rows(as_matrix(columns[0]), job.start, job.targets, target)
    else:
        scatter_shaped_lists(as_matrix(columns[0]), offsets, job.start, job.targets, rows.offsets, target)


def as_matrix(array: Array) -> Array:
    """Bits of rows of numbers, whatever their shape: (n, F)."""
    return as_bits(array).reshape(len(array), math.prod(array.shape[1:]))


def as_bits(array: Array) -> Array:
    """Numbers as integers of their size: the kernels move bits, and are compiled once for each size."""
    return array.view(np.dtype(f"<u{array.dtype.itemsize}"))


def _read_offsets(reader: ChunkReader, group: Group, chunk: Chunk) -> Array | None:
    """The offsets of a jagged group, which all its columns must share."""
    if not group.jagged:
        return None
    first, *others = (reader.read_offsets(column.name) for column in group.columns)
    for column, other in zip(group.columns[1:], others, strict=True):
        if other is not first and not np.array_equal(other, first):
            raise SchemaError(
                f"group {group.key!r}: {column.name!r} and {group.columns[0].name!r} have different lengths "
                f"in {chunk.file}; put them in groups of their own"
            )
    return first


def _check(values: Array, name: str, items: int) -> None:
    if len(values) != items:
        raise CorruptDataError(f"column {name!r} has {len(values)} values where its offsets say {items}")
    if values.dtype == np.uint64 and values.size and int(values.max()) > np.iinfo(np.int64).max:
        raise SchemaError(f"column {name!r} has values above 2^63, which no tensor of integers holds")
