"""Means and sums of squares: right, and added up in the order that is promised."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.cache.moments import find_moments
from storagering.types import Array


def by_hand(numbers: Array) -> float:
    """The sum, in the order of the docstring, one number after the other."""
    lanes, folded = [0.0] * 256, [0.0] * 16
    for at, number in enumerate(numbers.astype("f8").tolist()):
        lanes[at % 256] += number
    for at, number in enumerate(lanes):
        folded[at % 16] += number
    total = 0.0
    for number in folded:
        total += number
    return total


@given(
    st.integers(1, 3000),
    st.sampled_from(["f2", "f4", "f8", "i4", "u8", "i1"]),
    st.floats(-1e3, 1e3),
    st.sampled_from([1.0, 1e-3, 30.0]),
)
@settings(max_examples=60, deadline=None)
def test_any_numbers(count: int, dtype: str, shift: float, scale: float) -> None:
    numbers = np.random.default_rng(count).normal(shift, scale, count)
    numbers = (np.abs(numbers) % 100).astype(dtype) if dtype in ("u8", "i1") else numbers.astype(dtype)
    wide = numbers.astype("f8")
    mean, squares = find_moments(numbers)
    own = by_hand(numbers) / count
    assert (mean, squares) == (own, by_hand((wide - own) * (wide - own)))
    assert mean == pytest.approx(wide.mean(), rel=1e-9, abs=1e-9)
    assert squares / count == pytest.approx(wide.var(), rel=1e-6, abs=1e-9)


def test_numbers_in_several_blocks() -> None:
    numbers = np.random.default_rng(0).normal(1e6, 1, 300_001).astype("f4")
    mean, squares = find_moments(numbers)
    assert mean == pytest.approx(numbers.astype("f8").mean(), rel=1e-14)
    assert squares == pytest.approx(numbers.astype("f8").var() * len(numbers), rel=1e-9)


@pytest.mark.parametrize("numbers", [[1.7e308, 1.7e308], [1.7e308, -1.7e308], [-1.7e308] * 3])
def test_what_overflows_is_not_finite(numbers: list[float]) -> None:
    assert not np.isfinite(find_moments(np.array(numbers))).all()
