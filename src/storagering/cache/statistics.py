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

from storagering.cache.moments import find_moments, pool
from storagering.cache.sketches import Sketch, Sketches, collect_sketches, count_column, has_numbers, join_columns
from storagering.errors import ChecksumError
from storagering.files import read_file, safe_join
from storagering.types import Array, Batch, Column, ColumnStatistics, Manifest, Schema, sha256_hex

Statistics = tuple[ColumnStatistics | None, ...]

_TABLE_LIMIT_BYTES = 1 << 32
#: Columns of the table -> where they come from, and their type.
_SKETCH_FIELDS = {
    "buckets": ("buckets", pa.int64()),
    "bucket_counts": ("counts", pa.int64()),
    "bucket_values": ("values", pa.float64()),
}


def describe_batch(batch: Batch) -> Statistics:
    """Statistics of every column in schema order, None for those without plain numbers."""
    return tuple(_describe_column(c, batch.arrays[c.name]) for c in batch.schema.columns)


def describe_fully(batch: Batch) -> tuple[Statistics, Sketches]:
    """Statistics and sketches of every column, one after the other: its numbers are then in the processor's cache."""
    statistics, counted = [], []
    for column in batch.schema.columns:
        arrays = batch.arrays[column.name]
        statistics.append(_describe_column(column, arrays))
        counted.append(count_column(column, arrays))
    return tuple(statistics), join_columns(counted)


def _describe_column(column: Column, arrays: tuple[Array, ...]) -> ColumnStatistics | None:
    if not has_numbers(column):
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
    mean, squares = find_moments(finite)
    if not (np.isfinite(mean) and np.isfinite(squares)):  # doubles near the end of their range
        return ColumnStatistics(numbers.size, nans, infinities, zeros, float(low), float(high))
    return ColumnStatistics(numbers.size, nans, infinities, zeros, float(low), float(high), mean, squares)


def _describe_bools(size: int, true: int) -> ColumnStatistics:
    if not size:
        return ColumnStatistics()
    low, high = float(true == size), float(true > 0)
    return ColumnStatistics(size, 0, 0, size - true, low, high, true / size, true * (size - true) / size)


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
        _, mean, squares = pool((n, a.mean, a.sum_squares), (m, b.mean, b.sum_squares))
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


def statistics_table(schema: Schema, per_chunk: Sequence[Statistics], totals: Statistics, sketches: Sketches) -> bytes:
    """A Parquet file of statistics: of every column in every chunk (chunk, column, count, ...) and in all of them.

    The latter have no chunk, but a sketch (buckets, bucket_counts, and bucket_values if there are few values).
    """
    return _as_parquet([_table_of(schema, per_chunk, 0), _table_of_totals(schema, totals, sketches)])


def extend_statistics_table(
    table: bytes, schema: Schema, per_chunk: Sequence[Statistics], totals: Statistics, sketches: Sketches, first: int
) -> bytes:
    """The Parquet file with more chunks, numbered from ``first``, and with the totals that there are then."""
    before = pq.read_table(pa.BufferReader(table), filters=pc.field("chunk").is_valid())
    return _as_parquet([before, _table_of(schema, per_chunk, first), _table_of_totals(schema, totals, sketches)])


def _table_of(schema: Schema, per_chunk: Sequence[Statistics], first: int) -> pa.Table:
    found = [
        (number, column.name, own, None)
        for number, statistics in enumerate(per_chunk, first)
        for column, own in zip(schema.columns, statistics, strict=True)
        if own is not None
    ]
    return _make_table(found)


def _table_of_totals(schema: Schema, totals: Statistics, sketches: Sketches) -> pa.Table:
    numbered = enumerate(zip(schema.columns, totals, strict=True))
    return _make_table([(None, c.name, own, sketches.of(n)) for n, (c, own) in numbered if own is not None])


