"""Journals and their catalog while processes die at any moment: no acknowledged row is lost, none comes twice."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.faults.processes import Child, wait_for

from storagering.cache import journal
from storagering.cache.accesses import ACCESSES, Taken, note_access
from storagering.cache.journal import journal_folder
from storagering.cache.layout import Cache, open_cache
from storagering.catalog import accesses, journals
from storagering.config import load_settings
from storagering.files import FileLock, list_directory
from storagering.testing.crashes import Forks, Scenario, Trial, run_at_every_point
from storagering.testing.faults import Fault, Kill, Refusal

PROCESSES = 8
#: So that journals end, and archives are made and merged, often.
SMALL = {"_ENOUGH_BYTES": 4000}
FEW = {"_MANY": 4, "_SMALL_BYTES": 1 << 14}


def take_in(cache: Cache) -> int:
    """As the catalog does: in one transaction, under a lock."""
    with (
        FileLock(cache.root / "index.lock").held(60),
        closing(duckdb.connect(str(cache.root / "index.duckdb"), config={"threads": 1})) as connection,
    ):
        for name, columns in accesses.TABLES.items():
            connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
        connection.begin()
        rows = accesses.enter(connection, cache)
        connection.commit()
        connection.execute("CHECKPOINT")
        return rows


def rows_of(path: str, cache: Cache | None = None) -> Counter[str]:
    """How often each line is in a catalog, which is made of the files first if they are given."""
    with closing(duckdb.connect(path)) as connection:
        if cache is not None:
            for name, columns in accesses.TABLES.items():
                connection.execute(f"CREATE TABLE {name} ({columns})")
            accesses.enter(connection, cache)
        return Counter(name for (name,) in connection.execute("SELECT dataset FROM accesses").fetchall())


def note(cache: Cache, name: str) -> bool:
    return note_access(cache, name, "loader", ["x"], Taken(1, 2, 3, 0), seconds=0.1)


def write_for_ever(root: Path) -> None:
    """Append, and take in now and then, or lose the catalog; what was acknowledged is noted after the call."""
    for module, values in ((journal, SMALL), (journals, FEW)):
        for name, value in values.items():
            setattr(module, name, value)
    cache, rng = open_cache(load_settings(cache=root)), random.Random(os.getpid())
    log = os.open(root / f"acknowledged-{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    number = 0
    while True:
        for _ in range(rng.randrange(40)):
            name = f"{os.getpid()}-{number}"
            number += 1
            if note(cache, name):
                os.write(log, f"{name}\n".encode())
        take_in(cache)
        if rng.random() < 0.02:
            with FileLock(root / "index.lock").held(60):
                for file in ("index.duckdb", "index.duckdb.wal"):
                    (root / file).unlink(missing_ok=True)


def acknowledged(root: Path) -> set[str]:
    return {name for path in root.glob("acknowledged-*") for name in path.read_text().splitlines()}


@pytest.mark.scenario(6)
@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.soak)])
def test_processes_write_take_in_and_are_killed(
    cache: Path, seconds: float, record_property: Callable[[str, object], None]
) -> None:
    opened = open_cache(load_settings())
    children = [Child(write_for_ever, cache) for _ in range(PROCESSES)]
    rng, kills, end = random.Random(1), 0, time.monotonic() + seconds
    try:
        wait_for(lambda: len(acknowledged(cache)) > 100)
        while time.monotonic() < end:
            time.sleep(rng.uniform(0, 0.15))  # any moment may be the one
            number = rng.randrange(PROCESSES)
            children[number].kill()
            kills += 1
            children[number] = Child(write_for_ever, cache)
    finally:
        for child in children:
            child.kill()
    take_in(opened)
    known, kept = acknowledged(cache), rows_of(str(cache / "index.duckdb"))
    assert not known - kept.keys(), "acknowledged rows are lost"
    assert set(kept.values()) == {1}, "rows came twice"
    # A row more for each kill: written, and killed before it could be noted that it was.
    assert len(kept) - len(known) <= kills + PROCESSES
    assert rows_of(":memory:", opened) == kept
    files = len(list_directory(journal_folder(opened, ACCESSES)))
    assert files < 30 + PROCESSES
    record_property(
        "figure", f"journals: {kills} kills, {len(known):,} rows acknowledged, all there once, in {files} files"
    )


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as made:
        yield made


def prepare(root: Path) -> None:
    """Finished journals, an archive of some, and a catalog that knows half of it."""
    cache = open_cache(load_settings(cache=root))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "_ENOUGH_BYTES", 1)
        patch.setattr(journals, "_MANY", 3)
        for number in range(12):
            assert note(cache, f"{number:02}")
            if number == 6:
                take_in(cache)


def act(root: Path) -> list[str]:
    cache = open_cache(load_settings(cache=root))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "_MANY", 3)
        take_in(cache)
    return sorted(rows_of(str(root / "index.duckdb")).elements())


def check(trial: Trial) -> None:
    cache = open_cache(load_settings(cache=trial.root))
    expected = Counter(f"{number:02}" for number in range(12))
    assert rows_of(":memory:", cache) == expected
    if trial.finished is not None:
        assert trial.finished.result == sorted(expected)


@pytest.mark.scenario(6, 9)
@pytest.mark.parametrize("fault", [Kill(), Kill(partly=True), Refusal(28, partly=True, lasting=True)], ids=str)
def test_taking_in_is_struck_at_each_point(forks: Forks, tmp_path: Path, fault: Fault) -> None:
    points = run_at_every_point(forks, tmp_path, Scenario(prepare, act, check), fault, every=2)
    assert len(points) > (0 if isinstance(fault, Kill) and fault.partly else 1)


@pytest.mark.scenario(31)
def test_a_fork_of_a_dead_process_keeps_nothing_from_an_archive(cache: Path) -> None:
    """A child inherits the lock of its parent's journal: it waits for an archive until the child is dead, too."""
    opened = open_cache(load_settings())
    child = Child(fork_and_die, cache)
    pid = child.result()
    with suppress(AssertionError):
        child.join()
    [path] = journal.list_journals(opened, ACCESSES)
    with journal.kept_finished(path) as finished:
        assert not finished
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_finished(path))
    assert rows_of(":memory:", opened) == Counter(["parent"])


def is_finished(path: Path) -> bool:
    with journal.kept_finished(path) as finished:
        return finished


def fork_and_die(root: Path) -> Any:
    assert note(open_cache(load_settings(cache=root)), "parent")
    pid = os.fork()
    if not pid:
        signal.pause()
    return pid
