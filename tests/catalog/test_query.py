"""SQL over the catalog and the data: right answers, and nothing else reachable."""

import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest

from storagering.api import convert
from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.layout import open_cache
from storagering.catalog.index import catalog_tables, catalog_views
from storagering.catalog.query import sql
from storagering.config import load_settings
from storagering.errors import ChecksumError, LimitExceededError, SpecError, StorageringError
from storagering.testing.contracts import flipped
from storagering.testing.toys import toy_columns, write_toy_rntuple, write_toy_tree

ENTRIES = 1000
secret_table = __import__("pyarrow").table({"secret": [1]})


def value(query: str, **settings: Any) -> Any:
    table = sql(query, settings=load_settings(**settings))
    assert table.num_rows == table.num_columns == 1, table
    return table.column(0)[0].as_py()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches with one dataset each, to be copied."""
    folder = tmp_path_factory.mktemp("built")
    write_toy_rntuple(folder / "toy.root", entries=ENTRIES)
    for store in ("zarr", "parquet"):
        convert(
            str(folder / "toy.root"), name="toy", format=store, chunk_bytes=20_000,
            settings=load_settings(cache=folder / store, workers=1),
        )  # fmt: skip
    return folder


@pytest.fixture(params=["zarr", "parquet"])
def toy(request: pytest.FixtureRequest, built: Path, cache: Path) -> Dataset:
    shutil.copytree(built / request.param, cache)
    return open_dataset("toy")


def test_data_equal_the_source(toy: Dataset) -> None:
    columns = toy_columns(ENTRIES, nested=True)
    assert value("SELECT count(*) FROM toy") == ENTRIES
    assert value("SELECT count(*) FROM toy WHERE nVtx > 30 AND passed") == np.sum(
        columns["passed"] & (columns["nVtx"] > 30)
    )
    assert value("SELECT max(event) FROM toy") == int(columns["event"].max())
    assert value("SELECT sum(weight) FROM toy") == pytest.approx(columns["weight"].sum())
    assert int(value("SELECT sum(len(Jet_pt)) FROM toy")) == ak.sum(columns["nJet"])
    assert value("SELECT max(pt) FROM (SELECT unnest(Jet_pt) AS pt FROM toy)") == float(ak.max(columns["Jet_pt"]))
    assert value("SELECT count(*) FROM toy WHERE trigger = 'HLT_Mu24'") == columns["trigger"].to_list().count(
        "HLT_Mu24"
    )
    assert int(value("SELECT sum(len(Muon)) FROM toy")) == ak.sum(ak.num(columns["Muon"]))
    assert value("SELECT sum(m.pt) FROM (SELECT unnest(Muon) AS m FROM toy)") == pytest.approx(
        ak.sum(columns["Muon"].pt)
    )
    assert value("SELECT sum(image[2][3]) FROM toy") == pytest.approx(float(columns["image"][:, 1, 2].sum()), rel=1e-5)
    assert int(value("SELECT sum(len(h)) FROM (SELECT unnest(hits) AS h FROM toy)")) == ak.count(
        columns["hits"], axis=None
    )


def test_star_gives_every_column_in_order(toy: Dataset) -> None:
    table = sql("SELECT * FROM toy ORDER BY event LIMIT 7")
    assert tuple(table.column_names) == toy.schema.names
    assert table.num_rows == 7
    columns = toy_columns(ENTRIES, nested=True)
    assert table["event"].to_pylist() == columns["event"][:7].tolist()
    assert table["Jet_pt"].to_pylist() == columns["Jet_pt"][:7].to_list()
    assert table["trigger"].to_pylist() == columns["trigger"][:7].to_list()
    assert sql("SELECT * EXCLUDE (image) FROM toy WHERE run < 0").num_rows == 0


@pytest.mark.parametrize(
    "query",
    [
        "WITH t AS (SELECT nVtx, count(*) AS n FROM toy GROUP BY nVtx) SELECT sum(n) FROM t",
        "SELECT count(*) FROM toy a JOIN toy b USING (event)",
        'SELECT count(*) FROM "toy"',
        "SELECT count(*) FROM TOY",
        "FROM toy SELECT count(*)",
        "SELECT count(*) FROM (SELECT row_number() OVER (ORDER BY event) FROM toy)",
        "SELECT count(*) FROM (SELECT event FROM toy UNION SELECT event FROM toy)",
        "SELECT count(DISTINCT event) FROM toy",
        "SELECT (SELECT count(*) FROM toy) ",
        "SELECT count(*) FROM toy WHERE event IN (SELECT event FROM toy)",
        "SELECT num_entries FROM datasets WHERE name = 'toy'",
    ],
)
def test_ways_to_ask_for_the_same(toy: Dataset, query: str) -> None:
    assert value(query) == ENTRIES


def test_only_the_columns_of_the_query_are_read(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from storagering.catalog import streams

    read: set[str] = set()
    original: Any = vars(streams)["read_batch"]

    def spy(reader: Any, schema: Any, num_entries: int) -> Any:
        read.update(schema.names)
        return original(reader, schema, num_entries)

    monkeypatch.setattr(streams, "read_batch", spy)
    sql("SELECT avg(nVtx) FROM toy WHERE passed")
    assert read == {"nVtx", "passed"}
    read.clear()
    sql("SELECT count(*) FROM toy")
    assert len(read) == 1


def test_tables_tell_what_the_manifest_says(toy: Dataset) -> None:
    manifest = toy.manifest
    rows = sql("SELECT * FROM columns ORDER BY position").to_pylist()
    assert [r["name"] for r in rows] == list(toy.schema.names)
    for row, column, found in zip(rows, toy.schema.columns, manifest.statistics, strict=True):
        assert (row["dtype"], row["kind"], row["unit"], row["doc"]) == (
            column.dtype,
            column.kind,
            column.unit,
            column.doc,
        )
        for key in ("count", "min", "max", "mean", "std", "nan_count", "inf_count", "zero_count"):
            assert row[key] == (getattr(found, key) if found else None), (column.name, key)
    chunks = sql("SELECT start, stop, file, nbytes, raw_bytes, digest FROM chunks ORDER BY chunk").to_pylist()
    assert chunks == [{k: getattr(c, k) for k in chunks[0]} for c in manifest.chunks]
    (dataset,) = sql("SELECT * FROM datasets").to_pylist()
    assert "stamp" not in dataset
    assert (dataset["digest"], dataset["num_chunks"]) == (manifest.digest, len(chunks))
    (source,) = sql("SELECT * FROM source_files").to_pylist()
    assert (source["url"], source["entries"]) == (manifest.sources[0].url, ENTRIES)
    assert sql("SELECT * FROM skipped_columns").num_rows == 0


@pytest.mark.parametrize(
    ("query", "needed"),
    [
        ("SELECT count(*) FROM datasets", {"datasets"}),
        ("SELECT sum(num_chunks) FROM datasets", {"datasets"}),
        ('SELECT count(*) FROM "DATASETS"', {"datasets"}),
        ("SELECT count(*) FROM toy", set()),
        ("SELECT 'chunks'", set()),
        ("WITH chunks AS (SELECT 1) SELECT count(*) FROM chunks", set()),
        ("WITH c AS (SELECT * FROM chunks) SELECT count(*) FROM c", {"chunks"}),
        ("SELECT count(*) FROM (SELECT name FROM columns UNION SELECT file FROM chunks)", {"columns", "chunks"}),
        ("SELECT count(*) FROM toy WHERE event IN (SELECT chunk FROM chunks)", {"chunks"}),
        ("SELECT count(*) FROM lineage", {"versions", "source_files"}),
        ("SELECT count(*) FROM replicas", {"source_files"}),
        ("SELECT count(*) FROM query('SELECT * FROM chunks')", {"chunks"}),
        ("SELECT count(*) FROM query_table('chunks')", {"chunks"}),
        ("SELECT count(*) FROM memory.main.chunks", {"chunks"}),
    ],
)
@pytest.mark.parametrize("toy", ["zarr"], indirect=True)
def test_only_the_tables_of_the_query_are_copied(
    toy: Dataset, monkeypatch: pytest.MonkeyPatch, query: str, needed: set[str]
) -> None:
    from storagering.catalog import query as module

    copied: list[str] = []
    original: Any = vars(module)["read_tables"]

    def spy(connection: Any, names: Any) -> Any:
        copied.extend(names)
        return original(connection, names)

    monkeypatch.setattr(module, "read_tables", spy)
    assert sql(query).num_rows
    assert set(copied) == needed
    assert len(copied) == len(needed)


@pytest.mark.parametrize(
    ("query", "want"),
    [
        ("CREATE TABLE t AS SELECT 1; SELECT count(*) FROM datasets", 1),
        ("CREATE MACRO m() AS TABLE SELECT count(*) FROM datasets; SELECT * FROM m()", 1),
        ("SELECT count(*) FROM query('SELECT * FROM ' || 'data' || 'sets')", 1),
        ("SELECT count(*) > 7 FROM duckdb_tables()", True),
        ("SELECT bool_or(table_name = 'lineage') FROM information_schema.tables", True),
        ("PREPARE p AS SELECT count(*) FROM datasets; EXECUTE p", 1),
        ("SELECT sum(zarr + parquet) FROM (PIVOT (SELECT format, 1 AS n FROM datasets UNION ALL SELECT 'zarr', 1 "
         "UNION ALL SELECT 'parquet', 1) ON format IN ('zarr', 'parquet') USING sum(n))", 3),
    ],
)  # fmt: skip
@pytest.mark.parametrize("toy", ["zarr"], indirect=True)
def test_what_does_not_name_its_tables_has_them_all(toy: Dataset, query: str, want: Any) -> None:
    assert value(query) == want


@pytest.mark.parametrize("toy", ["zarr"], indirect=True)
def test_all_tables_are_shown(toy: Dataset) -> None:
    shown = set(sql("SHOW TABLES").column(0).to_pylist())
    assert shown == {*catalog_tables(), *catalog_views()}
    assert "stamp" not in sql("DESCRIBE datasets").column(0).to_pylist()
    for query in ("SELECT * FROM _manifests", "SELECT * FROM _catalog", "SELECT * FROM query('FROM _digests')"):
        with pytest.raises(SpecError, match="does not exist"):
            sql(query)


@pytest.mark.parametrize("toy", ["zarr"], indirect=True)
def test_a_table_that_is_needed_unseen_is_copied_all_the_same(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from storagering.catalog import query as module

    monkeypatch.setattr(module, "_named_tables", lambda *_: set())
    assert value("SELECT count(*) FROM datasets") == 1
    assert value("SELECT count(*) FROM lineage") == 1
    with pytest.raises(SpecError, match="nope does not exist"):
        sql("SELECT count(*) FROM nope")


def test_a_removed_dataset_is_gone(toy: Dataset) -> None:
    open_cache(load_settings()).remove("toy")
    assert value("SELECT count(*) FROM datasets") == 0
    assert value("SELECT count(*) FROM chunks") == 0
    with pytest.raises(SpecError, match=r"toy does not exist[\s\S]*datasets: none yet; tables: datasets, columns"):
        sql("SELECT count(*) FROM toy")


@pytest.mark.parametrize(
    "query",
    [
        "COPY toy TO '{out}' (FORMAT parquet)",
        "COPY (SELECT 1) TO '{out}'",
        "EXPORT DATABASE '{out}'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_blob('{source}')",
        "SELECT * FROM read_parquet('{chunk}')",
        "SELECT * FROM '{chunk}'",
        "SELECT * FROM glob('/etc/*')",
        "ATTACH '{out}' AS other",
        "ATTACH '{catalog}' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')",
        "SELECT * FROM secret_table",
        "SELECT * FROM local_table",
        "SET enable_external_access = true",
        "SET threads = 64",
        "RESET memory_limit",
        "PRAGMA enable_external_access = true",
        "SET lock_configuration = false",
        "SELECT getenv('HOME')",
        "CREATE SECRET (TYPE s3)",
        "IMPORT DATABASE '/tmp'",
        "SELECT 1; COPY (SELECT 1) TO '{out}'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
        "CREATE TABLE t AS SELECT * FROM read_csv('/etc/passwd')",
        "CREATE MACRO m() AS TABLE SELECT * FROM read_text('/etc/passwd'); SELECT * FROM m()",
    ],
)
def test_the_sandbox(tmp_path: Path, built: Path, cache: Path, query: str) -> None:
    shutil.copytree(built / "zarr", cache)
    dataset = open_dataset("toy")
    assert value("SELECT count(*) FROM toy") == ENTRIES
    local_table = secret_table  # noqa: F841  (must not be found)
    names = {
        "out": tmp_path / "out", "source": built / "toy.root", "chunk": dataset.path / dataset.manifest.chunks[0].file,
        "catalog": tmp_path / "cache" / "catalog.duckdb",
    }  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SpecError):
        sql(query.format(**names))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_query_changes_nothing(toy: Dataset) -> None:
    for query in (
        "DELETE FROM datasets",
        "DROP TABLE columns",
        "UPDATE chunks SET file = 'x'",
        "CREATE TABLE t (x INT)",
    ):
        sql(query)
    assert value("SELECT count(*) FROM datasets") == 1
    assert value("SELECT count(*) FROM columns") == len(toy.schema.columns)
    for query in ("DELETE FROM toy", "DROP TABLE toy", "INSERT INTO toy SELECT * FROM toy"):
        with pytest.raises(SpecError):
            sql(query)
    assert len(toy.arrays(["event"])) == ENTRIES


@pytest.mark.parametrize(
    "query", ["", "SELEC 1", "SELECT nope FROM toy", "SELECT * FROM nope", "SELECT 1/", "\0", "SELECT 'a"]
)
def test_wrong_queries(toy: Dataset, query: str) -> None:
    with suppress(SpecError):
        assert sql(query).num_rows == 0


def test_too_many_rows(toy: Dataset) -> None:
    assert sql("SELECT event FROM toy", settings=load_settings(sql_max_rows=ENTRIES)).num_rows == ENTRIES
    with pytest.raises(
        LimitExceededError, match=r"more than 999 rows; aggregate, add LIMIT, or set STORAGERING_SQL_MAX_ROWS"
    ):
        sql("SELECT event FROM toy", settings=load_settings(sql_max_rows=ENTRIES - 1))
    with pytest.raises(LimitExceededError):
        sql("SELECT * FROM range(10000000000)", settings=load_settings(sql_max_rows=1000))


@pytest.mark.parametrize(
    "query",
    ["SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b",
     "SELECT a.range FROM range(10000000) a, range(10000000) b WHERE a.range + b.range < 0",
     "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 1000000000000) SELECT max(x) FROM t"],
)  # fmt: skip
def test_a_long_query_is_stopped(query: str) -> None:
    begin = time.monotonic()
    with pytest.raises(SpecError, match=r"was stopped after 0\.3 s"):
        sql(query, settings=load_settings(sql_timeout_seconds=0.3))
    assert time.monotonic() - begin < 5


def test_a_query_can_be_cancelled_from_elsewhere() -> None:
    cancelled = threading.Event()
    timer = threading.Timer(0.3, cancelled.set)
    timer.start()
    with pytest.raises(SpecError, match="the query was cancelled"):
        sql("SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b", cancelled=cancelled)
    timer.join()


def test_memory_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SpecError, match=r"(?i)memory"):
        sql("SELECT list(range) FROM range(100000000)", settings=load_settings(sql_memory_bytes=64 << 20))
    assert [p for p in tmp_path.iterdir() if p.name != "cache"] == before, "nothing is spilled into the working folder"


@pytest.mark.scenario(17)
def test_damaged_data_are_an_error_and_never_an_answer(toy: Dataset) -> None:
    chunk = toy.manifest.chunks[2]
    with flipped(toy.path / chunk.file, 8 * 200), pytest.raises(ChecksumError, match=chunk.file):
        sql("SELECT * FROM toy")
    assert value("SELECT count(*) FROM toy") == ENTRIES
    (toy.path / chunk.file).unlink()
    with pytest.raises(StorageringError, match=chunk.file):
        sql("SELECT sum(nVtx) FROM toy")


def test_a_damaged_manifest_does_not_hide_the_others(toy: Dataset, tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "t.root", entries=5)
    convert(str(tmp_path / "t.root"), name="o", workers=1)
    (open_dataset("o").path / "manifest.json").write_text("{}")
    with pytest.warns(UserWarning, match="dataset 'o' is left out of the catalog: .*is not a manifest"):
        assert sql("SELECT name FROM datasets").column(0).to_pylist() == ["toy"]
    with pytest.warns(UserWarning, match="'o'"):
        assert sql("SELECT name FROM datasets").column(0).to_pylist() == ["toy"]
    assert value("SELECT count(*) FROM toy") == ENTRIES


def test_long_work_prints_nothing() -> None:
    """DuckDB would draw a bar on stdout where it takes a process for a prompt."""
    code = (
        "from storagering.catalog import index, query; from storagering.config import load_settings\n"
        "for connection in (index._connect(':memory:'), query._sandbox(load_settings())):\n"
        "    print(connection.execute(\"SELECT current_setting('enable_progress_bar')\").fetchone()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
