"""Compiled kernels over packed rows (see `storagering.cache.rows`): looking whether they may be read, and unpacking.

Words are read by address, because the rows of one batch lie in the mapped files of many chunks. What is read so was
found to be within its file by `scan_rows` and when the file was opened. The GIL is not held.

The tables are made by `storagering.loaders.row_tables` and have one line for each chunk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from storagering.compiling import compiled
from storagering.types import Array

#: Of a chunk: where its words are, bytes of a row, rows, rows of a block as a power of two, where it says which blocks
#: are checked, and the bytes of a row that are wanted, from and up to.
ADDRESS, ROW_BYTES, ENTRIES, BLOCK_SHIFT, CHECKED, FROM, UPTO = range(7)
CLOSED, OPEN, SOUND = range(3)
#: What `scan_rows` finds.
READY, NOT_READY, OUT_OF_RANGE = range(3)
#: Of a field: the byte of the row from which 64 bits are read, how far they go right to begin with the field, 1 if its
#: first bit is a sign, the mask of the magnitude behind that, how far it goes left, what is added to it, what stands
#: for a magnitude of 0; and how far a sign goes left (31 in tables of 32 bits).
OFFSET, RIGHT, SIGNED, MASK, LEFT, ADD, FIRST, SIGN_LEFT = range(8)
NARROW_LINES, WIDE_LINES = 7, 8
#: Columns that are unpacked at once; tables of 32 bits have so many side by side.
LANES = 8
#: How what has another type becomes float32; the last three ways begin with a table of 64 bits.
FROM_INT32, FROM_UINT32, FROM_HALF, FROM_DOUBLE, FROM_INT64, FROM_UINT64 = range(6)

#: Rows that the memory is asked for at once: it gives them in little more time than one (asked for one by one, some
#: rows ahead, they took half as long again).
_TOGETHER = 16
_LINE_BYTES = 64


def _make_load(bits: int) -> Any:
    """A function that reads an unsigned integer of that many bits at an address."""

    @intrinsic  # type: ignore[untyped-decorator]
    def load(_: Any, address: Any) -> Any:
        integer = ir.IntType(bits)

        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            value = builder.load(builder.inttoptr(arguments[0], integer.as_pointer()))
            value.align = 1
            return value

        return types.Integer.from_bitwidth(bits, signed=False)(address), generate

    return load


_load8, _load64 = _make_load(8), _make_load(64)


def _make_cast(source: Any, target: Any, llvm: Any) -> Any:
    """A function that gives the same bits another type."""

    @intrinsic  # type: ignore[untyped-decorator]
    def cast(_: Any, number: Any) -> Any:  # noqa: ARG001
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], llvm)

        return target(source), generate

    return cast


_bits_of = _make_cast(types.float32, types.uint32, ir.IntType(32))
_double_of = _make_cast(types.uint64, types.float64, ir.DoubleType())


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(_: Any, address: Any) -> Any:
    """Ask the memory for what is at an address."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(function, [builder.inttoptr(arguments[0], byte), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(address), generate


@intrinsic  # type: ignore[untyped-decorator]
def _finish(_: Any, source: Any, table: Any, target: Any) -> Any:
    """Make values of fields, LANES at once: (addresses) words that begin with them, a table's lines, values.

    Vector instructions of whatever the processor has: compilers do not find them here, fearing that arrays overlap.
    """
    lanes = ir.VectorType(ir.IntType(32), LANES)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source_address, table_address, target_address = arguments

        def at(address: Any, line: int) -> Any:
            return builder.inttoptr(builder.add(address, ir.IntType(64)(4 * LANES * line)), lanes.as_pointer())

        def load(address: Any, line: int) -> Any:
            return builder.load(at(address, line), align=4)

        word, signed = load(source_address, 0), load(table_address, SIGNED)
        magnitude = builder.and_(builder.lshr(word, signed), load(table_address, MASK))
        bits = builder.add(builder.shl(magnitude, load(table_address, LEFT)), load(table_address, ADD))
        is_zero = builder.icmp_unsigned("==", magnitude, ir.Constant(lanes, [0] * LANES))
        bits = builder.select(is_zero, load(table_address, FIRST), bits)
        sign = builder.shl(builder.and_(word, signed), ir.Constant(lanes, [31] * LANES))
        builder.store(builder.or_(bits, sign), at(target_address, 0), align=4)
        return context.get_dummy_value()

    return types.void(source, table, target), generate


@compiled
def scan_rows(places: Array, states: Array, chunk: Array, row: Array) -> int:
    """Whether all rows may be read, or some are in chunks that are not open or blocks that are not checked.

    Args:
        states: (chunks,) uint8, written before this is called and not after.
    """
    found = READY
    for i in range(len(chunk)):
        number, at = chunk[i], row[i]
        if number < 0 or number >= len(states):
            return OUT_OF_RANGE
        state = states[number]
        if state == CLOSED:
            found = NOT_READY
        elif at < 0 or at >= places[number, ENTRIES]:
            return OUT_OF_RANGE
        elif state == OPEN and _load8(places[number, CHECKED] + (at >> places[number, BLOCK_SHIFT])) == 0:
            found = NOT_READY
    return found


