"""Sparse columns: of arrays of fixed shape, only what is not zero and where it stands. Asked for, never guessed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from storagering.errors import SpecError, nearest_names
from storagering.types import Array, Batch, Column, Part, Schema


def with_sparse(schema: Schema, patterns: Sequence[str]) -> Schema:
    """The schema with those of its columns of fixed shape made sparse that match a pattern.

    Raises:
        SpecError: a pattern matches no column of fixed shape, or one with more than 2^32 places.
    """
    fixed = [column.name for column in schema.columns if column.kind == "fixed-shape"]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in fixed):
            raise SpecError(f"sparse {pattern!r} matches no column of fixed shape{nearest_names(pattern, fixed)}")
    chosen = {name for name in fixed if any(fnmatchcase(name, p) for p in patterns)}
    return Schema(tuple(_sparse_column(c) if c.name in chosen else c for c in schema.columns))


def _sparse_column(column: Column) -> Column:
    (dense,) = column.parts
    places = math.prod(dense.shape)
    if places > 1 << 32:
        raise SpecError(f"column {column.name!r} has {places:,} places an entry; a sparse column has 2^32 at most")
    node = dense.key.rpartition("-")[0]
    parts = (
        Part("counts", "counts", "<i8", (), f"{node}-offsets"),
        Part("places", "places", "<u2" if places <= 1 << 16 else "<u4", (), f"{node}-places"),
        Part("values", "data", dense.dtype, (), dense.key),
    )
    return replace(column, kind="sparse", parts=parts)


def dense_schema(schema: Schema) -> Schema:
    """The schema of the same columns when they are not sparse."""
    return Schema(tuple(_dense_column(c) if c.kind == "sparse" else c for c in schema.columns))


def _dense_column(column: Column) -> Column:
    values = column.parts[-1]
    return replace(column, kind="fixed-shape", parts=(Part("", "data", values.dtype, column.shape, values.key),))


def sparse_batch(schema: Schema, batch: Batch) -> Batch:
    """A batch of `dense_schema` as one of the schema itself."""
    arrays = dict(batch.arrays)
    for column in schema.columns:
        if column.kind == "sparse":
            arrays[column.name] = take_out(column, arrays[column.name][0])
    return Batch(schema, batch.num_entries, arrays)


def take_out(column: Column, dense: Array) -> tuple[Array, ...]:
    """The parts of a sparse column: offsets (entries + 1), rising places, and values.

    Only elements whose bits are all zero are left out, so that -0.0, NaN and subnormal numbers stay.

    Args:
        dense: (entries, *shape), or the same numbers in one dimension.
    """
    places = math.prod(column.shape)
    numbers = np.ascontiguousarray(dense).reshape(-1)
    found = np.flatnonzero(_has_bits(numbers))
    starts = np.arange(len(numbers) // places + 1) * places
    offsets = np.searchsorted(found, starts).astype(np.int64)
    values = numbers[found]
    found -= np.repeat(starts[:-1], np.diff(offsets))
    return offsets, found.astype(column.parts[1].dtype), values


def put_back(column: Column, arrays: Sequence[Array]) -> Array:
    """The dense array of a sparse column's parts (see `Batch.check`): (entries, *shape)."""
    offsets, places, values = arrays
    entries = len(offsets) - 1
    dense = np.zeros((entries, math.prod(column.shape)), values.dtype)
    dense[np.repeat(np.arange(entries), np.diff(offsets)), places] = values
    return dense.reshape(entries, *column.shape)


def dense_bytes(column: Column, entries: int) -> int:
    """Size of so many entries of a sparse column when they are dense."""
    return entries * math.prod(column.shape) * np.dtype(column.parts[-1].dtype).itemsize


def _has_bits(numbers: Array) -> Array:
    if numbers.dtype.itemsize == 16:  # complex
        halves = numbers.view("<u8").reshape(-1, 2)
        return (halves[:, 0] | halves[:, 1]) != 0  # type: ignore[no-any-return]
    return numbers.view(f"<u{numbers.dtype.itemsize}") != 0  # type: ignore[no-any-return]
