"""A window: several chunks decoded side by side, from which batches are gathered."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from storagering.cache.store import ChunkReader
from storagering.errors import CorruptDataError, SchemaError
from storagering.loaders.buffers import Buffer, BufferPool, shaped
from storagering.loaders.feed import Group
from storagering.loaders.supply import ChunkSupply
from storagering.types import Array, Chunk

#: Rows that are transposed at a time: their columns and rows fit into the second-level cache.
_ROWS_PER_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class Window:
    """Decoded rows, group by group.

    Attributes:
        values: per group the rows (row-major, features last); for jagged groups the items of all
            entries, and one row of zeros behind them that padding points to.
        offsets: per jagged group where each entry's items begin (int64, one more than entries).
        rows: the entries that take part, in the order of use.
        buffers: the memory of ``values``, to be given back.
    """

    values: tuple[Array, ...]
    offsets: tuple[Array | None, ...]
    rows: Array
    buffers: tuple[Buffer, ...]


class WindowMaker:
    """Decodes chunks in parallel and lays their columns out by rows, in memory that is used again."""

    def __init__(self, supply: ChunkSupply, groups: Sequence[Group], decoders: Executor, pool: BufferPool) -> None:
        self._supply, self._groups, self._decoders, self._pool = supply, groups, decoders, pool

    def make(self, chunks: Sequence[Chunk], rows: Array) -> Window:
        """The window of those chunks.

        Raises:
            CorruptDataError: a chunk is damaged (see `ChunkReader`).
            SchemaError: the jagged columns of a group have different lengths.
        """
        opened = list(self._decoders.map(self._open, chunks))
        values, offsets, buffers, jobs = [], [], [], []
        for number, group in enumerate(self._groups):
            own = [o.offsets[number] for o in opened]
            lengths = [c.num_entries if o is None else int(o[-1]) for c, o in zip(chunks, own, strict=True)]
            starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
            shape = (starts[-1] + group.jagged, *group.row_shape)
            buffers.append(self._pool.lend(int(np.prod(shape, dtype=np.int64)) * group.dtype.itemsize))
            matrix = shaped(buffers[-1], shape, group.dtype)
            if group.jagged:
                matrix[-1] = 0
            values.append(matrix)
            offsets.append(_join_offsets([o for o in own if o is not None]) if group.jagged else None)
            jobs += [(o, group, matrix[a:b]) for o, (a, b) in zip(opened, pairwise(starts), strict=True)]
        for _ in self._decoders.map(self._fill, jobs):
            pass
        return Window(tuple(values), tuple(offsets), rows, tuple(buffers))

    def recycle(self, window: Window) -> None:
        """Take the window's memory back; no batch refers to it, they are copies."""
        for buffer in window.buffers:
            self._pool.give_back(buffer)

    def _open(self, chunk: Chunk) -> _OpenChunk:
        reader = self._supply.open(chunk)
        return _OpenChunk(chunk, reader, [_read_offsets(reader, g, chunk) for g in self._groups])

    def _fill(self, job: tuple[_OpenChunk, Group, Array]) -> None:
        opened, group, target = job
        if not group.stacked:
            _copy(opened.reader.read_column(group.columns[0].name, _same_type(target, group))[-1], target, group, 0)
            return
        stored = [np.dtype(c.parts[-1].dtype) for c in group.columns]
        with self._pool.borrowed(len(target) * sum(s.itemsize for s in stored)) as scratch:
            columns, at = [], 0
            for column, dtype in zip(group.columns, stored, strict=True):
                out = shaped(scratch[at:], (len(target),), dtype) if at % dtype.itemsize == 0 else None
                columns.append(opened.reader.read_column(column.name, out)[-1])
                at += len(target) * dtype.itemsize
            _transpose(columns, target, group)


@dataclass(frozen=True, slots=True)
class _OpenChunk:
    chunk: Chunk
    reader: ChunkReader
    offsets: list[Array | None]


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


def _same_type(target: Array, group: Group) -> Array | None:
    """The target itself where the column can be decoded straight into it."""
    return target if target.dtype == np.dtype(group.columns[0].parts[-1].dtype) else None


def _transpose(columns: list[Array], target: Array, group: Group) -> None:
    """Columns into rows: the one transposition on the way from disk to batch."""
    for number, column in enumerate(columns):
        _check(column, target, group, number)
    for start in range(0, len(target), _ROWS_PER_BLOCK):
        block = target[start : start + _ROWS_PER_BLOCK]
        for number, column in enumerate(columns):
            block[:, number] = column[start : start + _ROWS_PER_BLOCK]


def _copy(column: Array, target: Array, group: Group, number: int) -> None:
    _check(column, target, group, number)
    if column is not target:
        target[...] = column


def _check(column: Array, target: Array, group: Group, number: int) -> None:
    name = group.columns[number].name
    if len(column) != len(target):
        raise CorruptDataError(f"column {name!r} has {len(column)} values where its offsets say {len(target)}")
    if column.dtype == np.uint64 and column.size and int(column.max()) > np.iinfo(np.int64).max:
        raise SchemaError(f"column {name!r} has values above 2^63, which no tensor of integers holds")


def _join_offsets(offsets: list[Array]) -> Array:
    joined, at = [np.zeros(1, np.int64)], 0
    for own in offsets:
        joined.append(own[1:] + at)
        at += int(own[-1])
    return np.concatenate(joined)
