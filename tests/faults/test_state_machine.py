"""Anything in any order, against a dict: what is visible verifies, what is pinned is there, the quota is kept."""

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.faults import work

from storagering.cache.append import Addition, append_sources
from storagering.cache.build import Job, build_dataset
from storagering.cache.dataset import Dataset
from storagering.cache.fetch import ChunkFetcher
from storagering.cache.layout import Cache, open_cache
from storagering.cache.pins import pin_dataset, unpin_dataset
from storagering.cache.progress import BuildProgress
from storagering.cache.repair import repair_dataset
from storagering.cache.residency import is_partial, resident_files
from storagering.cache.space import disk_room, sync_ledger
from storagering.cache.verify import verify_dataset
from storagering.config import Settings
from storagering.errors import CacheFullError, CorruptDataError
from storagering.formats.source import Location
from storagering.testing.crashes import Forks
from storagering.testing.faults import Kill
from storagering.testing.toys import toy_columns
from storagering.types import ConversionSpec

NAMES = ("a", "b")
CHUNK_BYTES = 13_000
#: Two of the three files' chunks, more or less: builds evict, or keep only part of what they make.
QUOTA_BYTES = 60_000
EVENTS = [toy_columns(entries, seed)["event"].tolist() for seed, entries in enumerate(work.ENTRIES)]


@dataclass
class Expected:
    """What the model knows of a dataset."""

    files: tuple[int, ...]
    damaged: set[str] = field(default_factory=set)
    pinned: set[str] | None = None

    @property
    def events(self) -> list[int]:
        return [event for number in self.files for event in EVENTS[number]]


def cache_at(root: Path) -> Cache:
    quota = f"{QUOTA_BYTES}B"
    return open_cache(Settings(root, workers=1, threads=1, quota=quota, room_timeout_seconds=0.1))


def source(root: Path, number: int) -> str:
    return str(root.parent / f"toy-{number}.root")


def build(root: Path, name: str, numbers: Sequence[int]) -> str:
    urls = [source(root, number) for number in numbers]
    spec = ConversionSpec(sources=tuple((url, None) for url in urls), chunk_bytes=CHUNK_BYTES)
    job = Job(name, spec, [Location(url) for url in urls])
    return build_dataset(cache_at(root), job, BuildProgress())[0].digest


def append(root: Path, name: str, number: int) -> str:
    url = source(root, number)
    addition = Addition(name, [((url, None), Location(url))])
    return append_sources(cache_at(root), addition, BuildProgress())[0].digest


def evict(root: Path, name: str, to_bytes: int) -> None:
    disk_room(cache_at(root)).evict(to_bytes=to_bytes, of=[name] if name else None)


def fetch(root: Path, name: str, numbers: Sequence[int]) -> None:
    cache = cache_at(root)
    with closing(ChunkFetcher(cache, cache.manifest(name))) as fetcher:
        fetcher.ensure(numbers)


def repair(root: Path, name: str) -> int:
    return len(repair_dataset(cache_at(root), name, (), BuildProgress())[1])


def points(last: int) -> st.SearchStrategy[int | None]:
    """Where to be killed; mostly nowhere."""
    return st.none() | st.none() | st.integers(0, last)


