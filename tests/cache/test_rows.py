"""Packing columns into rows: every bit pattern comes back, in as few bits as the column needs."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.cache.rows import Field, pack_rows, unpack_column
from storagering.testing.contracts import sample_numbers
from storagering.types import Array

DTYPES = ("?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")


@st.composite
def columns(draw: st.DrawFn) -> dict[str, Array]:
    """Columns of any types: any bits, few values, or floats and integers with zeros at their ends."""
    rows = draw(st.integers(0, 40))
    made = {}
    for number in range(draw(st.integers(1, 6))):
        dtype = np.dtype(draw(st.sampled_from(DTYPES)))
        if dtype.kind == "b":
            made[f"c{number}"] = np.array(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)), bool)
            continue
        size = rows * dtype.itemsize
        numbers = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype).copy()
        bits = numbers.view(f"<u{dtype.itemsize}")
        way = draw(st.sampled_from(["any", "few", "short", "near"]))
        if way == "few":
            bits %= 3
        elif way == "short":
            shift = bits.dtype.type(draw(st.integers(0, 8 * dtype.itemsize - 1)))
            bits[:] = bits >> shift << shift
        elif way == "near":
            bits[:] = bits % 100 + bits.dtype.type(draw(st.integers(0, (1 << 8 * dtype.itemsize) - 101)))
        if draw(st.booleans()):
            bits[rows // 2 :] = 0
        made[f"c{number}"] = numbers
    return made


@given(columns())
@settings(max_examples=150, deadline=None)
def test_any_bits_come_back(made: dict[str, Array]) -> None:
    words, fields = pack_rows(made)
    assert words.dtype == np.uint32
    assert words.shape == (len(made["c0"]), -(-sum(f.bits for f in fields.values()) // 32))
    at = 0
    for name, array in made.items():
        field = fields[name]
        assert (field.bit, field.dtype) == (at, array.dtype.str)
        assert field.bits <= 8 * array.itemsize
        assert field.is_sound(words.shape[1])
        at += field.bits
        back = unpack_column(words, field)
        assert back.dtype == array.dtype
        assert back.tobytes() == array.tobytes(), field


@pytest.mark.parametrize("dtype", DTYPES)
def test_oddities_come_back(dtype: str) -> None:
    for rows in (1, 2, 11, 20_000):
        array = sample_numbers(dtype, rows)
        words, fields = pack_rows({"before": np.arange(rows) % 7, "x": array})
        assert unpack_column(words, fields["x"]).tobytes() == array.tobytes()


def bits_of(array: Any) -> Field:
    field = pack_rows({"x": np.asarray(array)})[1]["x"]
    words, _ = pack_rows({"x": np.asarray(array)})
    assert unpack_column(words, field).tobytes() == np.asarray(array).tobytes()
    return field


def test_a_float_needs_the_bits_that_differ() -> None:
    halves = np.arange(64, 128, dtype=np.float32) / 2  # of one exponent: 6 bits of mantissa
    assert (bits_of(halves).bits, bits_of(halves).shift) == (6, 17)
    assert bits_of(np.concatenate([halves, -halves])).bits == 7
    with_zeros = bits_of(np.concatenate([halves[:-1], np.zeros(5, np.float32)]))
    assert (with_zeros.bits, with_zeros.zero, with_zeros.signed) == (6, True, False)
    assert bits_of(np.concatenate([halves[:-1], -np.zeros(5, np.float32)])).signed
    full = np.concatenate([halves, np.array([np.nan, np.inf, 0], np.float32)])
    assert bits_of(full).bits < 32


def test_an_integer_needs_the_bits_above_its_smallest() -> None:
    assert bits_of(np.arange(-100, 28)).bits == 7
    steps = bits_of(np.arange(-1000, 3096, 16, dtype=np.int32))
    assert (steps.kind, steps.bits, steps.shift) == ("integer", 8, 4)
    ends = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max])
    assert bits_of(np.concatenate([ends, np.arange(20)])).bits == 64
    assert bits_of(np.array([True, False])).bits == 1


def test_few_values_are_numbered_and_one_needs_no_bits() -> None:
    three = bits_of(np.tile(np.array([0, 1.0865, 2.173], np.float32), 5))
    assert (three.kind, three.bits, len(three.values)) == ("dictionary", 2, 3)
    assert bits_of(np.tile(np.random.default_rng(0).normal(size=16), 90)).bits == 4
    assert bits_of(np.tile(np.random.default_rng(0).normal(size=17), 90)).kind == "float"
    late = bits_of(np.concatenate([np.zeros(5000), np.random.default_rng(0).normal(size=17)]))
    assert late.kind == "float"  # though the first values are all alike
    for constant in (np.nan, -0.0, 0.0, 1.5, -999.0):
        assert bits_of(np.full(9, constant)).bits == 0
    for constant in (-1, 0, 7):
        assert bits_of(np.full(9, constant)).bits == 0
    words, _ = pack_rows({"x": np.full(9, 1.5), "y": np.zeros(9, np.uint8)})
    assert words.shape == (9, 0)


def test_a_column_of_64_bits_lies_over_three_words() -> None:
    made = {"x": np.arange(100) % 2 == 0, "y": sample_numbers("<f8", 100), "z": sample_numbers("<u8", 100)}
    words, fields = pack_rows(made)
    assert (fields["y"].bit, fields["y"].bits, fields["z"].bits) == (1, 64, 64)
    assert words.shape == (100, 5)
    for name, array in made.items():
        assert unpack_column(words, fields[name]).tobytes() == array.tobytes()


def test_columns_are_unpacked_into_an_array_of_the_caller() -> None:
    array = sample_numbers("<f4", 50_000)
    words, fields = pack_rows({"x": array})
    out = np.zeros_like(array)
    assert unpack_column(words, fields["x"], out) is out
    assert out.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "field",
    [
        Field("<f4", "float", 30, 3),
        Field("<f4", "float", 0, 33),
        Field("<f4", "float", 0, 8, shift=32),
        Field("<f4", "float", 0, 0, signed=True),
        Field("<f4", "dictionary", 0, 5, values=tuple(range(16))),
        Field("<f4", "dictionary", 0, 4),
        Field("<f4", "dictionary", 0, 1, values=tuple(range(17))),
        Field("<i8", "integer", 0, 4, values=(1,)),
    ],
)
def test_impossible_fields_are_seen(field: Field) -> None:
    assert not field.is_sound(1)
