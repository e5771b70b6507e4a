"""Disks that are full, read-only, broken or slow, and too few descriptors: a typed error, and all else is untouched."""

import errno
import os
import platform
import re
import resource
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.faults import work

from storagering.api import convert, verify
from storagering.cache.dataset import Dataset
from storagering.config import Settings
from storagering.disk import Disk
from storagering.errors import CacheError, CacheFullError, CorruptDataError, LockTimeoutError, ReadOnlyCacheError
from storagering.loaders.torch import DataLoader
from storagering.testing.crashes import END, Forks, Scenario, Trial, run_at_every_point
from storagering.testing.faults import Delay, FaultyDisk, Point, Refusal, count_points, faulty
from storagering.testing.toys import toy_columns, write_toy_tree
from storagering.types import StoreFormat

#: Every how manieth point is struck where not all of them are.
SOME = 6
FULL = r"needs [\d,]+ bytes, [\d,]+ are free; free some space or set STORAGERING_CACHE"
REFUSALS = {
    "full": (Refusal(errno.ENOSPC, lasting=True), CacheFullError, f"the disk is full.*{FULL}"),
    "short write": (Refusal(errno.ENOSPC, partly=True), CacheFullError, FULL),
    "quota": (Refusal(errno.EDQUOT, lasting=True), CacheFullError, f"quota is used up.*{FULL}"),
    "read-only": (Refusal(errno.EROFS, lasting=True), ReadOnlyCacheError, "set STORAGERING_CACHE to a folder"),
    "broken": (Refusal(errno.EIO, lasting=True), CacheError, os.strerror(errno.EIO)),
    "broken once": (Refusal(errno.EIO), CacheError, os.strerror(errno.EIO)),
}


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


def refuse(forks: Forks, folder: Path, action: str, how: str, **which: int) -> None:
    """Strike with a refusal: it is told, or the work is done all the same; the work can be repeated."""
    fault, kind, message = REFUSALS[how]
    struck = []

    def check(trial: Trial, inner: Callable[[Trial], None]) -> None:
        inner(trial)
        error = trial.struck.error
        struck.append(type(error))
        if error is None:  # whoever asked was told that it is done
            inner(Trial(trial.root, Point(-1, END, ""), trial.struck))
        else:
            assert type(error) is kind
            assert str(trial.root) in str(error)
            assert re.search(message, str(error))

    prepare, do, inner = {
        "build": (work.build_other, work.build, work.check_absent_or_whole),
        "append": (work.build_both, work.add, work.check_old_or_new),
    }[action]
    work.write_sources(folder)
    scenario = Scenario(prepare, do, partial(check, inner=inner))
    run_at_every_point(forks, folder, scenario, fault, **which)
    assert kind in struck


@pytest.mark.scenario(9)
@pytest.mark.scenario(10)
@pytest.mark.parametrize("how", REFUSALS)
def test_a_disk_that_refuses_now_and_then(forks: Forks, tmp_path: Path, how: str) -> None:
    refuse(forks, tmp_path, "build", how, first=list(REFUSALS).index(how), every=SOME)


@pytest.mark.soak
@pytest.mark.scenario(9)
@pytest.mark.scenario(10)
@pytest.mark.parametrize("action", ["build", "append"])
@pytest.mark.parametrize("how", REFUSALS)
def test_a_disk_that_refuses_at_any_point(forks: Forks, tmp_path: Path, how: str, action: str) -> None:
    refuse(forks, tmp_path, action, how)


