"""Who builds when many ask: one of them, and nobody waits for one that is dead, stopped, or out of sight."""

import fcntl
import multiprocessing
import os
import platform
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.faults.processes import Child, results, touch_first, wait_for

from storagering.api import append, convert, verify
from storagering.cache.dataset import open_dataset
from storagering.cache.layout import Cache, open_cache
from storagering.cache.progress import BuildProgress
from storagering.config import load_settings
from storagering.errors import LockTimeoutError, SpecError
from storagering.files import FileLock, make_directory
from storagering.testing.http import http_server
from storagering.testing.toys import write_toy_tree

ENTRIES = 2000


class Told(BuildProgress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def tell(self, message: str) -> None:
        self.messages.append(message)


class Accident(BuildProgress):
    """Sends a signal to the first process that has done so many pieces of the work; notes who had what to do."""

    def __init__(self, marker: Path, number: signal.Signals, after: int = 1) -> None:
        self._marker, self._number, self._left = marker, number, after

    def start(self, total_entries: int) -> None:
        self._marker.with_name(f"{self._marker.name}-{os.getpid()}").write_text(str(total_entries))

    def advance(self, entries: int, decoded_bytes: int) -> None:  # noqa: ARG002
        self._left -= 1
        if self._left == 0 and touch_first(self._marker):
            self._marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), self._number)


def build(url: str, progress: BuildProgress | None = None, **options: Any) -> str:
    usual: dict[str, Any] = {"name": "toy", "workers": 1, "chunk_bytes": 10_000}
    return str(convert(url, progress=progress, **usual | options).manifest.digest)


def build_after(barrier: Any, url: str, progress: BuildProgress | None = None) -> str:
    barrier.wait(60)
    return build(url, progress)


def build_slowly(url: str) -> str:
    class Slow(BuildProgress):
        def advance(self, entries: int, decoded_bytes: int) -> None:  # noqa: ARG002
            time.sleep(0.2)

    return build(url, Slow())


def build_out_of_sight(barrier: Any, url: str) -> str:
    """Build on a machine that sees no lock of others."""
    fcntl.flock = lambda _descriptor, _mode: None
    platform.node = lambda: "elsewhere"
    return build_after(barrier, url)


def append_and_stop(url: str, marker: Path) -> None:
    append("toy", url, workers=1, progress=Accident(marker, signal.SIGSTOP))


@pytest.fixture
def opened() -> Cache:
    return open_cache(load_settings())


@pytest.fixture
def served(tmp_path: Path) -> Any:
    folder = tmp_path / "in"
    folder.mkdir()
    write_toy_tree(folder / "toy.root", entries=ENTRIES, basket_entries=100)
    with http_server(folder) as server:
        yield server


@pytest.fixture
def url(served: Any) -> str:
    return str(served.url("toy.root"))


@pytest.fixture
def alone(served: Any, opened: Cache, url: str) -> tuple[str, int]:
    """The digest that any number of builders must come to, and the requests that one of them makes."""
    digest = build(url)
    opened.remove("toy")
    requests = len(served.requests)
    served.requests.clear()
    return digest, requests


def barrier_of(number: int) -> Any:
    return multiprocessing.get_context("forkserver").Barrier(number)


def check_clean(opened: Cache) -> None:
    assert not list((opened.root / "staging").iterdir())
    assert len(open_dataset("toy").arrays()) == ENTRIES


@pytest.mark.scenario(24, 30)
def test_32_processes_ask_at_once_and_one_reads_the_source(
    served: Any, url: str, alone: tuple[str, int], opened: Cache
) -> None:
    """As 8 ranks of 4 workers each do."""
    barrier = barrier_of(32)
    assert set(results([Child(build_after, barrier, url) for _ in range(32)])) == {alone[0]}
    assert len(served.requests) == alone[1]
    check_clean(opened)


@pytest.mark.scenario(25)
def test_another_takes_over_from_one_that_is_killed(
    url: str, alone: tuple[str, int], opened: Cache, tmp_path: Path
) -> None:
    barrier, marker = barrier_of(8), tmp_path / "marker"
    children = [Child(build_after, barrier, url, Accident(marker, signal.SIGKILL, after=10)) for _ in range(8)]
    wait_for(lambda: marker.exists() and marker.read_text() != "")
    begin, killed = time.monotonic(), marker.read_text()
    wait_for(lambda: opened.build_lock("toy").holder() not in (killed, "?"))
    assert time.monotonic() - begin < 5.0
    [victim] = [child for child in children if str(child.pid) == killed]
    assert victim.join() == -signal.SIGKILL
    assert set(results(child for child in children if child is not victim)) == {alone[0]}
    todo = {path.name.rpartition("-")[2]: int(path.read_text()) for path in tmp_path.glob("marker-*")}
    assert todo.pop(killed) == ENTRIES
    [left] = todo.values()
    assert left < ENTRIES, "what was done was done again"
    check_clean(opened)


