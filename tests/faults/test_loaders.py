"""Loaders that are abandoned, paused, forked and run for long: no thread, process, descriptor or memory stays."""

import gc
import hashlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from tests.faults.processes import wait_for
from tests.loaders.orders import batches_of

from storagering.api import convert
from storagering.cache.access import ChunkAccess
from storagering.cache.dataset import Dataset
from storagering.cache.layout import open_cache
from storagering.cache.store import ChunkReader
from storagering.catalog.query import sql
from storagering.config import load_settings
from storagering.formats.readers import open_source
from storagering.loaders.loader import MIX_CHUNKS
from storagering.loaders.plan import plan_epoch
from storagering.loaders.torch import DataLoader
from storagering.testing import xrootd
from storagering.testing.toys import write_toy_tree
from storagering.types import Chunk

ENTRIES = 4000
COLUMNS = {"id": "event", "x": ["MET_pt", "weight"], "jets": ["Jet_pt", "Jet_eta"]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("loaders")
    write_toy_tree(folder / "toy.root", entries=ENTRIES, basket_entries=50)
    settings = load_settings(cache=folder / "cache", workers=1)
    made = convert(str(folder / "toy.root"), name="toy", chunk_bytes=10_000, settings=settings)
    assert len(made.manifest.chunks) > 3 * MIX_CHUNKS
    return made


def held() -> dict[str, int]:
    """What this process holds of all that a loader can leak."""
    gc.collect()
    return {
        "threads": sum(thread.name.startswith("storagering") for thread in threading.enumerate()),
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208  (a Path would hold one itself)
        "mappings": Path("/proc/self/maps").read_text().count("/cache/datasets/"),
        "processes": len(psutil.Process().children()),
        "shared memory": len(list(Path("/dev/shm").iterdir())),
    }


def leaked(before: dict[str, int]) -> dict[str, tuple[int, int]]:
    """What there is more of than before, as numbers."""
    after = held()
    return {name: (before[name], after[name]) for name in before if after[name] > before[name]}


def drop_early(loader: DataLoader) -> None:
    batches = iter(loader)
    next(batches)
    del batches


def break_off(loader: DataLoader) -> None:
    for _ in loader:
        break


def close_twice(loader: DataLoader) -> None:
    batches = iter(loader)
    next(batches)
    loader.close()
    loader.close()
    assert list(batches) == []


def begin_again(loader: DataLoader) -> None:
    first = iter(loader)
    next(first)
    second = iter(loader)
    assert list(first) == []
    assert len(list(second)) == len(loader)


def never_begin(loader: DataLoader) -> None:
    iter(loader)


def raise_within(loader: DataLoader) -> None:
    def fail() -> None:
        for _ in loader:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()


def ask_for_state(loader: DataLoader) -> None:
    before = loader.state_dict()
    assert loader.state_dict() == before
    batches = iter(loader)
    assert loader.state_dict() == before
    next(batches)
    during = loader.state_dict()
    assert loader.state_dict() == during != before
    loader.close()
    assert loader.state_dict() == during
    loader.load_state_dict(during)
    assert loader.state_dict() == during
    assert len(list(loader)) == len(loader) - 1
    after = loader.state_dict()
    assert (after["epoch"], after["step"]) == (during["epoch"] + 1, 0)


LIVES = [drop_early, break_off, close_twice, begin_again, never_begin, raise_within, ask_for_state]


@pytest.mark.scenario(57)
@pytest.mark.parametrize("live", LIVES, ids=lambda live: live.__name__)
@pytest.mark.parametrize("prefetch_batches", [0, 2])
def test_nothing_is_leaked(dataset: Dataset, live: Callable[[DataLoader], None], prefetch_batches: int) -> None:
    def run() -> None:
        loader = DataLoader(dataset, 100, COLUMNS, threads=3, prefetch_batches=prefetch_batches)
        live(loader)
        loader.close()
        loader.close()

    run()  # whatever is made once for a process
    before = held()
    for _ in range(3):
        run()
    assert not leaked(before)


@pytest.mark.scenario(57)
def test_loaders_side_by_side(dataset: Dataset) -> None:
    alone = [digest(DataLoader(dataset, 100, COLUMNS, seed=seed)) for seed in (1, 2)]
    before = held()
    loaders = [DataLoader(dataset, 100, COLUMNS, seed=seed, threads=2) for seed in (1, 2)]
    assert [digest(batches) for batches in zip(*zip(*loaders, strict=True), strict=True)] == alone
    for loader in loaders:
        loader.close()
    assert not leaked(before)


def digest(batches: Any) -> str:
    found = hashlib.sha256()
    for batch in batches:
        for key in sorted(batch):
            found.update(batch[key].numpy().tobytes())
    return found.hexdigest()


class Counted(ChunkAccess):
    """Counts the chunks that are opened."""

    opened = 0

    def open(self, chunk: Chunk) -> ChunkReader:
        self.opened += 1
        return super().open(chunk)


class Counting(Dataset):
    """A dataset whose opened chunks are counted."""

    def __init__(self, dataset: Dataset) -> None:
        super().__init__(dataset.cache, dataset.manifest)
        self.counted = Counted(self.cache, self.manifest)

    def access(self, purpose: str = "reading") -> ChunkAccess:  # noqa: ARG002  (of the base class)
        return self.counted


@pytest.mark.scenario(58)
@pytest.mark.parametrize("seconds", [0.5, pytest.param(60.0, marks=pytest.mark.soak)])
def test_whoever_pauses_finds_as_much_as_before(dataset: Dataset, seconds: float) -> None:
    """What is read ahead is bounded, and nothing times out."""
    counting = Counting(dataset)
    with DataLoader(counting, 50, COLUMNS, threads=2, prefetch_batches=2) as loader:
        whole = digest(DataLoader(dataset, 50, COLUMNS))
        seen = []
        for batch in loader:
            seen.append(batch)
            if len(seen) == 3:
                wait_for(lambda: counting.counted.opened >= 2 * MIX_CHUNKS)
                threads = {thread.ident for thread in threading.enumerate()}
                resident = psutil.Process().memory_info().rss
                time.sleep(seconds)
                # The window of the batch given last, that of the batches made ahead, and the next.
                assert counting.counted.opened <= 3 * (MIX_CHUNKS + 2)
                assert {thread.ident for thread in threading.enumerate()} == threads
                assert psutil.Process().memory_info().rss < resident + (4 << 20)
        assert digest(seen) == whole


def predicted(dataset: Dataset, seed: int, epoch: int, batch_size: int) -> Any:
    """The order of the entries of an epoch, from the manifest, the seed and the epoch alone."""
    entries = [chunk.num_entries for chunk in dataset.manifest.chunks]
    mixed = round(MIX_CHUNKS * sum(entries) / len(entries))
    return batches_of(plan_epoch(entries, batch_size=batch_size, window_entries=mixed, seed=seed, epoch=epoch))


def slope(values: list[float]) -> float:
    """By which part of its mean a quantity grows in 100 epochs."""
    return float(100 * np.polyfit(np.arange(len(values)), values, 1)[0] / np.mean(values))


@pytest.mark.scenario(60)
@pytest.mark.parametrize("epochs", [5, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def test_many_epochs(dataset: Dataset, epochs: int) -> None:
    events = dataset.arrays(["event"]).event.to_numpy().astype(np.int64)
    figures: list[dict[str, float]] = []
    with DataLoader(dataset, 64, COLUMNS, threads=8, seed=11) as loader:
        for epoch in range(epochs):
            seen = np.concatenate([batch["id"].numpy() for batch in loader])
            expected = events[np.concatenate(predicted(dataset, 11, epoch, 64))]
            assert hashlib.sha256(seen.tobytes()).digest() == hashlib.sha256(expected.tobytes()).digest()
            now = held()
            figures.append(
                {
                    "descriptors": now["descriptors"],
                    "mappings": 1 + now["mappings"],
                    "threads": now["threads"],
                    "resident": psutil.Process().memory_info().rss,
                }
            )
    steady = figures[epochs // 5 :]
    for name in ("descriptors", "mappings", "threads"):
        assert {figure[name] for figure in steady} == {steady[0][name]}, name
    if epochs >= 100:
        assert slope([figure["resident"] for figure in steady]) < 0.01


def in_child(act: Callable[[], str]) -> str:
    """What a function returns in a child that is forked from this process, threads and all."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = act()
        except BaseException as error:  # noqa: BLE001  (the parent reports it)
            answer = f"{type(error).__name__}: {error}"
        os.write(write_end, answer.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


@pytest.mark.scenario(31)
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("prefetch_batches", [0, 2])
def test_a_loader_in_a_forked_process(dataset: Dataset, prefetch_batches: int) -> None:
    """The iteration stays with who began it; a new one works in both."""
    loader = DataLoader(dataset, 100, COLUMNS, threads=2, prefetch_batches=prefetch_batches)
    loader.set_epoch(3)
    whole = digest(loader)
    loader.set_epoch(3)
    batches = iter(loader)
    first = next(batches)

    def again() -> str:
        loader.set_epoch(3)
        return digest(loader)

    told = in_child(lambda: str(next(batches)))
    assert told.startswith(f"LoaderError: this iteration belongs to process {os.getpid()}; after a fork")
    assert in_child(again) == whole
    assert digest([first, *batches]) == whole


@pytest.mark.scenario(31)
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_cache_a_catalog_and_a_source_in_a_forked_process(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGERING_CACHE", str(dataset.path.parents[1]))
    reader = dataset.open_chunk(dataset.manifest.chunks[0])
    count = "SELECT count(*) AS n FROM datasets"
    assert sql(count).column(0).to_pylist() == [1]
    write_toy_tree(tmp_path / "other.root", entries=100, seed=5)
    expected = [len(dataset.arrays(["event"])), len(reader.read_column("event")[0]), 100, 100, 2]
    with closing(open_source(str(tmp_path / "other.root"), None, load_settings())) as source:

        def use_all() -> str:
            made = convert(str(tmp_path / "other.root"), name=f"of{os.getpid()}", workers=1)
            found = [len(dataset.arrays(["event"])), len(reader.read_column("event")[0])]
            found += [len(source.read(["run"], 0, 100)["run"]), len(made), sql(count).column(0)[0].as_py()]
            open_cache(load_settings()).remove(made.name)
            return str(found)

        assert in_child(use_all) == str(expected)
        assert use_all() == str(expected)


@pytest.mark.scenario(31)
@pytest.mark.xrootd
@pytest.mark.skipif(not xrootd.available(), reason="no xrootd on the PATH: apt-get install xrootd-server")
def test_a_source_on_a_server_in_a_forked_process(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=1000, basket_entries=100)
    with (
        xrootd.xrootd_server(tmp_path) as server,
        closing(open_source(server.url("toy.root"), None, load_settings())) as source,
    ):
        whole = source.read(["run"], 0, 1000)["run"].to_list()
        assert in_child(lambda: str(source.read(["run"], 0, 1000)["run"].to_list() == whole)) == "True"
        assert source.read(["run"], 0, 1000)["run"].to_list() == whole
