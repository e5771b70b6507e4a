"""Column statistics: of one batch, merged over chunks, and as the table beside the manifest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storagering.errors import ChecksumError
from storagering.files import read_file, safe_join
from storagering.types import Array, Batch, Column, ColumnStatistics, Manifest, Schema, sha256_hex

Statistics = tuple[ColumnStatistics | None, ...]

#: Numbers that are taken at once, as float64.
_BLOCK = 32 << 10
_TABLE_LIMIT_BYTES = 1 << 32


def describe_batch(batch: Batch) -> Statistics:
    """Statistics of every column in schema order, None for those without plain numbers."""
    return tuple(_describe_column(c, batch.arrays[c.name]) for c in batch.schema.columns)


def _describe_column(column: Column, arrays: tuple[Array, ...]) -> ColumnStatistics | None:
    if column.kind in ("string", "nested") or column.parts[-1].dtype[1] not in "biuf" or column.dtype == "string":
        return None
    found = describe_numbers(arrays[-1].reshape(-1))
    if column.kind == "sparse":
        absent = (len(arrays[0]) - 1) * math.prod(column.shape) - found.count
        zeros = (
            ColumnStatistics(absent, zero_count=absent, min=0.0, max=0.0, mean=0.0) if absent else ColumnStatistics()
        )
        return _merge(found, zeros)
    return found


def describe_numbers(numbers: Array) -> ColumnStatistics:
    """Statistics of a one-dimensional array, in float64."""
    if numbers.dtype.kind == "b":
        return _describe_bools(numbers.size, int(np.count_nonzero(numbers)))
    if not numbers.size:
        return ColumnStatistics()
    finite, nans, infinities = numbers, 0, 0
    low, high = numbers.min(), numbers.max()
    if numbers.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
        finite = numbers[np.isfinite(numbers)]
        nans = int(np.isnan(numbers).sum())
        infinities = numbers.size - finite.size - nans
        if not finite.size:
            return ColumnStatistics(numbers.size, nans, infinities)
        low, high = finite.min(), finite.max()
    zeros = int(np.count_nonzero(finite == 0)) if low <= 0 <= high else 0
    mean, squares = _moments(finite)
    if not (np.isfinite(mean) and np.isfinite(squares)):  # doubles near the end of their range
        return ColumnStatistics(numbers.size, nans, infinities, zeros, float(low), float(high))
    return ColumnStatistics(numbers.size, nans, infinities, zeros, float(low), float(high), mean, squares)


def _describe_bools(size: int, true: int) -> ColumnStatistics:
    if not size:
        return ColumnStatistics()
    low, high = float(true == size), float(true > 0)
    return ColumnStatistics(size, 0, 0, size - true, low, high, true / size, true * (size - true) / size)


def _moments(numbers: Array) -> tuple[float, float]:
    """Mean and sum of squared deviations, in blocks that stay in the processor's cache."""
    add, buffer = np.add.reduce, np.empty(min(_BLOCK, numbers.size))
    count, mean, squares = 0, 0.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, numbers.size, _BLOCK):
            own = buffer[: min(_BLOCK, numbers.size - start)]
            np.copyto(own, numbers[start : start + _BLOCK], casting="unsafe")
            own_mean = float(add(own)) / own.size
            np.subtract(own, own_mean, out=own)
            np.multiply(own, own, out=own)
            mean, squares = _pool((count, mean, squares), (own.size, own_mean, float(add(own))))
            count += own.size
    return mean, squares


def _pool(a: tuple[int, float, float], b: tuple[int, float, float]) -> tuple[float, float]:
    """Mean and sum of squares of two sets of numbers together, from their counts, means and sums of squares."""
    (n, mean, squares), (m, other, others) = a, b  # Chan, Golub & LeVeque 1983
    delta = other - mean
    return mean + delta * m / (n + m), squares + others + delta * delta * n * m / (n + m)


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
    elif m and a.mean is not None and b.mean is not None:
        mean, squares = _pool((n, a.mean, a.sum_squares), (m, b.mean, b.sum_squares))
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
    return _as_parquet(_table_of(schema, per_chunk, 0))


def extend_statistics_table(table: bytes, schema: Schema, per_chunk: Sequence[Statistics], first: int) -> bytes:
    """The Parquet file with more chunks, numbered from ``first``."""
    return _as_parquet(pa.concat_tables([pq.read_table(pa.BufferReader(table)), _table_of(schema, per_chunk, first)]))


def _table_of(schema: Schema, per_chunk: Sequence[Statistics], first: int) -> pa.Table:
    found = [
        (number, column.name, own)
        for number, statistics in enumerate(per_chunk, first)
        for column, own in zip(schema.columns, statistics, strict=True)
        if own is not None
    ]
    kinds = {"int": pa.int64(), "float": pa.float64(), "float | None": pa.float64()}
    table = {
        "chunk": pa.array([number for number, _, _ in found], pa.int64()),
        "column": pa.array([name for _, name, _ in found], pa.string()),
    }
    for field in fields(ColumnStatistics):
        table[field.name] = pa.array([getattr(own, field.name) for _, _, own in found], kinds[str(field.type)])
    return pa.table(table)


def read_statistics_table(folder: Path, manifest: Manifest, names: Sequence[str]) -> list[dict[str, ColumnStatistics]]:
    """Statistics of the named columns, those of plain numbers, chunk by chunk, from a dataset's folder.

    Raises:
        NotFoundError: the table is missing.
        ChecksumError: it is not what the manifest says.
    """
    file, digest = manifest.chunk_statistics
    path = safe_join(folder, file)
    data = read_file(path, _TABLE_LIMIT_BYTES)
    if sha256_hex(data) != digest:
        raise ChecksumError(f"{path} is damaged: its bytes changed on disk; remove the dataset, convert again")
    found: list[dict[str, ColumnStatistics]] = [{} for _ in manifest.chunks]
    columns = pq.read_table(
        pa.BufferReader(data), filters=pc.field("column").isin(pa.array(names, pa.string()))
    ).to_pydict()
    rows = zip(*(columns[field.name] for field in fields(ColumnStatistics)), strict=True)
    for number, name, row in zip(columns["chunk"], columns["column"], rows, strict=True):
        found[number][name] = ColumnStatistics(*row)
    return found


def _as_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())
