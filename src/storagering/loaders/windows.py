"""A window: a rank's part of several chunks, decoded and laid out by rows, batch after batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from storagering.loaders.buffers import BufferPool
from storagering.loaders.decoding import ChunkDecoder, Columns, Decoded
from storagering.loaders.feed import Group
from storagering.loaders.kernels import (
    copy_lists,
    invert,
    scatter_columns,
    scatter_counts,
    scatter_lists,
    scatter_rows,
)
from storagering.loaders.plan import Piece, Share
from storagering.loaders.sparse_kernels import IMAGE_ROW, Images, number_images
from storagering.loaders.supply import ChunkSupply
from storagering.loaders.taking import Taking
from storagering.loaders.threads import ThreadCrew
from storagering.types import Array, Chunk

#: Chunks that are decoded ahead of the one whose entries are written.
_CHUNKS_AHEAD = 4
#: What a thread writes at a time.
_PART_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Rows:
    """A group's part of a window, in the order of use.

    Attributes:
        values: one row for each entry; of lists, the items of all entries, one row each.
        offsets: of lists, where each entry's items begin (int64, one more than entries).
        images: of sparse arrays: what was decoded. Values tell which of them each entry's is (`IMAGE_ROW`).
    """

    values: Array
    offsets: Array | None = None
    images: Images | None = None


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
class _Job:
    """The entries of one chunk: from ``start`` on, they go to the rows ``targets``; -1 is nowhere."""

    number: int
    chunk: Chunk
    start: int
    targets: Array


class WindowMaker:
    """Writes the entries of decoded chunks to where batches want them, in one pass, in threads."""

    def __init__(
        self, supply: ChunkSupply, groups: Sequence[Group], taking: Taking, crew: ThreadCrew, pool: BufferPool
    ) -> None:
        self._supply, self._groups, self._taking, self._crew, self._pool = supply, groups, taking, crew, pool
        self._decoder = ChunkDecoder(supply, groups, crew, pool)

    def make(self, share: Share) -> Window:
        """A rank's window.

        Raises:
            CorruptDataError: a chunk is damaged (see `ChunkReader`).
            SchemaError: the jagged columns of a group have different lengths.
        """
        targets = np.empty(_size(share), np.int32)
        invert(share.sources, targets)
        jobs = list(self._jobs(share.pieces, targets))
        offsets = self._decoder.read_offsets([job.chunk for job in jobs])
        rows = tuple(self._make_room(n, jobs, offsets, share.bounds[-1]) for n in range(len(self._groups)))
        for future in list(self._begin(jobs, rows)):
            future.result()
        padding = int((share.sources < 0).sum())
        for own in rows:
            if own.offsets is None:
                own.values[len(own.values) - padding :] = 0
        return Window(rows, share.bounds, padding)

    def _begin(self, jobs: Sequence[_Job], rows: Sequence[Rows]) -> Iterator[Future[None]]:
        """Write the entries of one chunk after the other, as they are decoded; few are at any time."""
        claimed = [job.chunk for job in jobs]
        self._decoder.claim(claimed)
        try:
            for number, job in enumerate(jobs):
                for ahead in jobs[number : number + _CHUNKS_AHEAD]:
                    self._decoder.begin(ahead.chunk)
                decoded = self._decoder.get(job.chunk)
                yield from [self._crew.submit(self._write, part, decoded, rows) for part in _parts(job, rows)]
                self._decoder.release([claimed.pop(0)])
        finally:
            self._decoder.release(claimed)

    def _jobs(self, pieces: Sequence[Piece], targets: Array) -> Iterator[_Job]:
        at = number = 0
        for piece in pieces:
            before = 0
            for chunk in self._supply.chunks(piece.unit):
                taken = self._taking.rows(chunk)
                count = chunk.num_entries if taken is None else len(taken)
                start, stop = max(piece.start - before, 0), min(piece.stop - before, count)
                if stop > start:
                    own = targets[at : at + stop - start]
                    at += stop - start
                    job = _Job(number, chunk, start, own)
                    yield job if taken is None else _spread(job, taken[start:stop])
                    number += 1
                before += count

    def _make_room(
        self, number: int, jobs: Sequence[_Job], offsets: Sequence[tuple[Array | None, ...]], count: int
    ) -> Rows:
        """A group's rows, to be filled; and where the items of each begin."""
        group = self._groups[number]
        if group.sparse:
            images = Images(len(jobs), group.places_dtype, group.values_dtype)
            return Rows(self._pool.array((count, IMAGE_ROW), np.dtype(np.int32)), None, images)
        if not group.jagged:
            return Rows(self._pool.array((count, *group.row_shape), group.dtype))
        ends = np.zeros(count + 1, np.int64)
        for job, chunk_offsets in zip(jobs, offsets, strict=True):
            own = chunk_offsets[number]
            if own is not None:
                scatter_counts(own, job.start, job.targets, ends[1:])
        np.cumsum(ends, out=ends)
        return make_lists(group, ends, self._pool)

    def _write(self, job: _Job, decoded: Decoded, rows: Sequence[Rows]) -> None:
        for group, columns, offsets, own in zip(self._groups, decoded.columns, decoded.offsets, rows, strict=True):
            _scatter(group, columns, offsets, job, own)


