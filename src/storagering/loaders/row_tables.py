"""The tables by which kernels unpack rows: what the fields of each chunk come to in shifts, masks and sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from storagering.cache.packed import PackedRows
from storagering.cache.rows import MOST_VALUES, Field, unpack_column
from storagering.errors import CorruptDataError, SchemaError
from storagering.loaders import row_kernels as kernels
from storagering.types import Array, Column

_INT32, _INT64 = np.iinfo(np.int32), np.iinfo(np.int64)


class RowTables:
    """Tables with a line for each chunk, filled when it is opened; zeros of the others take no memory.

    Attributes:
        columns: how many numbers a row becomes.
        narrow: whether they have 32 bits, which is what kernels do best.
        places, fields, lookups, values, casts, wide: see `storagering.loaders.row_kernels.unpack_narrow`.
    """

    def __init__(self, chunks: int, columns: Sequence[Column], dtype: np.dtype[np.generic]) -> None:
        self._names = [column.name for column in columns]
        self._stored = [np.dtype(column.parts[0].dtype) for column in columns]
        self._dtype, self.columns = dtype, len(columns)
        self.narrow = dtype.itemsize == 4
        has_wide = not self.narrow or any(stored.itemsize == 8 for stored in self._stored)
        self.places = np.zeros((chunks, 7), np.int64)
        blocks = -(-self.columns // kernels.LANES) if self.narrow else 0
        self.fields = np.zeros((chunks, blocks, kernels.NARROW_LINES, kernels.LANES), np.uint32)
        self.lookups = np.zeros((chunks, 1 + self.columns), np.uint32)
        self.casts = np.zeros((chunks, 1 + 2 * self.columns), np.uint32)
        self.values = np.zeros((chunks, self.columns, MOST_VALUES), f"<u{dtype.itemsize}")
        self.wide = np.zeros((chunks, kernels.WIDE_LINES, self.columns if has_wide else 0), np.uint64)

    def enter(self, chunk: int, packed: PackedRows) -> None:
        """Fill the line of a chunk.

        Raises:
            CorruptDataError: a column is not what the schema says.
            SchemaError: a column has values above 2^63.
        """
        row_bytes = 4 * packed.words.shape[1]
        first, last = row_bytes, 0
        for number, (name, stored) in enumerate(zip(self._names, self._stored, strict=True)):
            field = packed.fields.get(name)
            if field is None or np.dtype(field.dtype) != stored:
                raise CorruptDataError(f"column {name!r} is not packed as {stored} in a chunk")
            if stored == np.uint64:
                _check_range(name, field, packed)
            self._enter_field(chunk, number, field, row_bytes)
            first, last = min(first, field.bit // 8), max(last, (field.bit + field.bits - 1) // 8)
        place = packed.words.ctypes.data, row_bytes, len(packed.words), packed.block_shift, packed.checked.ctypes.data
        self.places[chunk] = *place, min(first, last), max(last, 0)

    def _enter_field(self, chunk: int, number: int, field: Field, row_bytes: int) -> None:
        stored, way = self._stored[number], None
        if field.kind == "dictionary":
            values = np.array(field.values, f"<u{stored.itemsize}").view(stored)
            bits = _converted(values, self._dtype).view(self.values.dtype)
            self.values[chunk, number, : len(bits)] = bits
            self.lookups[chunk, 0] += 1
            self.lookups[chunk, self.lookups[chunk, 0]] = number
        elif self._dtype == np.float32 and stored != np.float32:
            way = _way_to_float(field, stored)
            self.casts[chunk, 0] += 1
            at = 2 * int(self.casts[chunk, 0])
            self.casts[chunk, at - 1 : at + 1] = number, way
        if not self.narrow or way in (kernels.FROM_DOUBLE, kernels.FROM_INT64, kernels.FROM_UINT64):
            self.wide[chunk, :, number] = _line(field, stored, row_bytes, np.uint64)
        else:
            block, lane = divmod(number, kernels.LANES)
            line = _line(field, stored, row_bytes, np.uint32)
            self.fields[chunk, block, :, lane] = line[: kernels.NARROW_LINES]


def _line(field: Field, stored: np.dtype[Any], row_bytes: int, dtype: type[np.unsignedinteger[Any]]) -> Array:
    """What a kernel needs of a field, in the order of its constants."""
    offset = max(0, min(field.bit // 8, row_bytes - 8)) if field.bits else 0  # no byte of the next row: a cache line
    right = field.bit - 8 * offset if field.bits else 0
    base = field.base
    if stored.kind == "i" and field.kind == "integer":
        base = int(np.array(base, f"<u{stored.itemsize}").view(stored))
    add = base - (field.zero << field.shift)
    mask = (1 << (field.bits - field.signed)) - 1
    sign_left = 8 * stored.itemsize - 1
    line = (offset, right, field.signed, mask, field.shift, add, 0 if field.zero else base, sign_left)
    return np.array([part & np.iinfo(dtype).max for part in line], dtype)


def _way_to_float(field: Field, stored: np.dtype[Any]) -> int:
    """How its numbers become float32."""
    if stored.kind == "f":
        return kernels.FROM_HALF if stored.itemsize == 2 else kernels.FROM_DOUBLE
    if stored.itemsize < 8:
        return kernels.FROM_INT32 if stored.kind == "i" else kernels.FROM_UINT32
    low = int(np.array(field.base, np.uint64).view(stored))
    if _INT32.min <= low and low + (((1 << field.bits) - 1) << field.shift) <= _INT32.max:
        return kernels.FROM_INT32
    return kernels.FROM_INT64 if stored.kind == "i" else kernels.FROM_UINT64


def _converted(values: Array, dtype: np.dtype[np.generic]) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(dtype) if values.dtype != dtype else values


def _check_range(name: str, field: Field, packed: PackedRows) -> None:
    """Unsigned integers have to be held by signed ones, as frameworks have no others."""
    highest = max(field.values, default=field.base + (((1 << field.bits) - 1) << field.shift))
    if highest > _INT64.max and field.kind == "integer":
        packed.check_range(0, len(packed.words), f"column {name!r}")
        highest = int(unpack_column(packed.words, field).max())
    if highest > _INT64.max:
        raise SchemaError(f"column {name!r} has values above 2^63, which no tensor of integers holds")
