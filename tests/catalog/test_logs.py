"""The catalog's tables of logs follow the imported files; the insights find what is planted in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from storagering.cache.layout import Cache, open_cache
from storagering.catalog import logs
from storagering.catalog.gridlogs.importing import import_logs
from storagering.catalog.gridlogs.registry import KINDS
from storagering.catalog.gridlogs.store import list_logs
from storagering.catalog.insights import ask_insight, insight_names
from storagering.catalog.logs import logs_in_memory
from storagering.config import load_settings
from storagering.errors import NotFoundError
from storagering.testing.gridlogs import GridLogs, write_grid_logs
from storagering.testing.gridlogs.world import SITES


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[GridLogs, Path]:
    """Logs of all kinds, and a cache that has them."""
    folder = tmp_path_factory.mktemp("grid")
    written = write_grid_logs(folder / "logs", seed=3, num_jobs=400)
    for kind, files in written.files.items():
        for found in import_logs(kind, files, settings=load_settings(cache=folder / "cache")):
            assert (found.log.bad, found.problems) == (0, ())
    return written, folder / "cache"


@pytest.fixture
def opened(grid: tuple[GridLogs, Path], cache: Path) -> Cache:
    shutil.copytree(grid[1], cache)
    return open_cache(load_settings())


def rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = connection.sql(query).to_arrow_table().to_pylist()
    return found


@pytest.fixture(scope="module")
def ask(grid: tuple[GridLogs, Path]) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Asks the insights of the made-up grid."""
    with logs_in_memory(open_cache(load_settings(cache=grid[1]))) as connection:
        yield lambda name: rows(connection, f"SELECT * FROM insight_{name}")


Ask = Callable[[str], list[dict[str, Any]]]


def test_tables_follow_the_files(opened: Cache) -> None:
    with logs_in_memory(opened) as connection:
        before = rows(connection, "SELECT kind, count(*) AS n, sum(records) AS records FROM log_files GROUP BY kind")
        assert {row["kind"] for row in before} == set(KINDS)
        for row in before:
            assert rows(connection, f"SELECT count(*) AS n FROM log_{row['kind']}") == [{"n": row["records"]}]
        assert logs.enter(connection, opened) == 0
        (gone,) = list_logs(opened, "fts").values()
        kept = gone.read_bytes()
        gone.unlink()
        assert logs.enter(connection, opened) == 1
        assert rows(connection, "SELECT count(*) AS n FROM log_fts") == [{"n": 0}]
        gone.write_bytes(kept)
        assert logs.enter(connection, opened) == 1
        assert rows(connection, "SELECT count(*) AS n FROM log_fts") == [{"n": 400}]


def empty(cache: Cache) -> Cache:
    return open_cache(load_settings(cache=cache.root.with_name("empty")))


def test_a_damaged_file_is_left_out_with_a_warning(opened: Cache) -> None:
    (path,) = list_logs(opened, "condor").values()
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    with logs_in_memory(empty(opened)) as connection:
        with pytest.warns(UserWarning, match="are left out of the catalog"):
            logs.enter(connection, opened)
        assert rows(connection, "SELECT count(*) AS n FROM log_condor") == [{"n": 0}]
        assert rows(connection, "SELECT count(*) > 0 AS some FROM log_xrootd") == [{"some": True}]


def test_files_of_other_releases(opened: Cache, tmp_path: Path) -> None:
    columns = logs.TABLES["log_eos"].replace("opened_bytes BIGINT", "something_new BIGINT")
    with duckdb.connect(":memory:") as connection:
        for name, known in logs.TABLES.items():
            connection.execute(f"CREATE TABLE {name} ({columns if name == 'log_eos' else known})")
        assert logs.enter(connection, opened) == 11
        assert rows(connection, "SELECT count(lfn) > 0 AS old, count(something_new) AS new FROM log_eos") == [
            {"old": True, "new": 0}
        ]


def test_jobs_and_reads_agree_between_systems(opened: Cache, grid: tuple[GridLogs, Path]) -> None:
    jobs = grid[0].world.jobs
    with logs_in_memory(opened) as connection:
        found = rows(
            connection,
            "SELECT kind, count(*) AS n, sum(failed::INT) AS failed, round(sum(cpu_seconds) / 1000) AS cpu "
            "FROM log_jobs GROUP BY kind ORDER BY kind",
        )
        failed = sum(job.exit_code != 0 for job in jobs)
        cpu = round(sum(job.cpu for job in jobs) / 1000)
        assert [(row["kind"], row["n"], row["failed"]) for row in found] == [
            (kind, len(jobs), failed) for kind in ("condor", "jobmonitoring", "wmarchive")
        ]  # of a job that ran when it was first told of, only the end counts
        assert all(abs(row["cpu"] - cpu) <= 1 for row in found)
        read = rows(connection, "SELECT kind, sum(nbytes) AS n FROM log_accesses GROUP BY kind ORDER BY kind")
        whole = sum(job.read_bytes for job in jobs)
        at_cern = sum(job.read_bytes for job in jobs if job.server == "T2_CH_CERN")
        by_kind = {row["kind"]: int(row["n"]) for row in read if row["n"] is not None}
        assert by_kind["xrootd"] == by_kind["cmssw"] == by_kind["condor"] == whole
        assert by_kind["eos"] == at_cern