def _make_table(rows: Sequence[tuple[int | None, str, ColumnStatistics, Sketch | None]]) -> pa.Table:
    kinds = {"int": pa.int64(), "float": pa.float64(), "float | None": pa.float64()}
    table = {
        "chunk": pa.array([number for number, *_ in rows], pa.int64()),
        "column": pa.array([name for _, name, *_ in rows], pa.string()),
    }
    for field in fields(ColumnStatistics):
        table[field.name] = pa.array([getattr(own, field.name) for _, _, own, _ in rows], kinds[str(field.type)])
    for name, (key, kind) in _SKETCH_FIELDS.items():
        table[name] = pa.array(
            [None if s is None else getattr(s, key) for *_, s in rows], pa.list_(pa.field("element", kind))
        )
    return pa.table(table)


def sketches_in(table: bytes, schema: Schema) -> Sketches:
    """The sketches in the Parquet file."""
    found = _read_sketches(table, schema.names)
    return collect_sketches((number, found[name]) for number, name in enumerate(schema.names) if name in found)


def _read_sketches(table: bytes, names: Sequence[str]) -> dict[str, Sketch]:
    wanted = pc.field("chunk").is_null() & pc.field("column").isin(pa.array(names, pa.string()))
    rows = pq.read_table(pa.BufferReader(table), columns=["column", *_SKETCH_FIELDS], filters=wanted)
    arrays = [[item.values.to_numpy(zero_copy_only=False) for item in rows[name]] for name in _SKETCH_FIELDS]
    return {name: Sketch(*own) for name, *own in zip(rows["column"].to_pylist(), *arrays, strict=True)}


def read_sketches(folder: Path, manifest: Manifest, names: Sequence[str]) -> dict[str, Sketch]:
    """Sketches of the named columns, those of plain numbers, of a dataset; raises as `read_statistics_table`."""
    return _read_sketches(_read_checked(folder, manifest), names)


def read_statistics_table(folder: Path, manifest: Manifest, names: Sequence[str]) -> list[dict[str, ColumnStatistics]]:
    """Statistics of the named columns, those of plain numbers, chunk by chunk, from a dataset's folder.

    Raises:
        NotFoundError, ChecksumError: as `read_statistics`.
    """
    found: list[dict[str, ColumnStatistics]] = [{} for _ in manifest.chunks]
    columns = read_statistics(folder, manifest, names).to_pydict()
    rows = zip(*(columns[field.name] for field in fields(ColumnStatistics)), strict=True)
    for number, name, row in zip(columns["chunk"], columns["column"], rows, strict=True):
        found[number][name] = ColumnStatistics(*row)
    return found


def read_statistics(folder: Path, manifest: Manifest, names: Sequence[str]) -> pa.Table:
    """The rows of the table beside the manifest that are about the named columns.

    Raises:
        NotFoundError: the table is missing.
        ChecksumError: it is not what the manifest says.
    """
    wanted = pc.field("chunk").is_valid() & pc.field("column").isin(pa.array(names, pa.string()))
    keys = [field.name for field in fields(ColumnStatistics)]
    return pq.read_table(
        pa.BufferReader(_read_checked(folder, manifest)), columns=["chunk", "column", *keys], filters=wanted
    )


def _read_checked(folder: Path, manifest: Manifest) -> bytes:
    file, digest = manifest.chunk_statistics
    path = safe_join(folder, file)
    data = read_file(path, _TABLE_LIMIT_BYTES)
    if sha256_hex(data) != digest:
        raise ChecksumError(f"{path} is damaged: its bytes changed on disk; remove the dataset, convert again")
    return data


def _as_parquet(tables: Sequence[pa.Table]) -> bytes:
    sink = pa.BufferOutputStream()
    encodings = {f"{name}.list.element": "DELTA_BINARY_PACKED" for name in ("buckets", "bucket_counts")}
    pq.write_table(
        pa.concat_tables(tables).combine_chunks(),
        sink,
        compression="zstd",
        use_dictionary=["column"],
        column_encoding=encodings,
    )
    return bytes(sink.getvalue().to_pybytes())
