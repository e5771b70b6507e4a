"""Rows: the flat columns of each entry packed into as many 32-bit words as they need, so that any entry is read alone.

A row is the bits of its columns one after the other, the lowest bit of the first word first. What the bits of a column
mean is one `Field`, chosen for each chunk by what is in it; every bit pattern comes back. With c the number that the
``bits`` from ``bit`` on make, all arithmetic in unsigned integers of the size of ``dtype``, the bits of the value are

    dictionary: values[c]
    others:     base + (m << shift), but with ``zero``: 0 where m is 0, base + ((m - 1) << shift) elsewhere

where m is c; or if it is ``signed`` c >> 1, and the lowest bit of c becomes the highest of the value. So a float loses
the mantissa bits that are zero in all rows, and its magnitude counts from the smallest one; an integer counts from the
smallest one in steps of a power of two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from storagering.types import Array, Column

FieldKind = Literal["float", "integer", "dictionary"]

#: So many distinct values become an index at most.
MOST_VALUES = 16
#: Numbers looked at before a whole column is searched for distinct values.
_SAMPLE = 1024
#: Rows that are unpacked at a time, so that the steps run in the processor's cache.
_BLOCK = 1 << 14


@dataclass(frozen=True, slots=True)
class Field:
    """Where in a row a column is, and what its bits mean.

    Attributes:
        dtype: of the column, little-endian (``<f4``).
        bit, bits: the first bit in the row, and how many; none if all rows have the same value.
        base, shift, signed, zero, values: see above; ``base`` and ``values`` are bit patterns.
    """

    dtype: str
    kind: FieldKind
    bit: int
    bits: int
    base: int = 0
    shift: int = 0
    signed: bool = False
    zero: bool = False
    values: tuple[int, ...] = ()

    def is_sound(self, words: int) -> bool:
        """Whether it lies in a row of that many words, and every shift and index in it is possible."""
        size = 8 * np.dtype(self.dtype).itemsize
        if self.kind == "dictionary":
            return 1 <= len(self.values) <= MOST_VALUES and 1 << self.bits <= MOST_VALUES and self._fits(words, size)
        return self._fits(words, size) and not self.values

    def _fits(self, words: int, size: int) -> bool:
        return self.signed <= self.bits <= size and self.bit + self.bits <= 32 * words and self.shift < size


def is_packed(column: Column) -> bool:
    """Whether a column goes into the rows: one number or bool an entry."""
    if column.kind != "flat" or [part.name for part in column.parts] != [""]:
        return False
    dtype = np.dtype(column.parts[0].dtype)
    return dtype.kind in "biuf" and dtype.itemsize <= 8


def pack_rows(columns: Mapping[str, Array]) -> tuple[Array, dict[str, Field]]:
    """The rows of some columns of equal length.

    Args:
        columns: per name one number (bool, integer of 8 to 64 bits, float of 16 to 64) an entry.

    Returns:
        The words (entries, words of a row; uint32), and what is where in a row.
    """
    fields: dict[str, Field] = {}
    at, entries = 0, 0
    for name, array in columns.items():
        fields[name] = replace(_choose(_patterns(array), array.dtype), bit=at)
        at, entries = at + fields[name].bits, len(array)
    by_word = np.zeros((-(-at // 32), entries), np.uint32)
    for name, field in fields.items():
        if field.bits:
            _add_bits(by_word, field, _encode(field, _patterns(columns[name])))
    return np.ascontiguousarray(by_word.T), fields


def unpack_column(words: Array, field: Field, out: Array | None = None) -> Array:
    """A column of all rows: (entries,) of its dtype.

    Args:
        words: (entries, words of a row), uint32.
        out: contiguous array to unpack into, of the column's dtype and length.
    """
    if out is None:
        out = np.empty(len(words), field.dtype)
    patterns = _patterns(out)
    for start in range(0, len(words), _BLOCK):
        block = slice(start, start + _BLOCK)
        patterns[block] = _decode(field, _take_bits(words[block], field), patterns.dtype)
    return out


def describe_field(column: Column, field: Field) -> dict[str, Any]:
    """The field for the attributes of the array of words, with the column's unit and title."""
    keys = ("dtype", "kind", "bit", "bits", "base", "shift", "signed", "zero")
    described = {"name": column.name} | {key: getattr(field, key) for key in keys}
    more = {"values": list(field.values), "unit": column.unit, "doc": column.doc}
    return described | {key: value for key, value in more.items() if value}


def _patterns(array: Array) -> Array:
    return array.view(np.dtype(f"<u{array.dtype.itemsize}"))


