"""Rounding to fewer mantissa bits, over all floats that there are."""

from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import BitRound

from storagering.errors import SpecError
from storagering.formats.forms import assign_keys, describe_column, to_awkward, to_batch
from storagering.formats.precision import round_batch, round_mantissa, with_precision

MANTISSA = {"<f2": 10, "<f4": 23, "<f8": 52}


def check(array: Any, bits: int) -> None:
    """The whole contract, in exact arithmetic of wider floats (float64: of integers)."""
    before = array.view(f"<u{array.itemsize}").copy()
    out = round_mantissa(array, bits)
    assert np.array_equal(array.view(before.dtype), before)
    assert out.dtype == array.dtype
    same = out.view(before.dtype) == before
    finite = np.isfinite(array)
    assert same[~finite].all()
    assert np.isfinite(out[finite]).all()
    assert (np.signbit(out) == np.signbit(array)).all()
    drop = max(0, MANTISSA[array.dtype.str] - bits)
    kept = (out.view(before.dtype) & before.dtype.type((1 << drop) - 1)) == 0
    largest = np.finfo(array.dtype).max
    assert (kept | same)[finite].all()
    assert (np.abs(array[finite & ~kept]) > largest * (1 - 2.0 ** -(bits + 1))).all()
    wide = np.longdouble
    error = np.abs(out[finite].astype(wide) - array[finite].astype(wide))
    floor = wide(np.finfo(array.dtype).smallest_normal)
    bound = np.maximum(np.abs(array[finite].astype(wide)), floor) * wide(2.0) ** -(bits + 1)
    assert (error <= bound).all()


def test_every_half_precision_number_at_every_precision() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view("<f2")
    for bits in range(1, 12):
        check(every, bits)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1), st.integers(1, 30))
def test_any_pattern_of_single_precision(patterns: list[int], bits: int) -> None:
    check(np.array(patterns, "<u4").view("<f4"), bits)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(1, 60))
def test_any_pattern_of_double_precision(patterns: list[int], bits: int) -> None:
    check(np.array(patterns, "<u8").view("<f8"), bits)


@given(st.integers(0, 2**32 - 1), st.integers(1, 22))
def test_extremes_and_neighbours(pattern: int, bits: int) -> None:
    ends = [
        0x7F7FFFFF,
        0xFF7FFFFF,
        0x7F800000,
        0xFF800000,
        0x7FFFFFFF,
        0xFFFFFFFF,
        0x7F800001,
        1,
        0x80000001,
        0x00800000,
    ]
    mask = (1 << (23 - bits)) - 1
    near = [pattern & ~mask, pattern | mask, (pattern & ~mask) | (mask + 1) >> 1]
    check(np.array([*ends, 0x007FFFFF, 0, 0x80000000, *near], "<u4").view("<f4"), bits)


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_ordinary_numbers_are_rounded_as_bitround_does(dtype: str) -> None:
    values = np.random.default_rng(1).lognormal(3, 4, 200_000).astype(dtype)
    for bits in (1, 7, 10, 16, 22):
        codec = BitRound(bits)
        want = np.asarray(codec.decode(codec.encode(values.copy()))).view(dtype)
        assert np.array_equal(round_mantissa(values, bits), want)


def test_shapes_and_views_are_kept() -> None:
    values = np.arange(240, dtype="<f8").reshape(10, 4, 6)[::2, :, 1:] / 7
    out = round_mantissa(values, 5)
    assert out.shape == values.shape
    assert np.array_equal(out.ravel(), round_mantissa(np.ascontiguousarray(values).ravel(), 5))
    assert round_mantissa(np.zeros(0, "<f4"), 3).shape == (0,)


def _columns() -> dict[str, Any]:
    rng = np.random.default_rng(2)
    lists = ak.unflatten(rng.normal(size=6).astype(np.float32), [2, 0, 4])
    return {
        "Jet_pt": lists,
        "Jet_hits": ak.Array([[[1.1, 2.2], []], [], [[3.3]]]),
        "Jet_id": ak.Array([[1, 2], [], [3]]),
        "image": rng.normal(size=(3, 2, 2)),
        "muon": ak.zip({"pt": lists, "charge": ak.values_astype(lists, np.int32)}),
        "half": np.array([1.1, 2.2, 3.3], np.float16),
        "flag": np.array([True, False, True]),
    }


def test_all_kinds_of_columns() -> None:
    columns = _columns()
    schema = with_precision(
        assign_keys(describe_column(n, a) for n, a in columns.items()), [("Jet_pt", 3), ("Jet_*", 7), ("*", 12)]
    )
    bits = {c.name: c.mantissa_bits for c in schema.columns}
    # A float16 has ten bits: keeping twelve changes nothing.
    assert bits == {"Jet_pt": 3, "Jet_hits": 7, "Jet_id": None, "image": 12, "muon": 12, "half": None, "flag": None}
    got = to_awkward(round_batch(to_batch(schema, columns, 3)))
    for name, array in columns.items():
        assert ak.array_equal(ak.num(got[name], axis=0), 3)
        if bits[name] is None:
            assert ak.array_equal(got[name], ak.Array(array), dtype_exact=True)
    for name, array in {**columns, "muon_pt": columns["muon"].pt}.items():
        kept = bits.get(name, 12)
        if kept is not None and name != "muon":
            now, then = (
                np.asarray(ak.flatten(a, axis=None)) for a in (got.muon.pt if "muon" in name else got[name], array)
            )
            assert np.array_equal(now, round_mantissa(then, kept))
            assert not np.array_equal(now, then)
    assert ak.array_equal(got.muon.charge, columns["muon"].charge)


@pytest.mark.parametrize(
    ("pattern", "bits", "message"),
    [
        ("Jet_*", 0, "1 to 52"),
        ("Jet_*", 53, "1 to 52"),
        ("Jet_pT", 5, "no column of floats.*Jet_pt"),
        ("Jet_id", 5, "no column"),
    ],
)
def test_refusals(pattern: str, bits: int, message: str) -> None:
    schema = assign_keys(describe_column(n, a) for n, a in _columns().items())
    with pytest.raises(SpecError, match=message):
        with_precision(schema, [(pattern, bits)])
