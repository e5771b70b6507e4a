"""A window: several chunks decoded side by side, from which batches are gathered."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from storagering.cache.dataset import Dataset
from storagering.errors import CorruptDataError, SchemaError
from storagering.loaders.feed import Group
from storagering.types import Array, Chunk


@dataclass(frozen=True, slots=True)
class Window:
    """Decoded rows, group by group.

    Attributes:
        values: per group the rows (row-major, features last); for jagged groups the items of all
            entries, and one row of zeros behind them that padding points to.
        offsets: per jagged group where each entry's items begin (int64, one more than entries).
        rows: the entries that take part, in the order of use.
    """

    values: tuple[Array, ...]
    offsets: tuple[Array | None, ...]
    rows: Array


class _Decoded:
    """The parts of one chunk that the groups need; siblings share their offsets."""

    def __init__(self, dataset: Dataset, chunk: Chunk, groups: Sequence[Group]) -> None:
        reader = dataset.open_chunk(chunk)
        self.values: list[list[Array]] = []
        self.offsets: list[Array | None] = []
        for group in groups:
            parts = [reader.read_column(column.name) for column in group.columns]
            self.values.append([p[-1] for p in parts])
            self.offsets.append(parts[0][0] if group.jagged else None)
            if group.jagged:
                self._check_siblings(group, [p[0] for p in parts], chunk)

    def _check_siblings(self, group: Group, offsets: list[Array], chunk: Chunk) -> None:
        for column, other in zip(group.columns[1:], offsets[1:], strict=True):
            if other is not offsets[0] and not np.array_equal(other, offsets[0]):
                raise SchemaError(
                    f"group {group.key!r}: {column.name!r} and {group.columns[0].name!r} have different lengths "
                    f"in {chunk.file}; put them in groups of their own"
                )
        if len(self.values[-1][0]) != offsets[0][-1]:
            raise CorruptDataError(f"{chunk.file}: column {group.columns[0].name!r} has offsets beyond its values")


def assemble_window(
    dataset: Dataset, chunks: Sequence[Chunk], groups: Sequence[Group], rows: Array, decoders: Executor
) -> Window:
    """Decode the chunks in parallel and lay their columns out by rows.

    Raises:
        CorruptDataError: a chunk is damaged (see `ChunkReader`).
    """
    decoded = list(decoders.map(lambda chunk: _Decoded(dataset, chunk, groups), chunks))
    values, offsets, jobs = [], [], []
    for number, group in enumerate(groups):
        lengths = [len(d.values[number][0]) for d in decoded]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        total = int(starts[-1])
        matrix = np.empty((total + group.jagged, *group.row_shape), group.dtype)
        if group.jagged:
            matrix[total] = 0
        values.append(matrix)
        offsets.append(_join_offsets([d.offsets[number] for d in decoded]) if group.jagged else None)
        jobs += [(group, d.values[number], matrix[a:b]) for d, a, b in zip(decoded, starts, starts[1:], strict=False)]
    for _ in decoders.map(lambda job: _lay_out(*job), jobs):
        pass
    return Window(tuple(values), tuple(offsets), rows)


def _lay_out(group: Group, columns: list[Array], target: Array) -> None:
    """Columns into rows: the one transposition on the way from disk to batch."""
    for number, column in enumerate(columns):
        if column.dtype == np.uint64 and column.size and int(column.max()) > np.iinfo(np.int64).max:
            raise SchemaError(f"column {group.columns[number].name!r} has values that no signed integer holds")
        if group.stacked:
            target[:, number] = column
        else:
            target[...] = column


def _join_offsets(offsets: list[Array | None]) -> Array:
    joined, at = [np.zeros(1, np.int64)], 0
    for own in offsets:
        assert own is not None  # noqa: S101  (jagged groups have them)
        joined.append(own[1:] + at)
        at += int(own[-1])
    return np.concatenate(joined)
