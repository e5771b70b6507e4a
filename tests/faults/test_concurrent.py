"""Several processes at once: one builds and all get the same; readers see nothing or the whole."""

import subprocess
import sys
from pathlib import Path

import pytest

from storagering.api import convert
from storagering.cache.dataset import open_dataset
from storagering.cache.layout import open_cache
from storagering.catalog.query import sql
from storagering.config import load_settings
from storagering.files import FileLock
from storagering.testing.http import http_server
from storagering.testing.toys import write_toy_tree

CONVERT = """
import sys
import storagering as sr
print(sr.convert(sys.argv[1], name="toy", workers=1, chunk_bytes=100_000).manifest.digest)
"""
INDEX = """
import sys
from storagering.cache.layout import open_cache
from storagering.catalog.index import index_dataset
from storagering.config import load_settings
import storagering as sr
for number in range(3):
    sr.convert(sys.argv[1], name=f"d{sys.argv[2]}_{number}", workers=1, columns=["run"])
    cache = open_cache(load_settings())
    index_dataset(cache, f"d{sys.argv[2]}_0")
    assert sr.sql("SELECT count(*) FROM datasets").column(0)[0].as_py() > number
"""
WATCH = """
import sys, time
from storagering.cache.layout import open_cache
from storagering.cache.dataset import open_dataset
from storagering.config import load_settings
cache = open_cache(load_settings())
print("ready", flush=True)
deadline, absent, whole = time.monotonic() + 30, 0, 0
while whole < 20 and time.monotonic() < deadline:
    if cache.names():
        assert len(open_dataset("toy", cache=cache).arrays()) == 4000
        whole += 1
    else:
        absent += 1
print(absent, whole)
"""


def start(code: str, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def outputs(processes: "list[subprocess.Popen[str]]") -> list[str]:
    found = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert not err, err
        found.append(out.strip())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 8])
def test_one_of_many_builds_and_all_succeed(tmp_path: Path, processes: int) -> None:
    (tmp_path / "in").mkdir()
    write_toy_tree(tmp_path / "in" / "toy.root", entries=4000, basket_entries=500)
    with http_server(tmp_path / "in") as server:
        outputs([start(CONVERT, server.url("toy.root"))])
        alone = len(server.requests)
        open_cache(load_settings()).remove("toy")
        digests = outputs([start(CONVERT, server.url("toy.root")) for _ in range(processes)])
        assert len(set(digests)) == 1
        assert len(server.requests) == 2 * alone, "the source was read by more than one of them"
    assert open_dataset("toy").manifest.digest == digests[0]
    assert not list((open_cache(load_settings()).root / "staging").iterdir())


@pytest.mark.slow
def test_no_row_of_the_catalog_is_lost(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=50)
    outputs([start(INDEX, str(tmp_path / "toy.root"), str(number)) for number in range(8)])
    names = sql("SELECT name FROM datasets ORDER BY name").column(0).to_pylist()
    assert names == sorted(f"d{p}_{n}" for p in range(8) for n in range(3))
    assert sql("SELECT count(*) FROM columns").column(0).to_pylist() == [len(names)]
    assert not list(tmp_path.glob("cache/*corrupt*"))


def test_a_reader_sees_nothing_or_the_whole(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=4000, basket_entries=500)
    watcher = start(WATCH)
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "ready\n"
    convert(str(tmp_path / "toy.root"), name="toy", workers=1, chunk_bytes=50_000)
    absent, whole = map(int, outputs([watcher])[0].split())
    assert absent > 0
    assert whole == 20


def test_whoever_waits_is_told_and_gives_up_in_time(tmp_path: Path) -> None:
    from storagering.cache.progress import BuildProgress
    from storagering.errors import LockTimeoutError

    class Told(BuildProgress):
        def __init__(self) -> None:
            self.messages: list[str] = []

        def tell(self, message: str) -> None:
            self.messages.append(message)

    write_toy_tree(tmp_path / "toy.root", entries=10)
    settings = load_settings(lock_timeout_seconds=0.2)
    lock = open_cache(settings).build_lock("toy")
    other = FileLock(lock.path)
    assert other.try_acquire()
    told = Told()
    with pytest.raises(LockTimeoutError, match=r"toy\.lock"):
        convert(str(tmp_path / "toy.root"), name="toy", settings=settings, progress=told)
    assert len(told.messages) == 1
    assert "waiting for process" in told.messages[0]
    other.release()
    assert len(convert(str(tmp_path / "toy.root"), name="toy", settings=settings)) == 10