class CacheMachine(RuleBasedStateMachine):
    """The real cache beside a dict of what should be in it."""

    forks: Forks
    sources: Path

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=self.sources))
        for path in self.sources.glob("*.root"):
            (self.folder / path.name).symlink_to(path)
        self.root = self.folder / "cache"
        self.model: dict[str, Expected] = {}
        cache_at(self.root)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def do(self, action: Any, point: int | None) -> bool:
        """Do it here, or in a process that is killed at one of its points; whether it is known to be done."""
        with suppress(CacheFullError):
            if point is None:
                action(self.root)
                return True
            return not self.forks.run(action, self.root, point, Kill()).killed and False
        return False

    @rule(
        name=st.sampled_from(NAMES),
        numbers=st.sampled_from([(0, 1), (0,), (1, 2)]),
        point=points(60),
    )
    def build(self, name: str, numbers: tuple[int, ...], point: int | None) -> None:
        if name in self.model:
            return
        done = self.do(partial(build, name=name, numbers=numbers), point)
        if done or cache_at(self.root).contains(name):
            self.model[name] = Expected(numbers)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), point=points(50))
    def append(self, data: st.DataObject, point: int | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        expected = self.model[name]
        number = next((number for number in (2, 1, 0) if number not in expected.files), None)
        if number is None:
            return
        self.do(partial(append, name=name, number=number), point)
        if len(cache_at(self.root).manifest(name).sources) > len(expected.files):
            expected.files += (number,)

    @rule(name=st.sampled_from(("", *NAMES)), to_bytes=st.sampled_from([0, 20_000]), point=points(20))
    def evict(self, name: str, to_bytes: int, point: int | None) -> None:
        self.do(partial(evict, name=name, to_bytes=to_bytes), point)
        sync_ledger(cache_at(self.root))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), point=points(30))
    def fetch(self, data: st.DataObject, point: int | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        manifest = cache_at(self.root).manifest(name)
        if not is_partial(cache_at(self.root).path(name)):
            return
        number = data.draw(st.integers(0, len(manifest.chunks) - 1))
        self.do(partial(fetch, name=name, numbers=[number]), point)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        expected = self.model[name]
        cache = cache_at(self.root)
        damaged = expected.damaged & resident_files(cache.path(name), cache.manifest(name))
        dataset = Dataset(cache, cache.manifest(name))
        try:
            assert dataset.arrays(["event"]).event.tolist() == expected.events
        except CorruptDataError:
            assert damaged
        except CacheFullError:
            assert any(one.pinned for one in self.model.values())

    @precondition(lambda self: self.model)
    @rule(data=st.data(), how=st.sampled_from(["flip", "cut", "swap"]))
    def corrupt(self, data: st.DataObject, how: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        cache = cache_at(self.root)
        files = sorted(resident_files(cache.path(name), cache.manifest(name)) - self.model[name].damaged)
        if not files:
            return
        file = data.draw(st.sampled_from(files))
        path = cache.path(name) / file
        whole = path.read_bytes()
        at = data.draw(st.integers(0, len(whole) - 1))
        flipped = whole[:at] + bytes([whole[at] ^ 1 << data.draw(st.integers(0, 7))]) + whole[at + 1 :]
        path.write_bytes({"flip": flipped, "cut": whole[:at], "swap": whole[::-1]}[how])
        self.model[name].damaged.add(file)
        assert self.faults_of(name) == self.model[name].damaged

    @precondition(lambda self: self.model)
    @rule(data=st.data(), point=points(40))
    def repair(self, data: st.DataObject, point: int | None) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        if self.do(partial(repair, name=name), point):
            assert not self.faults_of(name)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        cache = cache_at(self.root)
        if self.model[name].pinned is None:
            pin_dataset(cache, name, "the model says so")
            self.model[name].pinned = resident_files(cache.path(name), cache.manifest(name))
        else:
            unpin_dataset(cache, name)
            self.model[name].pinned = None

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        cache = cache_at(self.root)
        if self.model[name].pinned is not None:
            unpin_dataset(cache, name)
        cache.remove(name)
        sync_ledger(cache)
        del self.model[name]

    def faults_of(self, name: str) -> set[str]:
        return {fault.file for fault in verify_dataset(cache_at(self.root), name, BuildProgress())}

    @invariant()
    def what_is_visible_verifies(self) -> None:
        """Damage that is found was done; what was evicted, or made again, takes its damage with it."""
        if not hasattr(self, "root"):
            return
        cache = cache_at(self.root)
        assert cache.names() == sorted(self.model)
        for name, expected in self.model.items():
            faults = self.faults_of(name)
            assert faults <= expected.damaged
            expected.damaged = faults
            there = resident_files(cache.path(name), cache.manifest(name))
            assert expected.pinned is None or expected.pinned <= there

    @invariant()
    def the_quota_is_kept(self) -> None:
        if not hasattr(self, "root"):
            return
        sizes = [path.stat().st_size for path in self.root.glob("datasets/*/chunk-*")]
        assert sum(sizes) <= QUOTA_BYTES


@pytest.fixture
def machine(tmp_path: Path) -> Any:
    work.write_sources(tmp_path)
    with Forks() as forks:
        CacheMachine.forks, CacheMachine.sources = forks, tmp_path
        yield CacheMachine


def run_examples(machine: Any, examples: int, steps: int, *, derandomize: bool = False) -> None:
    case = machine.TestCase()
    case.settings = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=derandomize,
    )
    case.runTest()


@pytest.mark.scenario(5)
@pytest.mark.scenario(12)
def test_anything_in_any_order(machine: Any) -> None:
    run_examples(machine, 25, 10, derandomize=True)  # others each time in the long run


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_anything_in_any_order_for_long(machine: Any) -> None:
    run_examples(machine, 2000, 50)