def _choose(patterns: Array, dtype: np.dtype[Any]) -> Field:
    """The field of fewest bits for those patterns; where it begins is not known yet."""
    if not len(patterns):
        return Field(dtype.str, "integer", 0, 0)
    field = _float_field(patterns, dtype) if dtype.kind == "f" else _integer_field(patterns, dtype)
    values = _distinct(patterns) if field.bits else None
    if values is None or (len(values) - 1).bit_length() >= field.bits:
        return field
    bits = (len(values) - 1).bit_length()
    return Field(dtype.str, "dictionary", 0, bits, values=tuple(int(value) for value in values))


def _float_field(patterns: Array, dtype: np.dtype[Any]) -> Field:
    """Sign and magnitude: the bits of floats of one sign are in the order of the floats."""
    sign = 1 << (8 * dtype.itemsize - 1)
    magnitudes = patterns & patterns.dtype.type(sign - 1)
    low, high = int(magnitudes.min()), int(magnitudes.max())
    signed, zero = int(patterns.max()) >= sign, low == 0
    if high == 0:
        return Field(dtype.str, "float", 0, int(signed), signed=signed)
    if zero:
        low = int(magnitudes.min(initial=high, where=magnitudes != 0))
    shift = _trailing_zeros(int(np.bitwise_or.reduce(magnitudes)))
    bits = (((high - low) >> shift) + zero).bit_length() + signed
    return Field(dtype.str, "float", 0, bits, low, shift, signed, zero)


def _integer_field(patterns: Array, dtype: np.dtype[Any]) -> Field:
    base = patterns[np.argmin(patterns.view(dtype))]
    above = patterns - base
    high = int(above.max())
    shift = _trailing_zeros(int(np.bitwise_or.reduce(above))) if high else 0
    return Field(dtype.str, "integer", 0, (high >> shift).bit_length(), int(base), shift)


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1


def _distinct(patterns: Array) -> Array | None:
    """The distinct patterns in rising order, None if they are too many."""
    for some in (patterns[:_SAMPLE], patterns):
        values = np.unique(some)
        if len(values) > MOST_VALUES:
            return None
    return values


def _encode(field: Field, patterns: Array) -> Array:
    """The numbers that the bits of a field make, in unsigned integers of the column's size."""
    number = patterns.dtype.type
    if field.kind == "dictionary":
        index: Array = np.searchsorted(np.array(field.values, patterns.dtype), patterns)
        return index.astype(patterns.dtype)
    top = 8 * patterns.itemsize - 1
    magnitudes = patterns & number((1 << top) - 1) if field.kind == "float" else patterns
    codes: Array = (magnitudes - number(field.base)) >> number(field.shift)
    if field.zero:
        codes += number(1)
        codes[magnitudes == 0] = 0
    if field.signed:
        codes = (codes << number(1)) | (patterns >> number(top))
    return codes


def _decode(field: Field, codes: Array, dtype: np.dtype[Any]) -> Array:
    """The bit patterns of a column from the numbers that its bits make."""
    number = dtype.type
    if field.kind == "dictionary":
        values: Array = np.array(field.values, dtype)
        return values.take(codes, mode="clip")
    codes = codes.astype(dtype, copy=False)
    magnitudes = codes >> number(field.signed)
    patterns: Array = (magnitudes - number(field.zero) << number(field.shift)) + number(field.base)
    if field.zero:
        patterns[magnitudes == 0] = 0
    if field.signed:
        patterns |= codes << number(8 * dtype.itemsize - 1)
    return patterns


def _add_bits(by_word: Array, field: Field, codes: Array) -> None:
    """Put the bits of a field into the words (words of a row, entries)."""
    codes = codes.astype(_code_type(field), copy=False)
    number = codes.dtype.type
    for word in _words_of(field):
        at = 32 * word - field.bit
        by_word[word] |= (codes >> number(at) if at >= 0 else codes << number(-at)).astype(np.uint32, copy=False)


def _take_bits(words: Array, field: Field) -> Array:
    """The numbers that the bits of a field make, in integers of 32 or 64 bits."""
    dtype = _code_type(field)
    number = dtype.type
    codes: Array = np.zeros(len(words), dtype)
    for word in _words_of(field):
        at = 32 * word - field.bit
        part = words[:, word].astype(dtype)
        codes |= part << number(at) if at >= 0 else part >> number(-at)
    codes &= number((1 << field.bits) - 1)
    return codes


def _code_type(field: Field) -> np.dtype[Any]:
    return np.dtype("<u4" if field.bits <= 32 else "<u8")


def _words_of(field: Field) -> Sequence[int]:
    return range(field.bit // 32, -(-(field.bit + field.bits) // 32)) if field.bits else range(0)
