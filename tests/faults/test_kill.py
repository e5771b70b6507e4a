"""Conversions that are killed at any moment: nothing partial is ever seen, and the same command finishes the job."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from tests.faults.processes import Child

from storagering.api import convert
from storagering.cache.dataset import open_dataset
from storagering.cache.layout import Cache, open_cache
from storagering.cache.messages import decode_reply
from storagering.config import load_settings
from storagering.errors import WorkerDiedError
from storagering.testing.toys import toy_columns, write_toy_tree

ENTRIES = 12_000
SCRIPT = """
import sys
import storagering as sr
print(sr.convert(sys.argv[1], name="toy", workers=2, chunk_bytes=100_000).manifest.digest)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "toy.root"
    write_toy_tree(path, entries=ENTRIES, basket_entries=1000)
    return path


def start(source: Path, script: str = SCRIPT) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", script, str(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def check_absent_or_whole(cache: Cache) -> bool:
    """Whether the dataset is there; if so, everything in it must be readable and right."""
    if not cache.names():
        return False
    assert cache.names() == ["toy"]
    dataset = open_dataset("toy", cache=cache)
    event = dataset.arrays().event
    np.testing.assert_array_equal(event, toy_columns(ENTRIES)["event"])
    return True


def leftovers(cache: Cache) -> list[str]:
    hidden = [p.name for p in (cache.root / "datasets").iterdir() if p.name.startswith(".")]
    return [p.name for p in (cache.root / "staging").iterdir()] + hidden


def wait_until_gone(sessions: list[int]) -> float:
    """Seconds until no process of those sessions is left."""
    begin = time.monotonic()
    while alive := [s for s in sessions if _exists(s)]:
        assert time.monotonic() - begin < 20, f"orphaned workers: {alive}"
        time.sleep(0.02)
    return time.monotonic() - begin


def _exists(session: int) -> bool:
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def build(source: Path) -> str:
    return str(convert(str(source), name="toy", workers=2, chunk_bytes=100_000).manifest.digest)


@pytest.mark.parametrize("kills", [6, pytest.param(400, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_a_conversion_killed_at_any_moment(source: Path, kills: int) -> None:
    cache = open_cache(load_settings())
    Child(build, source).result()
    cache.remove("toy")
    begin = time.monotonic()
    whole = Child(build, source).result()
    duration = time.monotonic() - begin
    assert check_absent_or_whole(cache)
    cache.remove("toy")

    rng = random.Random(kills)
    sessions, survived, halfway = [], 0, 0
    for number in range(kills):
        child = Child(build, source)
        sessions.append(child.pid)
        time.sleep(duration * rng.uniform(0.0 if number % 3 == 0 else 0.5, 1.1))
        child.process.kill()
        child.join()
        halfway += any(path.is_dir() for path in (cache.root / "staging").iterdir())
        if published := check_absent_or_whole(cache):
            survived += 1
            duration *= 0.9  # the machine was slower when it was measured
        if published or number % 6 == 0:
            assert Child(build, source).result() == whole
            assert not leftovers(cache)
            assert check_absent_or_whole(cache)
            cache.remove("toy")
    assert survived < 0.7 * kills, "too many were killed too late to matter"
    assert halfway > kills / 6, "too few were killed while they wrote"
    wait_until_gone(sessions)
    assert Child(build, source).result() == whole
    assert not leftovers(cache)


def test_the_work_of_a_killed_worker_is_given_to_another(source: Path) -> None:
    """The dataset is the same as without the accident."""
    process = start(source)
    parent = psutil.Process(process.pid)
    workers: list[psutil.Process] = []
    while not workers and process.poll() is None:
        workers = parent.children()
        time.sleep(0.005)
    workers[0].kill()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    cache = open_cache(load_settings())
    cache.remove("toy")
    again, _ = start(source).communicate(timeout=60)
    assert out == again != b""
    assert not leftovers(cache)


def test_workers_end_when_their_parent_does(source: Path) -> None:
    process = start(source)
    while not (workers := psutil.Process(process.pid).children()):
        time.sleep(0.005)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


@pytest.mark.scenario(3, 30)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_conversion_leaves_nothing_but_finished_work(source: Path, number: signal.Signals) -> None:
    slowly = SCRIPT.replace("100_000", "10_000")
    process = start(source, slowly)
    while process.poll() is None and not psutil.Process(process.pid).children():
        time.sleep(0.005)
    os.killpg(process.pid, number)  # as a terminal does
    process.communicate(timeout=20)
    assert process.returncode != 0
    wait_until_gone([process.pid])
    cache = open_cache(load_settings())
    assert not cache.names()
    if number == signal.SIGINT and leftovers(cache):
        assert [build.name for build in cache.unfinished()] == ["toy"]
    assert start(source, slowly).communicate(timeout=60)[0]
    assert check_absent_or_whole(cache)
    assert not leftovers(cache)


def test_a_broken_reply_is_an_error() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_reply(b'{"chunks": [')


def test_a_worker_that_cannot_start_is_an_error(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(WorkerDiedError, match="exit code 1"):
        convert(str(source), name="toy", workers=2, chunk_bytes=100_000)
    cache = open_cache(load_settings())
    assert not cache.names()
    assert not leftovers(cache)
