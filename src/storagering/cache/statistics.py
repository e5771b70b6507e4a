"""Column statistics: of one batch, merged over chunks, and as the table beside the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storagering.types import Array, Batch, Column, ColumnStatistics, Schema

Statistics = tuple[ColumnStatistics | None, ...]


def describe_batch(batch: Batch) -> Statistics:
    """Statistics of every column in schema order, None for those without plain numbers."""
    return tuple(_describe_column(c, batch.arrays[c.name]) for c in batch.schema.columns)


def _describe_column(column: Column, arrays: tuple[Array, ...]) -> ColumnStatistics | None:
    if column.kind in ("string", "nested") or column.parts[-1].dtype[1] not in "biuf" or column.dtype == "string":
        return None
    return describe_numbers(arrays[-1].reshape(-1))


def describe_numbers(numbers: Array) -> ColumnStatistics:
    """Statistics of a one-dimensional array, in float64."""
    zeros = int(numbers.size - np.count_nonzero(numbers))
    finite, nans, infinities = numbers, 0, 0
    if numbers.dtype.kind == "f":
        keep = np.isfinite(numbers)
        if not keep.all():
            nans = int(np.isnan(numbers).sum())
            infinities = int(numbers.size - keep.sum() - nans)
            finite = numbers[keep]
    if not finite.size:
        return ColumnStatistics(numbers.size, nans, infinities, zeros)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(finite.mean(dtype=np.float64))
        squares = float(np.square(finite.astype(np.float64) - mean).sum())
    if not (np.isfinite(mean) and np.isfinite(squares)):  # doubles near the end of their range
        return ColumnStatistics(numbers.size, nans, infinities, zeros, float(finite.min()), float(finite.max()))
    return ColumnStatistics(
        numbers.size, nans, infinities, zeros, float(finite.min()), float(finite.max()), mean, squares
    )


def merge_statistics(parts: Sequence[Statistics], num_columns: int) -> Statistics:
    """Statistics of all chunks together."""
    if not parts:
        return (None,) * num_columns
    return tuple(reduce(_merge, column) for column in zip(*parts, strict=True))


def _merge(a: ColumnStatistics | None, b: ColumnStatistics | None) -> ColumnStatistics | None:
    if a is None or b is None:
        return None
    n, m = (s.count - s.nan_count - s.inf_count for s in (a, b))
    mean, squares = a.mean, a.sum_squares
    if not n:
        mean, squares = b.mean, b.sum_squares
    elif m and (a.mean is None or b.mean is None):
        mean, squares = None, 0.0
    elif m and a.mean is not None and b.mean is not None:  # Chan, Golub & LeVeque 1983
        delta = b.mean - a.mean
        mean = a.mean + delta * m / (n + m)
        squares = a.sum_squares + b.sum_squares + delta * delta * n * m / (n + m)
        if not np.isfinite(squares):  # doubles near the end of their range
            mean, squares = None, 0.0
    return ColumnStatistics(
        a.count + b.count,
        a.nan_count + b.nan_count,
        a.inf_count + b.inf_count,
        a.zero_count + b.zero_count,
        min((x for x in (a.min, b.min) if x is not None), default=None),
        max((x for x in (a.max, b.max) if x is not None), default=None),
        mean,
        squares,
    )


def statistics_table(schema: Schema, per_chunk: Sequence[Statistics]) -> bytes:
    """Statistics of every column in every chunk, as a Parquet file (chunk, column, count, ...)."""
    rows = [
        {"chunk": number, "column": column.name, **asdict(found)}
        for number, statistics in enumerate(per_chunk)
        for column, found in zip(schema.columns, statistics, strict=True)
        if found is not None
    ]
    kinds = {"int": pa.int64(), "float": pa.float64(), "float | None": pa.float64()}
    columns = [("chunk", pa.int64()), ("column", pa.string())]
    columns += [(f.name, kinds[str(f.type)]) for f in fields(ColumnStatistics)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(columns)), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())