@compiled
def _unpack_wide(at: int, wide: Array, number: Any, k: int) -> Any:
    """The bits of a value of up to 64 bits: of column k, in the chunk of that number."""
    right, signed = wide[number, RIGHT, k], wide[number, SIGNED, k]
    word = _load64(at + np.int64(wide[number, OFFSET, k])) >> right
    if right > 0:
        word |= np.uint64(_load8(at + np.int64(wide[number, OFFSET, k]) + 8)) << (np.uint64(64) - right)
    magnitude = (word >> signed) & wide[number, MASK, k]
    bits = (magnitude << wide[number, LEFT, k]) + wide[number, ADD, k]
    if magnitude == 0:
        bits = wide[number, FIRST, k]
    return bits | ((word & signed) << wide[number, SIGN_LEFT, k])


@compiled
def _half_to_float(bits: int) -> Any:
    """Float32 of the magnitude of a float16 in the lowest bits and the sign in the highest."""
    magnitude, sign = np.uint32(bits & np.uint32(0x7FFF)), np.uint32(bits & np.uint32(0x80000000))
    if magnitude < 0x400:  # subnormal, or zero
        return sign | _bits_of(np.float32(magnitude) * np.float32(2.0**-24))
    exponent = 255 - 31 if magnitude >= 0x7C00 else 127 - 15
    return sign | np.uint32((magnitude << 13) + (exponent << 23))


@compiled
def _to_float(bits: int, kind: int, at: int, wide: Array, number: Any, k: int) -> Any:
    """Float32 of a number of another type, which is unpacked already if it has no more than 32 bits."""
    if kind == FROM_INT32:
        return _bits_of(np.float32(np.int32(bits)))
    if kind == FROM_UINT32:
        return _bits_of(np.float32(bits))
    if kind == FROM_HALF:
        return _half_to_float(bits)
    long = _unpack_wide(at, wide, number, k)
    if kind == FROM_DOUBLE:
        return _bits_of(np.float32(_double_of(long)))
    if kind == FROM_INT64:
        return _bits_of(np.float32(np.int64(long)))
    return _bits_of(np.float32(long))


@compiled
def _prefetch_row(places: Array, chunk: Array, row: Array, i: int) -> None:
    """Ask the memory for what is wanted of a row."""
    number = chunk[i]
    begin = places[number, ADDRESS] + row[i] * places[number, ROW_BYTES]
    for line in range(begin + places[number, FROM], begin + places[number, UPTO], _LINE_BYTES):
        _prefetch(line)
    _prefetch(begin + places[number, UPTO])


@compiled
def unpack_narrow(
    places: Array,
    fields: Array,
    lookups: Array,
    values: Array,
    casts: Array,
    wide: Array,
    chunk: Array,
    row: Array,
    out: Array,
) -> None:
    """Rows of any chunks, as bits of 32-bit numbers.

    Args:
        places: (chunks, 7) int64.
        fields: (chunks, blocks, 7, LANES) uint32.
        lookups: (chunks, 1 + F) uint32: how many columns are dictionaries, and their numbers.
        values: (chunks, F, 16) uint32, of dictionaries.
        casts: (chunks, 1 + 2F) uint32: how many columns have another type, and for each its number and the way.
        wide: (chunks, 8, F) uint64, F = 0 if nothing is read of it.
        chunk, row: (B,), of each row of ``out``.
        out: (B, F) uint32, contiguous.
    """
    rows, columns = out.shape
    blocks, last = fields.shape[1], np.empty(fields.shape[1] * LANES, np.uint32)
    words = np.empty_like(last)
    tables, word_address = np.int64(fields.ctypes.data), np.int64(words.ctypes.data)
    for i in range(rows):
        if i % _TOGETHER == 0:
            for ahead in range(i, min(i + _TOGETHER, rows)):
                _prefetch_row(places, chunk, row, ahead)
        number = np.uint64(chunk[i])
        at = places[number, ADDRESS] + row[i] * places[number, ROW_BYTES]
        for block in range(blocks):
            for k in range(LANES):
                word = _load64(at + np.int64(fields[number, block, OFFSET, k]))
                words[block * LANES + k] = word >> np.uint64(fields[number, block, RIGHT, k])
        # Lanes behind the last column reach into the rows that are made next; behind the last rows is no room for them.
        fits = columns * i + len(words) <= rows * columns
        target = np.int64(out.ctypes.data) + 4 * columns * i if fits else np.int64(last.ctypes.data)
        for block in range(blocks):
            table = tables + 4 * NARROW_LINES * LANES * (blocks * np.int64(number) + block)
            _finish(word_address + 4 * LANES * block, table, target + 4 * LANES * block)
        if not fits:
            for k in range(columns):
                out[i, k] = last[k]
        for m in range(lookups[number, 0]):
            column = lookups[number, 1 + m]
            out[i, column] = values[number, column, out[i, column] & np.uint32(15)]
        for m in range(1, 1 + 2 * casts[number, 0], 2):
            column = casts[number, m]
            out[i, column] = _to_float(out[i, column], casts[number, m + 1], at, wide, number, column)


@compiled
def unpack_wide(
    places: Array, lookups: Array, values: Array, wide: Array, chunk: Array, row: Array, out: Array
) -> None:
    """Rows of any chunks as for `unpack_narrow`, as bits of numbers of any size (``out`` and ``values``: unsigned)."""
    rows, columns = out.shape
    for i in range(rows):
        number = np.uint64(chunk[i])
        at = places[number, ADDRESS] + row[i] * places[number, ROW_BYTES]
        for k in range(columns):
            out[i, k] = _unpack_wide(at, wide, number, k)
        for m in range(lookups[number, 0]):
            column = lookups[number, 1 + m]
            out[i, column] = values[number, column, np.uint64(out[i, column]) & np.uint64(15)]
