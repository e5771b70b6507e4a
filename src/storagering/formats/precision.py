"""Fewer mantissa bits, on demand: what is dropped becomes zeros, which compress to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from storagering.errors import SpecError, nearest_names
from storagering.types import Array, Batch, Column, Part, Schema

#: Explicit mantissa bits, and the unsigned integer of the same size.
_FLOATS: dict[np.dtype[Any], tuple[int, np.dtype[Any]]] = {
    np.dtype("<f2"): (10, np.dtype("<u2")),
    np.dtype("<f4"): (23, np.dtype("<u4")),
    np.dtype("<f8"): (52, np.dtype("<u8")),
}
#: Numbers rounded at a time, so that the steps run in the processor's cache.
_BLOCK = 1 << 15


def with_precision(schema: Schema, precision: Sequence[tuple[str, int]]) -> Schema:
    """The schema with the bits to keep entered into its float columns; the first pattern that matches counts.

    A column whose floats have no more bits than that stays exact.

    Raises:
        SpecError: fewer than one bit, or a pattern that matches no column of floats.
    """
    floats = [column.name for column in schema.columns if any(_is_float(part) for part in column.parts)]
    for pattern, bits in precision:
        if not 1 <= bits <= 52:
            raise SpecError(f"precision {pattern}={bits}: 1 to 52 mantissa bits can be kept (float32 has 23)")
        if not any(fnmatchcase(name, pattern) for name in floats):
            raise SpecError(f"precision {pattern!r} matches no column of floats{nearest_names(pattern, floats)}")
    return Schema(tuple(_with_bits(column, precision) for column in schema.columns))


def _with_bits(column: Column, precision: Sequence[tuple[str, int]]) -> Column:
    bits = next((bits for pattern, bits in precision if fnmatchcase(column.name, pattern)), None)
    if bits is None or not any(_is_float(p) and _FLOATS[np.dtype(p.dtype)][0] > bits for p in column.parts):
        return column
    return replace(column, mantissa_bits=bits)


def _is_float(part: Part) -> bool:
    return part.role == "data" and np.dtype(part.dtype) in _FLOATS


def round_batch(batch: Batch) -> Batch:
    """The batch with the floats of columns that have `Column.mantissa_bits` rounded to these."""
    arrays = dict(batch.arrays)
    for column in batch.schema.columns:
        bits = column.mantissa_bits
        if bits is not None:
            pairs = zip(column.parts, arrays[column.name], strict=True)
            arrays[column.name] = tuple(round_mantissa(a, bits) if _is_float(p) else a for p, a in pairs)
    return Batch(batch.schema, batch.num_entries, arrays)


def round_mantissa(array: Array, bits: int) -> Array:
    """The floats (of 16, 32 or 64 bits) rounded to that many explicit mantissa bits, half to even.

    Rounded numbers are off by at most 2^-(bits + 1) of themselves, or of the smallest normal number where
    they are smaller than that. NaN (with its payload), infinities, zeros, and finite numbers that would be
    rounded up to infinity stay as they are.
    """
    mantissa, unsigned = _FLOATS[array.dtype]
    if bits >= mantissa:
        return array
    source = np.ascontiguousarray(array).reshape(-1).view(unsigned)
    target = np.empty_like(source)
    for start in range(0, len(source), _BLOCK):
        _round_block(source[start : start + _BLOCK], target[start : start + _BLOCK], mantissa, bits)
    return target.view(array.dtype).reshape(array.shape)


def _round_block(source: Array, target: Array, mantissa: int, bits: int) -> None:
    number = source.dtype.type
    drop = mantissa - bits
    every = (1 << (8 * source.itemsize)) - 1
    exponent = number((every >> 1) & ~((1 << mantissa) - 1))
    np.right_shift(source, number(drop), out=target)
    target &= number(1)
    target += number((1 << (drop - 1)) - 1)
    target += source
    target &= number(every & ~((1 << drop) - 1))
    special = (source & exponent) == exponent
    special |= (target & exponent) == exponent
    if special.any():
        np.copyto(target, source, where=special)
