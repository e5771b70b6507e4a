"""Compiled inner loops: they run without the interpreter's lock, and nothing else in the loaders touches single rows.

Compiled when first called, and kept on the disk for the processes that follow. The bounds of all arguments are checked
where these are made, not here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.extending import intrinsic

from storagering.compiling import compiled
from storagering.types import Array


@compiled
def _mixed(word: np.uint64) -> np.uint64:
    """The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@compiled
def shuffle_segments(values: Array, edges: Array, first: int, key: np.uint64) -> None:
    """Permute each of the segments of ``values`` in place; segment n as number ``first + n`` under ``key``.

    Fisher and Yates' shuffle; numbers below a bound are drawn as in Lemire, Fast random integer generation in an
    interval (2019), without the rejection, whose bias is below 2^-32 for up to 2^32 values. Written here because the
    order must stay the same for ever, which NumPy does not promise of its permutations.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    for segment in range(len(edges) - 1):
        state = _mixed(np.uint64(key) ^ _mixed(np.uint64(first + segment) + golden))
        start = edges[segment]
        for at in range(edges[segment + 1] - start - 1, 0, -1):
            state += golden
            word = _mixed(state)
            bound = np.uint64(at + 1)
            low = (word & np.uint64(0xFFFFFFFF)) * bound
            other = start + np.int64(((word >> np.uint64(32)) * bound + (low >> np.uint64(32))) >> np.uint64(32))
            values[start + at], values[other] = values[other], values[start + at]


@compiled
def apportion(sizes: Array, totals: Array, counts: Array) -> None:
    """How many of the first ``totals[n]`` entries come from each part when parts of ``sizes`` are merged in proportion.

    Entry j of a part of n stands at (j + 1/2) / n, so every part's count is within about one of its share, and only
    grows with the total (the method of Webster and Sainte-Laguë). Sizes up to 2^30 entries do not overflow.

    Args:
        counts: filled, (totals, parts).
    """
    everything = 0
    for size in sizes:
        everything += size
    for number in range(len(totals)):
        excess = -totals[number]
        for part in range(len(sizes)):
            share = np.float64(totals[number]) / np.float64(max(everything, 1)) * np.float64(sizes[part])
            counts[number, part] = min(sizes[part], np.int64(np.floor(share + 0.5)))
            excess += counts[number, part]
        while excess != 0:
            best = -1
            for part in range(len(sizes)):
                count = counts[number, part]
                if (excess > 0 and count == 0) or (excess < 0 and count == sizes[part]):
                    continue
                if best < 0:
                    best = part
                    continue
                # the last entry of each that is counted, or the first that is not: which of them stands further on?
                last = 1 if excess > 0 else -1
                here, there = (2 * count - last) * sizes[best], (2 * counts[number, best] - last) * sizes[part]
                if (excess > 0 and here >= there) or (excess < 0 and here < there):
                    best = part
            counts[number, best] -= 1 if excess > 0 else -1
            excess -= 1 if excess > 0 else -1


@compiled
def deal(
    places: Array, edges: Array, first: int, streams: int, size: int, rest: int, own: Array, own_rest: Array, out: Array
) -> None:
    """A rank's batches from the places of its streams.

    Args:
        places: stream after stream, which begin at ``edges``; the first of them is number ``first`` of ``streams``.
        size: of a full global batch; ``rest`` that of the short one behind.
        own: the places in a global batch that are the rank's, from and up to; ``own_rest`` those in the short one.
        out: the places batch after batch.
    """
    width = own[1] - own[0]
    full = (len(out) - (own_rest[1] - own_rest[0])) // max(width, 1)
    for number in range(len(edges) - 1):
        stream, at = first + number, edges[number]
        low, high = size * stream // streams, size * (stream + 1) // streams
        for batch in range(full):
            for slot in range(low, high):
                if own[0] <= slot < own[1]:
                    out[batch * width + slot - own[0]] = places[at]
                at += 1
        for slot in range(rest * stream // streams, rest * (stream + 1) // streams):
            if own_rest[0] <= slot < own_rest[1]:
                out[full * width + slot - own_rest[0]] = places[at]
            at += 1


@compiled
def write_ranges(begins: Array, lengths: Array, out: Array) -> None:
    """Ranges of so many numbers, from so many on, one after the other."""
    at = 0
    for number in range(len(begins)):
        for step in range(lengths[number]):
            out[at + step] = begins[number] + step
        at += lengths[number]


@compiled
def invert(sources: Array, targets: Array) -> None:
    """``targets[sources[n]] = n``, and -1 where no source points to."""
    targets[:] = -1
    for number in range(len(sources)):
        if sources[number] >= 0:
            targets[sources[number]] = number


@intrinsic  # type: ignore[untyped-decorator]
def load(_: Any, address: Any, like: Any) -> Any:
    """The number at an address, of the type of those of an array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = context.get_value_type(signature.return_type).as_pointer()
        value = builder.load(builder.inttoptr(arguments[0], pointer))
        value.align = 1
        return value

    return like.dtype(address, like), generate


