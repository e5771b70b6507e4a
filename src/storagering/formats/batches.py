"""Cutting, joining and permuting batches, on their arrays alone wherever these are numbers and lists of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa

from storagering.formats.forms import to_awkward, to_batch
from storagering.formats.sparse import dense_bytes
from storagering.types import Array, Batch, Column, Schema

#: Kinds whose parts are offsets one below the other, and values (of sparse columns, places and values).
_LISTS = ("jagged", "doubly-jagged", "string")


def cut_batch(batch: Batch, start: int, stop: int) -> Batch:
    """Entries ``start`` to ``stop``; values are views, and columns that share their offsets still do."""
    if (start, stop) == (0, batch.num_entries):
        return batch
    rebase = _shared(lambda offsets, low, high: offsets[low : high + 1] - offsets[low])
    arrays = {}
    for column in batch.schema.columns:
        parts = batch.arrays[column.name]
        if _is_plain(column):
            low, high, cut = start, stop, []
            depth = _depth(column)
            for offsets in parts[:depth]:
                cut.append(rebase(offsets, low, high))
                low, high = int(offsets[low]), int(offsets[high])
            arrays[column.name] = (*cut, *(part[low:high] for part in parts[depth:]))
        else:
            arrays[column.name] = _through_awkward(column, [batch], lambda found: found[0][start:stop])
    return Batch(batch.schema, stop - start, arrays)


def join_batches(schema: Schema, batches: Sequence[Batch]) -> Batch:
    """All entries of several batches of that schema; columns that share their offsets still do."""
    if len(batches) == 1:
        return batches[0]
    join = _shared(_join_offsets)
    arrays = {}
    for column in schema.columns:
        parts = [batch.arrays[column.name] for batch in batches]
        if _is_plain(column):
            pieces = list(zip(*parts, strict=True))
            depth = _depth(column)
            arrays[column.name] = (*(join(*p) for p in pieces[:depth]), *(np.concatenate(p) for p in pieces[depth:]))
        else:
            arrays[column.name] = _through_awkward(column, batches, ak.concatenate)
    return Batch(schema, sum(b.num_entries for b in batches), arrays)


def take_batch(batch: Batch, rows: Array) -> Batch:
    """The entries of those numbers, in their order, copied; columns that share their offsets still do.

    Args:
        rows: int64, each from 0 to the number of entries; may repeat.
    """
    compose = _shared(lambda inner, outer: inner[outer])
    take = _shared(_take_counts)
    arrays = {}
    for column in batch.schema.columns:
        parts = batch.arrays[column.name]
        if not _is_plain(column):
            arrays[column.name] = _through_awkward(column, [batch], lambda found: found[0][rows])
        elif len(parts) == 1:
            arrays[column.name] = (np.take(parts[0], rows, axis=0),)
        else:
            depth = _depth(column)
            taken, bounds = [take(parts[0], None, rows)], parts[0]
            for offsets in parts[1:depth]:
                taken.append(take(offsets, bounds, rows))
                bounds = compose(offsets, bounds)  # what is in an entry lies together, however deep the lists
            arrays[column.name] = (*taken, *(_take_ranges(part, bounds, rows) for part in parts[depth:]))
    return Batch(batch.schema, len(rows), arrays)


def size_of(batch: Batch) -> int:
    """Bytes of all arrays, as they are in memory."""
    return sum(a.nbytes for arrays in batch.arrays.values() for a in arrays)


def raw_size_of(batch: Batch) -> int:
    """Bytes of all arrays, with sparse columns as the dense ones that they stand for (if that is more)."""
    return sum(_raw_size(c, batch.arrays[c.name]) for c in batch.schema.columns) if batch.num_entries else 0


def _raw_size(column: Column, arrays: tuple[Array, ...]) -> int:
    size = sum(a.nbytes for a in arrays)
    return max(size, dense_bytes(column, len(arrays[0]) - 1)) if column.kind == "sparse" else size


def _is_plain(column: Column) -> bool:
    return column.is_numeric or column.kind in _LISTS


def _depth(column: Column) -> int:
    """How many of the parts are offsets; they come first."""
    return sum(part.role == "counts" for part in column.parts)


def _join_offsets(*offsets: Array) -> Array:
    joined = np.zeros(1 + sum(len(o) - 1 for o in offsets), np.int64)
    at = 0
    for own in offsets:
        np.add(own, joined[at], out=joined[at : at + len(own)])
        at += len(own) - 1
    return joined


def _take_counts(offsets: Array, bounds: Array | None, rows: Array) -> Array:
    """The offsets of the lists of some entries; ``bounds`` tell which lists an entry has, None for one each."""
    counts = np.diff(offsets)
    counts = counts[rows] if bounds is None else _take_ranges(counts, bounds, rows)
    taken = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=taken[1:])
    return taken


def _take_ranges(values: Array, bounds: Array, rows: Array) -> Array:
    """Elements ``bounds[row]`` to ``bounds[row + 1]`` of every row, one after the other.

    To Arrow they are strings of bytes, which it copies one by one: an index of every element would take more room
    than the elements.
    """
    size = values.dtype.itemsize * int(np.prod(values.shape[1:]))
    data, places = np.ascontiguousarray(values).reshape(-1).view(np.uint8), np.ascontiguousarray(bounds * size)
    ranges = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(places), pa.py_buffer(data)]
    )
    _, _, found = ranges.take(pa.array(rows)).buffers()
    total = int((bounds[rows + 1] - bounds[rows]).sum()) * size
    flat = np.frombuffer(found, np.uint8, total) if total else np.zeros(0, np.uint8)
    return flat.view(values.dtype).reshape(-1, *values.shape[1:])


def _through_awkward(column: Column, batches: Sequence[Batch], change: Callable[[list[Any]], Any]) -> tuple[Array, ...]:
    schema = Schema((column,))
    found = [to_awkward(Batch(schema, b.num_entries, {column.name: b.arrays[column.name]})) for b in batches]
    changed = change([array[column.name] for array in found])
    return to_batch(schema, {column.name: changed}, len(changed)).arrays[column.name]


def _shared(make: Callable[..., Array]) -> Callable[..., Array]:
    """The function, giving the same array again for the same arrays and numbers."""
    known: dict[tuple[int, ...], Array] = {}

    def once(*arguments: Any) -> Array:
        key = tuple(a if isinstance(a, int) else id(a) for a in arguments)
        if key not in known:
            known[key] = make(*arguments)
        return known[key]

    return once