@pytest.mark.scenario(26)
def test_two_machines_that_see_no_lock_of_each_other(
    url: str, alone: tuple[str, int], opened: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGERING_SHARED", "true")
    for _ in range(2):
        barrier = barrier_of(2)
        machines = [Child(build_after, barrier, url), Child(build_out_of_sight, barrier, url)]
        assert results(machines) == [alone[0]] * 2
        check_clean(opened)
        opened.remove("toy")


@pytest.mark.scenario(26)
def test_work_of_another_machine_is_left_alone(url: str, opened: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here can know whether that machine is at it."""
    monkeypatch.setenv("STORAGERING_SHARED", "true")
    there = opened.root / "staging" / "toy.0123456789abcdef@12345678"
    there.mkdir()
    there.with_name(f"{there.name}.lock").touch()
    build(url)
    open_cache(load_settings()).remove("toy")
    assert there.exists()


@pytest.mark.scenario(34)
def test_a_stopped_builder_stops_nobody(
    served: Any, url: str, alone: tuple[str, int], opened: Cache, tmp_path: Path
) -> None:
    """Of those who give it up one builds; it finds that it has lost when it goes on."""
    stopped = Child(build, url, Accident(tmp_path / "marker", signal.SIGSTOP))
    stopped.wait_until_stopped()
    served.requests.clear()
    told = Told()
    settings = load_settings(lock_timeout_seconds=0.5)
    others = [Child(build_in_time, url, 0.5) for _ in range(3)]
    assert build(url, told, settings=settings) == alone[0]
    assert results(others) == [alone[0]] * 3
    assert len(served.requests) == alone[1]
    assert f"waiting for process {stopped.pid}" in told.messages[0]
    assert f"process {stopped.pid}, which holds {opened.root}/locks/toy.lock, does nothing" in told.messages[1]
    stopped.go_on()
    assert stopped.result() == alone[0]
    check_clean(opened)


def build_in_time(url: str, seconds: float) -> str:
    return build(url, settings=load_settings(lock_timeout_seconds=seconds))


@pytest.mark.scenario(34)
def test_a_stopped_builder_that_wanted_something_else_is_told(url: str, opened: Cache, tmp_path: Path) -> None:
    stopped = Child(refused, url, tmp_path / "marker")
    stopped.wait_until_stopped()
    build_in_time(url, 0.1)
    stopped.go_on()
    assert "columns" in stopped.result()
    check_clean(opened)


def refused(url: str, marker: Path) -> str:
    with pytest.raises(SpecError, match="made otherwise") as caught:
        build(url, Accident(marker, signal.SIGSTOP), columns=["run"])
    return str(caught.value)


@pytest.mark.scenario(34)
def test_a_slow_builder_is_waited_for(served: Any, url: str, alone: tuple[str, int], opened: Cache) -> None:
    slow = Child(build_slowly, url)
    wait_for(lambda: opened.build_lock("toy").holder() == str(slow.pid))
    assert build_in_time(url, 2.0) == alone[0]
    assert len(served.requests) == alone[1]
    assert slow.result() == alone[0]


@pytest.mark.scenario(34)
def test_nothing_is_changed_beside_a_stopped_append(url: str, opened: Cache, tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "more.root", entries=10)
    build(url)
    stopped = Child(append_and_stop, str(tmp_path / "more.root"), tmp_path / "marker")
    stopped.wait_until_stopped()
    settings = load_settings(lock_timeout_seconds=0.1)
    for change in (
        lambda: append("toy", str(tmp_path / "more.root"), settings=settings),
        lambda: verify("toy", repair=True, settings=settings),
    ):
        with pytest.raises(LockTimeoutError, match=f"process {stopped.pid} held"):
            change()
    opened.remove("toy")
    with pytest.raises(LockTimeoutError, match=f"process {stopped.pid}.* may still change dataset 'toy': end it"):
        build_in_time(url, 0.1)
    stopped.kill()
    build_in_time(url, 0.1)
    check_clean(opened)


@pytest.mark.scenario(34)
def test_what_is_in_the_way_is_removed_by_the_holder_of_the_lock_only(url: str, opened: Cache) -> None:
    make_directory(opened.path("toy") / "sub")
    other = FileLock(opened.build_lock("toy").path)
    assert other.try_acquire()
    with pytest.raises(LockTimeoutError, match="is in the way of dataset 'toy', and is none: remove it"):
        build_in_time(url, 0.1)
    assert (opened.path("toy") / "sub").is_dir()
    other.release()
    build(url)
    check_clean(opened)