def test_a_record_that_comes_twice_counts_once(cache: Path, tmp_path: Path) -> None:
    read = {
        "unique_id": "a", "file_lfn": "/store/mc/E/P/AOD/v1/1/a.root", "start_time": 1488325657, "end_time": 1488326400,
        "read_bytes_at_close": 7, "throughput": 1.0, "src_site": "T2_CH_CERN",
    }  # fmt: skip
    (tmp_path / "one").write_text(json.dumps(read))
    (tmp_path / "two").write_text(json.dumps([read, read | {"unique_id": "b"}]))
    import_logs("xrootd", [tmp_path / "one", tmp_path / "two"])
    with logs_in_memory(open_cache(load_settings())) as connection:
        assert rows(connection, "SELECT sum(nbytes)::BIGINT AS n FROM log_transfers") == [{"n": 14}]


def test_insight_failures(grid: tuple[GridLogs, Path], ask: Ask) -> None:
    found = [row for row in ask("failures") if row["what"] == "jobs"]
    assert [row["site"] for row in found[:3]] == [grid[0].failing_site] * 3  # condor, jobmonitoring, wmarchive
    assert all(0.25 < row["failure_rate"] < 0.55 for row in found[:3])
    assert all(row["failure_rate"] < 0.15 for row in found[3:])
    jobs = [job for job in grid[0].world.jobs if job.site == grid[0].failing_site]
    assert (found[0]["total"], found[0]["failed"]) == (len(jobs), sum(job.exit_code != 0 for job in jobs))


def test_insight_cold(grid: tuple[GridLogs, Path], ask: Ask) -> None:
    found = ask("cold")
    cold = grid[0].world.cold
    assert all(row["idle_days"] >= 90 for row in found)
    (row,) = [row for row in found if row["dataset"] == cold.name]
    assert row["sites"] == sorted(cold.replicas)
    assert row["nbytes"] == cold.files * cold.file_bytes * len(cold.replicas)
    assert row["idle_days"] >= 178


def test_insight_hot_without_replica(grid: tuple[GridLogs, Path], ask: Ask) -> None:
    found = ask("hot_without_replica")
    assert (found[0]["dataset"], found[0]["site"]) == (grid[0].hot_dataset, grid[0].hot_site)
    assert grid[0].hot_site not in found[0]["replicas"]
    replicas = {one.name: one.replicas for one in grid[0].world.datasets}
    assert all(row["site"] not in replicas[row["dataset"]] for row in found)


def test_insight_cpu_efficiency(grid: tuple[GridLogs, Path], ask: Ask) -> None:
    found = {
        row["site"]: row
        for row in ask("cpu_efficiency")
        if row["kind"] == "condor" and row["mb_per_second_from"] is None
    }
    slow = found.pop(grid[0].slow_site)
    assert slow["cpu_efficiency"] < 0.8 < min(row["cpu_efficiency"] for row in found.values())
    assert slow["mb_per_second"] < 1.6 < min(row["mb_per_second"] for row in found.values())
    assert slow["waiting_share"] > 0.1


def test_insight_site_traffic(grid: tuple[GridLogs, Path], ask: Ask) -> None:
    found = [row for row in ask("site_traffic") if row["kind"] == "xrootd"]
    jobs = grid[0].world.jobs
    for site in SITES:
        ours = [row for row in found if row["site"] == site]
        assert sum(row["sent_bytes"] for row in ours) == sum(job.read_bytes for job in jobs if job.server == site)
        assert sum(row["received_bytes"] for row in ours) == sum(job.read_bytes for job in jobs if job.site == site)
    remote = sum(job.read_bytes for job in jobs if job.site != job.server)
    assert sum(row["remote_bytes"] for row in found) == 2 * remote  # it leaves one site and comes to another


def test_insights_without_logs(cache: Path) -> None:
    assert ask_insight("insight_cold").num_rows == ask_insight("failures").num_rows == 0
    assert len(insight_names()) == 5
    with pytest.raises(NotFoundError, match="nearest names: 'failures'"):
        ask_insight("failure")