@compiled
def scatter_columns(columns: Array, start: int, targets: Array, rows: Array) -> None:
    """Columns from item ``start`` on become rows (m, F), item n in row ``targets[n]``, nowhere if that is < 0.

    Transposing and permuting are one pass: all columns are read in order, and each row is written at once.

    Args:
        columns: addresses (F) of columns of the rows' type (uint64): they lie in files, or wherever they were decoded.
    """
    size = np.uint64(rows.itemsize)
    for number in range(len(targets)):
        target = targets[number]
        if target >= 0:
            at = np.uint64(start + number) * size
            for column in range(len(columns)):
                rows[target, column] = load(columns[column] + at, rows)


@compiled
def scatter_rows(source: Array, start: int, targets: Array, rows: Array) -> None:
    """Rows (n, F) from ``start`` on, entry n to row ``targets[n]`` of (m, F), nowhere if that is < 0."""
    for number in range(len(targets)):
        target = targets[number]
        if target >= 0:
            rows[target] = source[start + number]


@compiled
def scatter_counts(offsets: Array, start: int, targets: Array, counts: Array) -> None:
    """The lengths of lists from number ``start`` on, that of list n to ``counts[targets[n]]``."""
    for number in range(len(targets)):
        target = targets[number]
        if target >= 0:
            counts[target] = offsets[start + number + 1] - offsets[start + number]


@compiled
def scatter_lists(columns: Array, offsets: Array, start: int, targets: Array, ends: Array, rows: Array) -> None:
    """Items of lists become rows (m, F); list n goes to where list ``targets[n]`` begins in ``ends``.

    Args:
        columns: as `scatter_columns` takes them.
        start: number of the first list.
    """
    size = np.uint64(rows.itemsize)
    for number in range(len(targets)):
        target = targets[number]
        if target >= 0:
            first = offsets[start + number]
            shift = ends[target] - first
            for item in range(first, offsets[start + number + 1]):
                at = np.uint64(item) * size
                for column in range(len(columns)):
                    rows[shift + item, column] = load(columns[column] + at, rows)


@compiled
def copy_lists(items: Array, offsets: Array, start: int, targets: Array, ends: Array, rows: Array) -> None:
    """Items of lists from number ``start`` on, list n to where list ``targets[n]`` begins in ``ends``."""
    for number in range(len(targets)):
        target = targets[number]
        if target >= 0:
            first, last = offsets[start + number], offsets[start + number + 1]
            rows[ends[target] : ends[target] + last - first] = items[first:last]


@compiled
def take_rows(source: Array, rows: Array, out: Array) -> None:
    """``out[n] = source[rows[n]]`` for rows (n, F); zeros where the row is < 0."""
    for number in range(len(rows)):
        if rows[number] >= 0:
            out[number] = source[rows[number]]
        else:
            out[number] = 0


@compiled
def take_lists(items: Array, offsets: Array, rows: Array, ends: Array, out: Array) -> None:
    """Lists of items (n, F), one after the other, where ``ends`` says; nothing where the row is < 0."""
    for number in range(len(rows)):
        row = rows[number]
        if row >= 0:
            out[ends[number] : ends[number + 1]] = items[offsets[row] : offsets[row + 1]]


@compiled
def pad_lists(items: Array, offsets: Array, padded: Array, mask: Array) -> None:
    """Lists of items (n, F) into (B, P, F) with zeros behind, and the mask (B, P) of what is there; cut at P."""
    width = padded.shape[1]
    for row in range(len(offsets) - 1):
        start = offsets[row]
        count = min(offsets[row + 1] - start, width)
        for item in range(count):
            for column in range(padded.shape[2]):
                padded[row, item, column] = items[start + item, column]
            mask[row, item] = True
        padded[row, count:] = 0
        mask[row, count:] = False


@compiled
def sort_lists(items: Array, offsets: Array, column: int, longest: int) -> None:
    """Order those lists of items (n, F) that have more than ``longest`` by falling values of a column, in place.

    Equal values keep their order, and NaN comes last.
    """
    for row in range(len(offsets) - 1):
        start, stop = offsets[row], offsets[row + 1]
        if stop - start > longest:
            keys = -items[start:stop, column]
            order = np.argsort(keys, kind="mergesort")
            items[start:stop] = items[start:stop][order]


@compiled
def permuted(places: Array, size: int, key: np.uint64, out: Array) -> None:
    """Where a pseudo-random permutation of the numbers below ``size`` sends each of ``places``.

    A Feistel network of eight rounds over the smallest power of four that holds them, walked until the number is below
    ``size`` (Black, Rogaway: Ciphers with arbitrary finite domains, 2002).
    """
    half = np.uint64(1)
    while (np.uint64(1) << (half + half)) < np.uint64(size):
        half += np.uint64(1)
    mask = (np.uint64(1) << half) - np.uint64(1)
    for number in range(len(places)):
        value = np.uint64(places[number])
        while True:
            left, right = value >> half, value & mask
            for turn in range(8):
                left, right = right, left ^ (_mixed(np.uint64(key) + right * np.uint64(8) + np.uint64(turn)) & mask)
            value = (left << half) | right
            if value < np.uint64(size):
                break
        out[number] = value
