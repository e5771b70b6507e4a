"""Sketches of columns: how many of their numbers lie in each of the buckets of `storagering.cache.buckets`.

All sketches have the same buckets, so those of parts add up to that of the whole, exactly, in whatever order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numcodecs.lz4
import numpy as np

from storagering.cache.buckets import Counted, count_buckets
from storagering.distributions import MOST_BINS
from storagering.types import Array, Batch, Column

#: The keys of a column's buckets begin at its number times this; bucket 0 is in their middle.
_SPAN = 1 << 20
_ZERO = 1 << 19
#: New keys that wait until they are put among those that are known.
_WAITING = 1 << 16


@dataclass(frozen=True, eq=False)
class Sketch:
    """Of one column.

    Attributes:
        buckets: the numbers of those that are not empty, rising (int64).
        counts: of each (int64).
        values: the only value in each (float64), if all have only one and they are at most `MOST_BINS`; else empty.
    """

    buckets: Array
    counts: Array
    values: Array


@dataclass(frozen=True, eq=False)
class Sketches:
    """Those of the columns of a schema.

    Attributes:
        keys: int64, rising: the column's number in the schema, and the bucket.
        counts: int64.
        values: the only value in each bucket (float64), NaN if there are several, or that is not known.
    """

    keys: Array
    counts: Array
    values: Array

    def of(self, number: int) -> Sketch:
        """That of the column with that number; empty if it has none."""
        first, last = np.searchsorted(self.keys, (number * _SPAN, (number + 1) * _SPAN)).tolist()
        values = self.values[first:last]
        if last - first > MOST_BINS or np.isnan(values).any():
            values = values[:0]
        return Sketch(self.keys[first:last] - (number * _SPAN + _ZERO), self.counts[first:last], values)


NOTHING = Sketches(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def has_numbers(column: Column) -> bool:
    """Whether there are statistics and a sketch of it."""
    return column.kind not in ("string", "nested") and column.dtype != "string" and column.parts[-1].dtype[1] in "biuf"


def sketch_batch(batch: Batch) -> Sketches:
    """Sketches of all columns of plain numbers."""
    return join_columns([count_column(column, batch.arrays[column.name]) for column in batch.schema.columns])


def count_column(column: Column, arrays: tuple[Array, ...]) -> list[Counted]:
    """The buckets of a column's numbers, to be added up; none if it has no plain numbers."""
    if not has_numbers(column):
        return []
    numbers = arrays[-1].reshape(-1)
    found = [count_buckets(numbers)]
    if column.kind == "sparse":
        absent = (len(arrays[0]) - 1) * math.prod(column.shape) - len(numbers)
        found += [Counted(np.zeros(1, np.int64), np.array([absent]), np.zeros(1))] if absent else []
    return found


def join_columns(found: Sequence[Sequence[Counted]]) -> Sketches:
    """The sketches of the columns of a schema, each from what is to be added up of it."""
    return _in_order([(number, part) for number, parts in enumerate(found) for part in parts])


def collect_sketches(sketches: Iterable[tuple[int, Sketch]]) -> Sketches:
    """Of columns, by their numbers in the schema, which rise."""
    unknown = [(n, s, s.values if len(s.values) else np.full(len(s.buckets), np.nan)) for n, s in sketches]
    return _in_order([(number, Counted(s.buckets, s.counts, values)) for number, s, values in unknown])


def _in_order(parts: Sequence[tuple[int, Counted]]) -> Sketches:
    """Of columns by number, which rise; those of a number that comes twice are added up."""
    if not parts:
        return NOTHING
    keys = np.concatenate([counted.buckets + (number * _SPAN + _ZERO) for number, counted in parts])
    counts, values = (np.concatenate([counted[at] for _, counted in parts]) for at in (1, 2))
    made = Sketches(keys, counts, values)
    return made if (np.diff(keys) > 0).all() else merge_sketches([made])


def merge_sketches(parts: Sequence[Sketches]) -> Sketches:
    """The sketches of everything together; keys need not rise."""
    keys, counts, values = (
        np.concatenate(arrays)
        for arrays in zip(*((p.keys, p.counts, p.values) for p in (NOTHING, *parts)), strict=True)
    )
    if not len(keys):
        return NOTHING
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    with np.errstate(invalid="ignore"):
        least, most = np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
    return Sketches(keys[first], np.add.reduceat(counts[order], first), np.where(least == most, least, np.nan))


class SketchSum:
    """Adds up the sketches of parts as they come, in any order, in little memory."""

    def __init__(self) -> None:
        self._sum = NOTHING
        self._new: list[Sketches] = []
        self._waiting = 0

    def add(self, part: Sketches) -> None:
        """Add those of a part; most of its keys are known, after a while."""
        known = self._sum
        if not len(known.keys):
            self._keep(part)
            return
        places = np.minimum(np.searchsorted(known.keys, part.keys), len(known.keys) - 1)
        same = known.keys[places] == part.keys
        places, others = places[same], ~same
        known.counts[places] += part.counts[same]
        known.values[places[known.values[places] != part.values[same]]] = np.nan
        if others.any():
            self._keep(Sketches(part.keys[others], part.counts[others], part.values[others]))

    def _keep(self, part: Sketches) -> None:
        self._new.append(part)
        self._waiting += len(part.keys)
        if self._waiting > max(_WAITING, len(self._sum.keys) // 4) or not len(self._sum.keys):
            self.total()

    def total(self) -> Sketches:
        """Those of everything so far."""
        if self._new:
            self._sum = merge_sketches([self._sum, *self._new])
        self._new, self._waiting = [], 0
        return self._sum


def encode_sketches(sketches: Sketches) -> bytes:
    """As bytes, for `decode_sketches`; about three for each bucket."""
    known = np.flatnonzero(~np.isnan(sketches.values))
    numbers = np.concatenate((np.diff(sketches.keys, prepend=0), sketches.counts, known))
    word = np.dtype("<u4" if numbers.max(initial=0) < 1 << 32 else "<u8")
    planes = numbers.astype(word).view(np.uint8).reshape(-1, word.itemsize).T  # most bytes are zeros
    sizes = np.array([word.itemsize, len(sketches.keys), len(known)], "<i8")
    return bytes(
        numcodecs.lz4.compress(sizes.tobytes() + sketches.values[known].astype("<f8").tobytes() + planes.tobytes())
    )


def decode_sketches(data: bytes) -> Sketches:
    """The sketches in those bytes; none in none.

    Raises:
        ValueError: they are not as many as they say.
    """
    if not data:
        return NOTHING
    bare = memoryview(numcodecs.lz4.decompress(data))
    width, size, few = np.frombuffer(bare[:24], "<i8").tolist()
    planes = np.frombuffer(bare[24 + 8 * few :], np.uint8).reshape(width, -1)
    numbers = np.ascontiguousarray(planes.T).view(f"<u{width}").reshape(-1).astype(np.int64)
    deltas, counts, known = np.split(numbers, [size, 2 * size])
    values = np.full(size, np.nan)
    values[known] = np.frombuffer(bare[24 : 24 + 8 * few], "<f8")
    return Sketches(np.cumsum(deltas), counts, values)