def _size(share: Share) -> int:
    return sum(piece.stop - piece.start for piece in share.pieces)


def _parts(job: _Job, rows: Sequence[Rows]) -> Iterator[_Job]:
    """A job in parts for several threads."""
    nbytes = sum(own.values.nbytes for own in rows)
    count = max((len(own.values) if own.offsets is None else len(own.offsets) - 1 for own in rows), default=0)
    step = max(1, _PART_BYTES * count // max(1, nbytes))
    for start in range(0, len(job.targets), step):
        yield _Job(job.number, job.chunk, job.start + start, job.targets[start : start + step])


def _spread(job: _Job, taken: Array) -> _Job:
    """A job over the chunk's entries from the first that is taken to the last: others go nowhere."""
    first = int(taken[0])
    spread = np.full(int(taken[-1]) + 1 - first, -1, job.targets.dtype)
    spread[taken - first] = job.targets
    return _Job(job.number, job.chunk, first, spread)


def make_lists(group: Group, ends: Array, pool: BufferPool) -> Rows:
    """Room for a group's lists, which end where told."""
    return Rows(pool.array((int(ends[-1]), *group.row_shape), group.dtype), ends)


def _scatter(group: Group, columns: Columns, offsets: Array | None, job: _Job, rows: Rows) -> None:
    if rows.images is not None:
        rows.images.put(job.number, *columns)
        number_images(job.number + 1, job.start, job.targets, rows.values)
        return
    target = as_matrix(rows.values)
    if offsets is None or rows.offsets is None:
        if group.flat_items:
            scatter_columns(_addresses(columns), job.start, job.targets, target)
        else:
            scatter_rows(as_matrix(columns[0]), job.start, job.targets, target)
        return
    where = offsets, job.start, job.targets, rows.offsets
    if len(columns) == 1:
        copy_lists(as_matrix(columns[0]), *where, target)
    else:
        scatter_lists(_addresses(columns), *where, target)


def _addresses(columns: Columns) -> Array:
    """The addresses of arrays, as the kernels take them."""
    return np.array([column.ctypes.data for column in columns], np.uint64)


def as_matrix(array: Array) -> Array:
    """Bits of rows of numbers, whatever their shape: (n, F)."""
    return as_bits(array).reshape(len(array), math.prod(array.shape[1:]))


def as_bits(array: Array) -> Array:
    """Numbers as integers of their size: the kernels move bits, and are compiled once for each size."""
    return array.view(np.dtype(f"<u{array.dtype.itemsize}"))
