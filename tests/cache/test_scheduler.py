"""Conversion on a dask cluster: real schedulers and workers, each a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.extras import needs

from storagering.api import append, convert
from storagering.cache.layout import open_cache
from storagering.cache.progress import BuildProgress
from storagering.config import load_settings
from storagering.errors import CorruptDataError, SpecError, UnreachableError, WorkerDiedError
from storagering.testing.http import http_server
from storagering.testing.toys import write_toy_tree
from storagering.types import Manifest

pytestmark = needs("distributed")

FILES, ENTRIES = 6, 2000
TOKEN = "CANARY-s3cr3t"


class Cluster:
    """A scheduler and workers of one thread each, without nannies that would start them again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._processes = folder, list[subprocess.Popen[bytes]]()
        self._log = (folder / "log").open("wb")
        self._file = folder / "scheduler.json"
        words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self._file)]
        self._start("dask_scheduler", *words)
        self.workers: list[subprocess.Popen[bytes]] = []

    def add_worker(self) -> None:
        words = ["--scheduler-file", str(self._file), "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        self.workers.append(self._start("dask_worker", *words, "--local-directory", str(self._folder)))

    def _start(self, module: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}", *words]
        self._processes.append(subprocess.Popen(command, stdout=self._log, stderr=self._log, cwd=self._folder))
        return self._processes[-1]

    @property
    def address(self) -> str:
        """Where the scheduler listens; waits until all workers are there."""
        import distributed

        with distributed.Client(scheduler_file=str(self._file), timeout=60, set_as_default=False) as client:
            client.wait_for_workers(len(self.workers), timeout=60)
            return str(client.scheduler.address)

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text()

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(20)
        self._log.close()


@contextmanager
def cluster_in(folder: Path, workers: int) -> Iterator[Cluster]:
    folder.mkdir()
    cluster = Cluster(folder)
    try:
        for _ in range(workers):
            cluster.add_worker()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("in")
    for number in range(FILES):
        write_toy_tree(found / f"{number}.root", entries=ENTRIES, seed=number, basket_entries=250)
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_in(tmp_path_factory.mktemp("dask") / "cluster", 2) as made:
        yield made


class Killer(BuildProgress):
    """Ends a process as soon as the first work is done."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.done = 0

    def advance(self, entries: int, decoded_bytes: int) -> None:  # noqa: ARG002
        self._process.kill()
        self.done += entries


def build(folder: Path, name: str, **options: Any) -> Manifest:
    usual: dict[str, Any] = {"chunk_bytes": 100_000, "where": "MET_pt > 5", "define": {"HT": "sum(Jet_pt)"}}
    return convert(str(folder / "*.root"), name=name, **usual | options).manifest


def test_one_process_two_processes_and_a_cluster_make_the_same_dataset(folder: Path, cluster: Cluster) -> None:
    one, two = build(folder, "one", workers=1), build(folder, "two", workers=2)
    many = build(folder, "many", scheduler=cluster.address)
    assert len(many.chunks) > FILES
    assert replace(many, name="one", digest=one.digest) == replace(two, name="one", digest=one.digest) == one
    cache = open_cache(load_settings())
    for chunk in one.chunks:
        assert (cache.path("many") / chunk.file).read_bytes() == (cache.path("one") / chunk.file).read_bytes()


def test_the_same_when_a_worker_is_killed_midway(folder: Path, tmp_path: Path) -> None:
    whole = build(folder, "whole", workers=1)
    with cluster_in(tmp_path / "cluster", 2) as cluster:
        killer = Killer(cluster.workers[0])
        made = build(folder, "made", scheduler=cluster.address, progress=killer)
        assert cluster.workers[0].poll() is not None
    assert killer.done == FILES * ENTRIES
    assert replace(made, name="whole", digest=whole.digest) == whole


def test_a_build_that_is_interrupted_leaves_others_alone(folder: Path, cluster: Cluster, tmp_path: Path) -> None:
    """Of the same files, so that their tasks have the same keys."""

    class Interrupted(BuildProgress):
        def advance(self, entries: int, decoded_bytes: int) -> None:  # noqa: ARG002
            raise KeyboardInterrupt

    class Other(BuildProgress):
        done = 0

        def advance(self, entries: int, decoded_bytes: int) -> None:  # noqa: ARG002
            self.done += entries
            if self.done == entries:
                settings = replace(load_settings(), cache=tmp_path / "elsewhere")
                with pytest.raises(KeyboardInterrupt):
                    build(folder, "x", scheduler=address, settings=settings, progress=Interrupted())

    address, other = cluster.address, Other()
    made = build(folder, "x", scheduler=address, progress=other)
    assert other.done == sum(source.entries for source in made.sources) == FILES * ENTRIES


def test_append_on_a_cluster(folder: Path, cluster: Cluster) -> None:
    sources = [str(folder / f"{number}.root") for number in range(3)]
    for name, scheduler in (("here", "processes"), ("there", cluster.address)):
        convert(sources[:2], name=name, chunk_bytes=100_000, workers=1)
        append(name, sources[2], scheduler=scheduler, workers=1)
    cache = open_cache(load_settings())
    assert cache.manifest("there").chunks == cache.manifest("here").chunks


def test_errors_name_the_source_and_no_log_holds_a_token(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    data = bytearray((folder / "0.root").read_bytes())
    data[len(data) // 3 : len(data) // 3 + 4000] = bytes(4000)
    (tmp_path / "in" / "bad.root").write_bytes(data)
    with http_server(tmp_path / "in") as server, cluster_in(tmp_path / "cluster", 1) as cluster:
        with pytest.raises(CorruptDataError, match=r"bad\.root") as caught:
            convert(
                f"{server.url('bad.root')}?authz={TOKEN}",
                name="x",
                columns=["image", "Jet_*"],
                scheduler=cluster.address,
            )
        log = cluster.log
    assert TOKEN not in log
    assert TOKEN not in str(caught.value)


def test_a_scheduler_that_is_not_there(folder: Path) -> None:
    settings = replace(load_settings(), connect_timeout_seconds=1)
    with pytest.raises(UnreachableError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9"):
        build(folder, "x", scheduler="tcp://127.0.0.1:9", settings=settings)
    with pytest.raises(SpecError, match="'processes'"):
        build(folder, "x", scheduler="slurm")


def test_a_cluster_that_goes_away_leaves_what_was_done(folder: Path, tmp_path: Path) -> None:
    with cluster_in(tmp_path / "cluster", 1) as cluster:
        killer = Killer(cluster._processes[0])
        with pytest.raises((UnreachableError, WorkerDiedError), match="same command goes on"):
            build(folder, "x", scheduler=cluster.address, progress=killer)
    (left,) = open_cache(load_settings()).unfinished()
    assert left.name == "x"
    made = build(folder, "x", workers=1)
    assert replace(made, name="", digest="") == replace(build(folder, "y", workers=1), name="", digest="")
