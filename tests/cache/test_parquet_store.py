"""The Parquet store: the contract, and what plain pyarrow and DuckDB see."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from storagering.cache.parquet_store import ParquetStore
from storagering.formats.forms import UnsupportedTypeError
from storagering.testing.contracts import (
    PROFILES,
    StoreContract,
    make_batch,
    sample_columns,
    sample_numbers,
    sample_unions,
    write_chunk,
)
from storagering.testing.sparse_contract import SparseStoreContract
from storagering.types import Batch, Profile


class TestParquetStore(StoreContract):
    store = ParquetStore()
    unions = False


class TestSparseColumns(SparseStoreContract):
    store = ParquetStore()
    unions = False


def plain(value: Any) -> Any:
    """Python values compared by text, so that NaN equals NaN and -0.0 is not 0.0."""
    return repr(value)


def as_lists(array: Any) -> list[Any]:
    return list(ak.to_list(ak.Array(array)))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("entries", [1, 9, 500])
def test_plain_pyarrow_reads_the_same(tmp_path: Path, profile: Profile, entries: int) -> None:
    columns = sample_columns(entries)
    write_chunk(ParquetStore(), tmp_path / "c.parquet", make_batch(columns), profile)
    table = pq.read_table(tmp_path / "c.parquet")
    assert table.column_names == list(columns)
    for name, array in columns.items():
        got = table[name].to_pylist()
        assert plain([float(x) if isinstance(x, np.floating) else x for x in got]) == plain(as_lists(array)), name


@pytest.mark.parametrize("profile", PROFILES)
def test_plain_duckdb_reads_the_same(tmp_path: Path, profile: Profile) -> None:
    columns = {n: c for n, c in sample_columns(200).items() if n != "bytes"}  # a BLOB there, which is right too
    write_chunk(ParquetStore(), tmp_path / "c.parquet", make_batch(columns), profile)
    for name, array in columns.items():
        rows = duckdb.execute(f"SELECT \"{name}\" FROM read_parquet('{tmp_path}/c.parquet')").fetchall()
        got = [list(row[0]) if isinstance(row[0], tuple) else row[0] for row in rows]
        assert plain(got).replace("(", "[").replace(")", "]") == plain(as_lists(array)).replace("(", "[").replace(
            ")", "]"
        ), name


def test_units_and_titles_are_field_metadata(tmp_path: Path) -> None:
    batch = make_batch({"pt": np.arange(3.0)})
    schema = replace(batch.schema, columns=(replace(batch.schema.columns[0], unit="GeV", doc="a title"),))
    write_chunk(ParquetStore(), tmp_path / "c", Batch(schema, 3, batch.arrays))
    assert pq.read_schema(tmp_path / "c").field("pt").metadata == {b"unit": b"GeV", b"doc": b"a title"}


@pytest.mark.parametrize("name", sorted(sample_unions(2)))
def test_types_that_arrow_lacks_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedTypeError, match="Arrow and Parquet"):
        ParquetStore().encode(make_batch({name: sample_unions(2)[name]}), "small")


def test_names_with_dots_do_not_collide(tmp_path: Path) -> None:
    """Parquet joins nested names with dots."""
    record = ak.zip({"b": sample_numbers("f4", 50)})
    columns = {"a": record, "a.b": sample_numbers("i4", 50), "a.c": ak.Array(["x"] * 50), "a/b": np.arange(50)}
    batch = make_batch(columns)
    for profile in PROFILES:
        chunk = write_chunk(ParquetStore(), tmp_path / profile, batch, profile)
        reader = ParquetStore().open(tmp_path / profile, chunk, batch.schema)
        for name in columns:
            got = reader.read_column(name)
            assert [a.tobytes() for a in got] == [a.tobytes() for a in batch.arrays[name]], name


def test_one_reader_serves_many_threads(tmp_path: Path) -> None:
    batch = make_batch(sample_columns(2000))
    chunk = write_chunk(ParquetStore(), tmp_path / "c", batch)
    reader = ParquetStore().open(tmp_path / "c", chunk, batch.schema)
    names = list(batch.schema.names) * 4
    with ThreadPoolExecutor(8) as threads:
        for name, got in zip(names, threads.map(reader.read_column, names), strict=True):
            assert all(a.tobytes() == b.tobytes() for a, b in zip(got, batch.arrays[name], strict=True)), name
