"""Column statistics against NumPy, and that parts merge into the whole."""

import io
import math
import warnings
from typing import Any

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.cache.sketches import NOTHING, merge_sketches
from storagering.cache.statistics import (
    describe_batch,
    describe_fully,
    describe_numbers,
    extend_statistics_table,
    merge_statistics,
    sketches_in,
    statistics_table,
)
from storagering.testing.contracts import make_batch, sample_columns, sample_numbers, sample_unions
from storagering.types import ColumnStatistics

DTYPES = ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]


def check(found: ColumnStatistics, numbers: Any) -> None:
    """Against the plain definition, over finite values."""
    numbers = np.asarray(numbers)
    wide = numbers.astype(np.longdouble)
    finite = wide[np.isfinite(wide)]
    assert found.count == numbers.size
    assert found.nan_count == np.isnan(wide).sum()
    assert found.inf_count == np.isinf(wide).sum()
    assert found.zero_count == (wide == 0).sum()
    if not finite.size:
        assert (found.min, found.max, found.mean, found.std) == (None, None, None, None)
        return
    assert (found.min, found.max) == (float(finite.min()), float(finite.max()))
    scale = float(np.abs(finite).max()) or 1.0
    if not 1e-150 < scale < 1e150:  # squares overflow or vanish
        return
    assert found.mean is not None
    assert found.std is not None
    assert math.isclose(found.mean, float(finite.mean()), rel_tol=1e-9, abs_tol=1e-9 * scale)
    assert math.isclose(found.std, float(finite.std()), rel_tol=1e-6, abs_tol=1e-7 * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_equals_numpy(dtype: str, count: int) -> None:
    numbers = sample_numbers(dtype, count)
    if dtype in ("f4", "f8", "f2"):
        numbers = numbers[np.abs(np.nan_to_num(numbers, posinf=0, neginf=0).astype("f8")) < 1e30]
        numbers = np.concatenate([numbers, np.array([np.nan, np.inf, -np.inf, 0, -0.0], dtype)])
    with np.errstate(all="ignore"):
        check(describe_numbers(numbers), numbers)


@pytest.mark.scenario(48)
@given(st.lists(st.floats(width=32), max_size=50))
@settings(max_examples=200, deadline=None)
def test_any_numbers(numbers: list[float]) -> None:
    with np.errstate(all="ignore"):
        check(describe_numbers(np.array(numbers, "f4")), np.array(numbers, "f4"))


@given(st.lists(st.lists(st.floats(), max_size=20), min_size=1, max_size=6))
@settings(max_examples=300, deadline=None)
def test_parts_merge_into_the_whole(parts: list[list[float]]) -> None:
    merged = merge_statistics([(describe_numbers(np.array(p, "f8")),) for p in parts], 1)[0]
    assert merged is not None
    whole = np.concatenate([np.array(p, "f8") for p in parts])
    with np.errstate(all="ignore"):
        check(merged, whole)
    for value in (merged.mean, merged.std, merged.sum_squares, merged.min, merged.max):
        assert value is None or math.isfinite(value), "JSON has no word for it"


def test_a_far_mean_loses_no_digits() -> None:
    numbers = 1e9 + np.random.default_rng(0).normal(size=10_000)
    parts = [(describe_numbers(p),) for p in np.array_split(numbers, 17)]
    merged = merge_statistics(parts, 1)[0]
    assert merged is not None
    assert merged.std == pytest.approx(numbers.std(), rel=1e-6)
    assert merged.mean == pytest.approx(numbers.mean(), rel=1e-14)


@pytest.mark.parametrize("value", [1e200, 1.7e308])
def test_doubles_near_the_end_of_their_range(value: float) -> None:
    for parts in ([[value], [-value]], [[value, -value], [1.0]], [[1.0], [value, -value]], [[value], [1.0], [-value]]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            merged = merge_statistics([(describe_numbers(np.array(p)),) for p in parts], 1)[0]
        assert merged is not None
        assert (merged.min, merged.max) == (-value, value)
        assert (merged.mean, merged.std, merged.sum_squares) == (None, None, 0.0)


def test_columns_without_plain_numbers_have_none() -> None:
    columns = sample_columns(20) | sample_unions(20)
    batch = make_batch(columns)
    for column, found in zip(batch.schema.columns, describe_batch(batch), strict=True):
        numeric = column.kind in ("flat", "fixed-shape", "jagged", "doubly-jagged") and "complex" not in column.dtype
        assert (found is not None) == (numeric and column.dtype != "string"), column.name
        if found is not None:
            assert found.count == ak.flatten(ak.Array(columns[column.name]), axis=None).layout.length


def test_the_table_has_a_row_for_each_chunk_and_column_and_for_all_chunks() -> None:
    batches = [make_batch({"x": np.arange(n, dtype="f4"), "s": ak.Array(["a"] * n), "y": np.ones(n)}) for n in (2, 3)]
    schema, (per_chunk, found) = batches[0].schema, zip(*map(describe_fully, batches), strict=True)
    totals, sketches = merge_statistics(per_chunk, 3), merge_sketches(found)
    data = statistics_table(schema, per_chunk, totals, sketches)
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    assert [(r["chunk"], r["column"], r["count"], r["max"]) for r in rows] == [
        (0, "x", 2, 1.0), (0, "y", 2, 1.0), (1, "x", 3, 2.0), (1, "y", 3, 1.0),
        (None, "x", 5, 2.0), (None, "y", 5, 1.0),
    ]  # fmt: skip
    assert [r["bucket_counts"] for r in rows] == [None] * 4 + [[2, 2, 1], [5]]
    assert [r["bucket_values"] for r in rows] == [None] * 4 + [[0, 1, 2], [1]]
    again = sketches_in(data, schema)
    assert again.keys.tolist() == sketches.keys.tolist()
    assert again.counts.tolist() == sketches.counts.tolist()
    more = merge_sketches([again, found[0]])
    longer = extend_statistics_table(data, schema, per_chunk[:1], merge_statistics([totals, per_chunk[0]], 3), more, 2)
    once = merge_statistics([*per_chunk, per_chunk[0]], 3)
    assert longer == statistics_table(schema, [*per_chunk, per_chunk[0]], once, merge_sketches([*found, found[0]]))
    empty = merge_statistics([], 3)
    assert statistics_table(schema, [], empty, NOTHING) == statistics_table(schema, [], empty, NOTHING)


def test_nothing_to_merge() -> None:
    assert merge_statistics([], 3) == (None, None, None)