class Forgetful(Disk):
    """Renames into the datasets are done, or not, and end in an error all the same, as on a server that is lost."""

    def __init__(self, *, done: bool) -> None:
        self.done = done

    def rename(self, source: Path, target: Path) -> None:
        if "datasets" not in target.parts:
            super().rename(source, target)
            return
        if self.done:
            super().rename(source, target)
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.scenario(10)
def test_what_an_error_left_open_is_read_back(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    work.write_sources(tmp_path)
    cache = work.cache_at(root)
    for number, do in enumerate((work.build, work.add)):
        with faulty(Forgetful(done=False)), pytest.raises(CacheError, match=str(root)):
            do(root)
        assert [cache.manifest(name).version for name in cache.names()] == [1] * number
        with faulty(Forgetful(done=True)):
            assert do(root) == cache.manifest("toy").digest
        assert cache.manifest("toy").version == number + 1
        assert verify("toy", settings=cache.settings) == ()
        assert not list((root / "staging").iterdir())
    known = 3 + 2 + len(cache.manifest("toy").chunks)
    assert len(list(cache.path("toy").iterdir())) == known, "files that no manifest knows of"


ENTRIES = 200


@pytest.fixture
def toy(tmp_path: Path) -> str:
    write_toy_tree(tmp_path / "toy.root", entries=ENTRIES, basket_entries=50)
    return str(tmp_path / "toy.root")


def load(dataset: Dataset) -> list[int]:
    """All event numbers, by way of a loader."""
    with DataLoader(dataset, 64, {"id": "event"}, shuffle=None, threads=2) as loader:
        return [int(number) for batch in loader for number in batch["id"]]


@pytest.mark.scenario(10)
@pytest.mark.parametrize("store", ["zarr", "parquet"])
@pytest.mark.parametrize("read", [load, lambda dataset: dataset.arrays()], ids=["loader", "arrays"])
def test_a_disk_that_cannot_read(
    toy: str, store: StoreFormat, read: Callable[[Dataset], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGERING_JOURNAL", "0")  # threads that read a chunk again would move the fault to it
    dataset = convert(toy, name="toy", workers=1, chunk_bytes=13_000, format=store)
    read(dataset)  # the first one makes the ledger
    points = [point for point in count_points(lambda: read(dataset), reads=True) if "chunk-" in point.path]
    sure = 2 * len(dataset.manifest.chunks)  # a loader's threads may read a chunk again that two windows need
    assert len(points) >= sure
    for number, point in list(enumerate(points))[:: -(-len(points) // 12)]:
        disk = FaultyDisk(point.number, Refusal(errno.EIO))
        told = None
        try:
            with faulty(disk):
                read(dataset)
        except CorruptDataError as error:
            told = str(error)
        if told is not None or number < sure:
            assert re.search(r"chunk-.*cannot be read back from the disk.*verify", told or "nothing was told")
    assert load(dataset) == [int(number) for number in toy_columns(ENTRIES)["event"]]


@pytest.mark.scenario(10)
def test_chunks_that_cannot_be_read_are_made_again(toy: str) -> None:
    chunk = convert(toy, name="toy", workers=1, chunk_bytes=13_000).manifest.chunks[1]
    reads = count_points(lambda: verify("toy"), reads=True)
    number = next(p.number for p in reads if p.operation == "load" and p.path.endswith(chunk.file))
    with faulty(FaultyDisk(number, Refusal(errno.EIO))):
        (fault,) = verify("toy")
    assert (fault.file, fault.why) == (chunk.file, "the disk cannot read it")
    with faulty(FaultyDisk(number, Refusal(errno.EIO))):
        assert verify("toy", repair=True) == ()
    with faulty(FaultyDisk(reads[0].number + 1, Refusal(errno.EMFILE))), pytest.raises(CacheError, match="chunk-"):
        verify("toy")  # not a word of damage


def cut_while_open(root: Path, store: StoreFormat) -> str:
    """A chunk is cut by somebody else after a reader has opened it."""
    settings = Settings(root, workers=1, threads=1)
    dataset = convert(str(root.parent / "toy.root"), name="toy", settings=settings, format=store)
    reader = dataset.open_chunk(dataset.manifest.chunks[0])
    os.truncate(dataset.path / dataset.manifest.chunks[0].file, 100)
    try:
        reader.read_column("image")
    except CorruptDataError as error:
        return str(error)
    return ""


@pytest.mark.scenario(10)
@pytest.mark.scenario(15)
@pytest.mark.parametrize("store", ["zarr", "parquet"])
@pytest.mark.skipif(
    tuple(map(int, platform.release().split(".")[:2])) < (5, 14), reason="such a kernel can only end the process"
)
def test_bytes_that_go_while_they_are_mapped(forks: Forks, toy: str, tmp_path: Path, store: StoreFormat) -> None:
    """A real fault of a mapped page, as a broken disk makes it: an error, and the process lives."""
    ended = forks.run(partial(cut_while_open, store=store), tmp_path / "cache")
    assert "cannot be read back from the disk" in ended.result


def build_and_load(root: Path, descriptors: int, workers: int = 1) -> list[int]:
    """Build and read with so few descriptors that are free."""
    settings = Settings(root, workers=workers, threads=2)
    used = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    free = [number for number in range(4096) if number not in used]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[descriptors], resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    sources = [str(root.parent / f"toy-{number}.root") for number in range(3)]
    return load(convert(sources, name="toy", settings=settings, chunk_bytes=13_000, on_bad_source="skip"))


@pytest.mark.scenario(13)
def test_too_few_descriptors(forks: Forks, tmp_path: Path) -> None:
    """A typed error or all entries, never some of them."""
    work.write_sources(tmp_path)
    whole = forks.run(partial(build_and_load, descriptors=1000), tmp_path / "cache").result
    assert len(whole) == sum(work.ENTRIES)
    refused = 0
    for descriptors, workers in ((1, 1), (2, 1), (3, 1), (4, 1), (10, 2), (64, 2)):
        few = partial(build_and_load, descriptors=descriptors, workers=workers)
        built, read = forks.run(few, tmp_path / f"cache-{descriptors}"), forks.run(few, tmp_path / "cache")
        refused += built.error is not None
        assert built.error is not None or built.result == whole
        assert read.error is not None or read.result == whole
    assert built.error is read.error is None
    assert refused >= 3


@pytest.mark.scenario(16)
def test_a_disk_slower_than_the_timeout(forks: Forks, tmp_path: Path) -> None:
    """Whoever wants the dataset waits as long as its build gets on; whoever wants the lock, no longer than told."""
    work.write_sources(tmp_path)
    root, ended = tmp_path / "cache", []
    forks.run(work.build_other, root)
    build = partial(forks.run, work.build, root, 3, Delay(0.05))
    slow = threading.Thread(target=lambda: ended.append(build()))
    slow.start()
    lock = work.cache_at(root).build_lock("toy")
    while lock.try_acquire():
        lock.release()
        time.sleep(0.005)
    begin = time.monotonic()
    with pytest.raises(LockTimeoutError, match=r"toy\.lock for over 0\.3 s"):
        lock.acquire(0.3)
    assert 0.3 <= time.monotonic() - begin < 1.5
    waited = work.build(root, lock_timeout_seconds=0.3)
    slow.join()
    assert ended[0].result == waited == work.cache_at(root).manifest("toy").digest
