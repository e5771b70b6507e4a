"""Buckets against the plain definition."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from storagering.cache.buckets import bounds_of, count_buckets
from storagering.testing.contracts import REAL, sample_numbers
from storagering.types import Array


def finite(numbers: Array) -> Array:
    return numbers[np.isfinite(numbers)]


def check(numbers: Array) -> None:
    """Every number is in one bucket, whose bounds hold it, and values are told where they are the only ones."""
    buckets, counts, values = count_buckets(numbers)
    assert (np.diff(buckets) > 0).all()
    assert (counts > 0).all()
    assert counts.sum() == len(finite(numbers))
    begins, ends = bounds_of(buckets)
    assert (np.diff(begins) > 0).all()
    tiny = float(np.finfo("f4" if numbers.dtype.itemsize < 8 else "f8").tiny) if numbers.dtype.kind == "f" else 0.0
    assert (ends - begins <= (np.maximum(np.abs(begins), np.abs(ends)) + np.finfo("f8").tiny) / 2**7).all()
    wide = np.sort(finite(numbers).astype("f8"))
    for bucket, begin, end, count, value, at in zip(
        buckets, begins, ends, counts, values, np.cumsum(counts) - counts, strict=True
    ):
        own = wide[at : at + count]
        slack = tiny / 2**7  # below the normal numbers buckets are as wide as that
        assert np.abs(own).min() >= min(abs(begin), abs(end)) - slack
        assert np.abs(own).max() < max(abs(begin), abs(end)) + slack or bucket == 0
        assert np.isnan(value) or (own == value).all()
    exact = numbers.dtype.kind not in "iu" or (np.abs(wide) <= 2**53).all()
    if len(np.unique(wide)) == len(buckets) <= 64 and exact and not (wide == 0).any():
        assert not np.isnan(values).any()


@pytest.mark.parametrize("dtype", REAL)
@pytest.mark.parametrize("count", [0, 1, 2, 50, 3000])
def test_numbers_of_all_types(dtype: str, count: int) -> None:
    check(sample_numbers(dtype, count))


@given(st.one_of(arrays("f4", st.integers(0, 40)), arrays("f8", st.integers(0, 40)), arrays("i8", st.integers(0, 40))))
@example(np.array([0.0, -0.0, 1.0]))
@example(np.array([-0.0, 5e-324, -5e-324]))
@example(np.array([1e-45, -1e-38, 1e-40], "f4"))
@settings(max_examples=100, deadline=None)
def test_any_numbers(numbers: Array) -> None:
    check(numbers)


def test_buckets_of_opposite_numbers_are_opposite() -> None:
    numbers = np.random.default_rng(0).normal(size=500)
    one, other = count_buckets(numbers), count_buckets(-numbers)
    assert (one.buckets == -other.buckets[::-1]).all()
    assert (one.counts == other.counts[::-1]).all()


def test_small_integers_have_buckets_of_their_own() -> None:
    numbers = np.arange(-256, 257)
    assert (count_buckets(numbers).counts == 1).all()
    assert count_buckets(numbers).values.tolist() == numbers.tolist()
    assert count_buckets(np.arange(1000)).counts.max() > 1


@pytest.mark.parametrize(
    "values",
    [[0.0, 1.0865, 2.173], [-999.0, 0.5, 1e30], [211, -211, 22, 1_000_020_040], [7], [-0.0, 0.0, 3.0]],
)
@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
def test_few_values_are_told(values: list[float], dtype: str) -> None:
    if dtype == "i8":
        values = [int(v) for v in values if v < 1e18]
    numbers = np.random.default_rng(0).choice(np.array(values, dtype), 9000)
    numbers = np.concatenate([numbers, np.array([4000], dtype)])  # comes late
    found = count_buckets(numbers)
    wanted, counts = np.unique(numbers, return_counts=True)
    assert found.values.tolist() == wanted.astype("f8").tolist()
    assert found.counts.tolist() == counts.tolist()


def test_values_that_share_a_bucket_are_not_told() -> None:
    assert np.isnan(count_buckets(np.array([1.0, 1.0001, 5.0])).values).any()
    assert np.isnan(count_buckets(np.array([2**60, 2**60 + 1, 5])).values).all(), "not exact as float64"
    assert np.isnan(count_buckets(np.append(np.ones(9000), 1.001)).values).all(), "it comes late"
    assert np.isnan(count_buckets(np.array([0.0, 5e-324])).values).any()
