"""Training while the cache fills: the first epoch holds what it should, in the recorded order, and can be resumed."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.faults.held import HeldSources, held_sources
from tests.loaders.orders import sequence_of
from tests.loaders.test_resume import digests

import storagering as sr
from storagering.cache.filling import FillingDataset
from storagering.cache.first_epoch import FIRST_EPOCH_NAME, MIXED_SOURCES, plan_first_epoch, read_first_epoch
from storagering.cache.layout import open_cache
from storagering.cache.messages import Task
from storagering.cache.progress import BuildProgress
from storagering.cache.unfinished import FirstEpoch
from storagering.config import load_settings
from storagering.errors import (
    ChecksumError,
    CorruptDataError,
    NotFoundError,
    ResumeMismatchError,
    SchemaError,
    SpecError,
)
from storagering.loaders.loader import MIX_CHUNKS
from storagering.loaders.plan import EpochPlan, plan_epoch
from storagering.loaders.torch import DataLoader
from storagering.testing.http import http_server
from storagering.testing.toys import write_toy_tree
from storagering.testing.xrootd import available, xrootd_server
from storagering.types import Span

COLUMNS = {"x": ["MET_pt", "nVtx"], "jets": ["Jet_pt", "Jet_eta"], "id": "event"}
CHUNK_BYTES = 8192


@pytest.fixture(scope="module")
def files(toy_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    more = tmp_path_factory.mktemp("more") / "more.root"
    write_toy_tree(more, entries=1500, seed=7, basket_entries=50)
    return [*map(str, toy_files), str(more)]


@pytest.fixture(scope="module")
def plain(files: list[str], tmp_path_factory: pytest.TempPathFactory) -> sr.Dataset:
    """What a conversion makes of them."""
    settings = load_settings(cache=tmp_path_factory.mktemp("plain"), workers=1)
    return sr.convert(files, name="toys", chunk_bytes=CHUNK_BYTES, settings=settings)


def filled(files: Any, **options: Any) -> FillingDataset:
    return sr.fill(files, **{"name": "toys", "chunk_bytes": CHUNK_BYTES, "workers": 1, **options})


def expected_order(first: FirstEpoch, seed: int, shuffle: Any = "block") -> list[int]:
    """Entries of the dataset in the order of the first epoch, from nothing but its record."""
    return sequence_of(plan_of(first, seed, shuffle))


def plan_of(first: FirstEpoch, seed: int, shuffle: Any) -> EpochPlan:
    unit = sum(first.entries) / len(first.entries) / first.task_chunks
    return plan_epoch(
        first.entries,
        batch_size=64,
        window_entries=round(MIX_CHUNKS * unit),
        seed=seed,
        epoch=0,
        shuffle=shuffle,
        order=first.order,
    )


@pytest.mark.parametrize(("store", "shuffle"), [("zarr", "block"), ("parquet", "block"), ("zarr", None)])
def test_the_first_epoch_is_the_recorded_one(files: list[str], plain: sr.Dataset, store: Any, shuffle: Any) -> None:
    """Every entry once, bit for bit; and the dataset is the one that a plain conversion makes."""
    with (
        filled(files, format=store) as data,
        DataLoader(data, 64, COLUMNS, seed=5, jagged="flat", shuffle=shuffle) as loader,
    ):
        batches = list(loader)
        assert len(batches) == len(loader)
        dataset = loader.dataset
        later = list(loader)
    if store == "zarr":
        assert dataset.manifest.digest == plain.manifest.digest
    first = read_first_epoch(dataset.path, dataset.manifest.digest)
    assert first is not None
    assert len(first.order) > 8
    assert plan_of(first, 5, shuffle).strata == (first.order,)
    assert (first.order == tuple(range(len(first.order)))) == (shuffle is None)
    order = expected_order(first, 5, shuffle)
    assert sorted(order) == list(range(plain.num_entries))
    arrays = plain.arrays()[order]
    at = 0
    for batch in batches:
        part = arrays[at : at + 64]
        at += 64
        assert batch["id"].numpy().astype(np.uint64).tobytes() == np.asarray(part["event"]).tobytes()
        assert batch["x"].numpy()[:, 0].tobytes() == np.asarray(part["MET_pt"]).tobytes()
        counts = np.diff(batch["jets_offsets"].numpy())
        assert counts.tolist() == [len(jets) for jets in part["Jet_pt"]]
        assert batch["jets"].numpy()[:, 1].tolist() == [eta for jets in part["Jet_eta"] for eta in jets]
    key = [tuple(x) for b in batches for x in b["x"].tolist()]
    assert sorted(key) == sorted(tuple(x) for b in later for x in b["x"].tolist())
    assert (key == [tuple(x) for b in later for x in b["x"].tolist()]) == (shuffle is None)


def test_the_batches_are_the_same_from_a_cold_and_a_warm_cache(files: list[str]) -> None:
    """For all of an epoch, every number of ranks and any split."""
    options: dict[str, Any] = {"columns": COLUMNS, "seed": 2, "split": (0.0, 0.7), "tail": "drop"}
    with filled(files) as data:
        cold = DataLoader(data, 60, **options)
        assert cold.state_dict()["dataset"].startswith("fill:")
        expected = [*digests(cold), *digests(cold)]
    warm = DataLoader(filled(files), 60, **options)
    assert [*digests(warm), *digests(warm)] == expected
    by_name = DataLoader("toys", 60, **options)
    assert [digests(by_name), digests(by_name)][1] == expected[len(by_name) :]
    whole = [b["id"].tolist() for b in DataLoader(filled(files), 60, **options)]
    ranks = [
        [b["id"].tolist() for b in DataLoader(filled(files), 30, rank=rank, world_size=2, **options)] for rank in (0, 1)
    ]
    assert [sorted(b) for b in whole] == [sorted(one + other) for one, other in zip(*ranks, strict=True)]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[HeldSources]:
    with held_sources(tmp_path / "in") as sources:
        yield sources


class Told(BuildProgress):
    """Notes what is told, from any thread."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.entries = 0

    def advance(self, entries: int, decoded_bytes: int) -> None:  # noqa: ARG002
        self.entries += entries

    def tell(self, message: str) -> None:
        self.messages.append(message)


def test_what_needs_the_whole_waits_for_it(files: list[str]) -> None:
    told = Told()
    with filled(files, where="nVtx > 30", progress=told) as data, DataLoader(data, 64, COLUMNS) as loader:
        assert told.messages == ["waiting until dataset 'toys' is complete"]
        assert told.entries == 700 + 333 + 1500
        assert loader.state_dict()["dataset"] == loader.dataset.manifest.digest
        assert sum(len(b["id"]) for b in loader) == loader.dataset.num_entries < told.entries
        assert not (loader.dataset.path / FIRST_EPOCH_NAME).exists()
    with filled(files, name="exact") as data, DataLoader(data, 64, COLUMNS, shuffle="exact") as loader:
        assert loader.state_dict()["dataset"] == loader.dataset.manifest.digest
        by_name = DataLoader("exact", 64, COLUMNS, shuffle="exact")
        assert digests(loader) == digests(by_name)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_state_of_the_first_epoch_is_resumed(held: HeldSources, ranks: int) -> None:
    """While the cache fills, and when it is full; and on another number of ranks."""
    options: dict[str, Any] = {"columns": COLUMNS, "seed": 4}
    held.when_done = 10
    with (
        filled(held.urls, name=None, settings=held.settings, workers=None) as data,
        DataLoader(data, 40, **options) as loader,
        DataLoader(data, 40 // ranks, rank=ranks - 1, world_size=ranks, **options) as again,
    ):
        batches = iter(loader)
        expected = digests(next(batches) for _ in range(2))
        state = json.loads(json.dumps(loader.state_dict()))
        assert data.published() is None
        assert state["dataset"].startswith("fill:")
        again.load_state_dict(state)
        held.go_on.set()
        expected += digests(batches)
        rest = digests(again)
        assert len(rest) == len(loader) - 2
        assert (rest == expected[2:]) == (ranks == 1)
    by_name = DataLoader(data.name, 40 // ranks, rank=ranks - 1, world_size=ranks, **options)
    by_name.load_state_dict(state)
    assert digests(by_name) == rest


def test_what_is_published_between_two_steps_is_found(held: HeldSources) -> None:
    """Records and chunks that were seen in the staging folder are looked for in the dataset."""
    held.when_done = 6
    with filled(held.urls, settings=held.settings, workers=None) as data, filled(held.urls) as other:
        data.begin(1)
        _, first = data.contents()
        assert first is not None
        assert held.reached.wait(60)
        unit = first.order[0]
        assert data.is_finished(unit)
        assert not data.is_finished(first.order[-1])
        (chunk, *_) = data.chunks(unit) or ()
        start = sum(first.entries[:unit])
        seen = replace(chunk, start=start, stop=start + chunk.num_entries)
        whole = data.open_chunk(seen).read_column("MET_pt")[0].tolist()
        held.go_on.set()
        other.wait()
        assert data.open_chunk(seen).read_column("MET_pt")[0].tolist() == whole
        data._published = None
        while data._known.staging.exists():  # its builder sweeps up after publishing
            time.sleep(0.01)
        assert data.chunks(unit) is None
        data._published = None
        assert data.is_finished(first.order[-1])
        assert data.published() is not None
        with pytest.raises(CorruptDataError, match="does not hold the chunk"):
            data.open_chunk(replace(seen, digest="other"))


def test_states_of_other_orders_are_refused(files: list[str], plain: sr.Dataset) -> None:
    with filled(files) as data, DataLoader(data, 64, COLUMNS, seed=3) as loader:
        next(iter(loader))
        state = loader.state_dict()
        dataset = loader.dataset
    for other in (filled(files[:2], name="other"), plain):
        with DataLoader(other, 64, COLUMNS, seed=3) as loader, pytest.raises(ResumeMismatchError, match="dataset"):
            loader.load_state_dict(state)
    with DataLoader(dataset, 64, COLUMNS, seed=4) as loader, pytest.raises(ResumeMismatchError, match="seed: 3 saved"):
        loader.load_state_dict(state)
    # A state of epoch 0 in the usual order goes on in that order, also where the cache was filled.
    usual = DataLoader(dataset, 64, COLUMNS, seed=3)
    next(iter(usual))
    again = DataLoader(filled(files), 64, COLUMNS, seed=3)
    again.load_state_dict(usual.state_dict())
    expected = DataLoader(dataset, 64, COLUMNS, seed=3)
    assert digests(again) == digests(expected)[1:]


def test_the_state_at_the_end_of_the_first_epoch(files: list[str]) -> None:
    with filled(files) as data, DataLoader(data, 64, COLUMNS, prefetch_batches=0) as loader:
        states = [loader.state_dict() for _ in loader]
        assert states[-1]["epoch"] == 1
        expected = digests(loader)
    again = DataLoader("toys", 64, COLUMNS)
    again.load_state_dict(states[-1])
    assert digests(again) == expected


@pytest.mark.xrootd
@pytest.mark.skipif(not available(), reason="no xrootd on the PATH: apt-get install xrootd-server")
def test_nothing_remote_is_touched_after_the_first_epoch(files: list[str]) -> None:
    """Nor by later trainings, also where the sources are a pattern."""
    with xrootd_server() as server:
        for file in files:
            server.add(Path(file), f"some/{Path(file).name}")
        pattern = server.url("some/*.root")
        with DataLoader(pattern, 64, COLUMNS) as loader:
            assert loader.dataset.name.startswith("some-")
            before = digests(loader)
            sent = server.bytes_sent
            assert sent > sum(Path(file).stat().st_size for file in files) / 2
            rest = [*digests(loader), *digests(loader)]
        with DataLoader(pattern, 64, COLUMNS) as loader:
            assert [*digests(loader), *digests(loader), *digests(loader)] == [*before, *rest]
        assert server.bytes_sent == sent
        server.kill()
        with DataLoader(pattern, 64, COLUMNS) as loader:
            assert digests(loader) == before


def test_the_name_follows_from_the_sources(files: list[str], tmp_path: Path) -> None:
    one = sr.fill(files[0])
    assert one.name.startswith("toy0-")
    assert sr.fill(files[0]).name == one.name
    assert sr.fill(files[0], columns=["nVtx"]).name != one.name
    assert sr.fill(f"{Path(files[0]).parent}/*.root").name.startswith(Path(files[0]).parent.name)
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(files))
    assert sr.fill(f"@{listed}").name.startswith("list-")
    assert sr.fill("https://a.b/c/my%20file.v2.root?x=1").name.startswith("my-20file-")


def test_what_is_no_dataset_and_no_source(files: list[str]) -> None:
    for wrong in ("nope", "nope/nope.root", "nope-*.root"):
        with pytest.raises(NotFoundError, match="nope"):
            DataLoader(wrong)
    with pytest.raises(SpecError, match="chunk_bytes"):
        sr.fill(files, chunk_bytes=1)
    with filled(files) as data, pytest.raises(SchemaError, match="Jet_pt"):
        DataLoader(data, columns=["Jet_p"])
    sr.convert(files, name="toys", columns=["nVtx"], workers=1)
    with filled(files) as data, pytest.raises(SpecError, match="made otherwise"):
        DataLoader(data)


def test_a_damaged_record_is_never_believed(files: list[str]) -> None:
    with filled(files) as data:
        data.begin(1)
        dataset = data.wait()
    path = dataset.path / FIRST_EPOCH_NAME
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ChecksumError, match="damaged"):
            read_first_epoch(dataset.path, dataset.manifest.digest)
    with pytest.raises(ChecksumError, match="damaged"):
        DataLoader(filled(files), 64)
    assert len(list(DataLoader("toys", 64, COLUMNS))) == len(DataLoader("toys", 64, COLUMNS))
    path.unlink()
    with DataLoader(filled(files), 64, COLUMNS) as loader:  # in the usual order, as nothing tells of another
        assert digests(loader) == digests(DataLoader("toys", 64, COLUMNS))


def test_a_known_request_of_a_dataset_that_is_gone(files: list[str]) -> None:
    with http_server(Path(files[0]).parent) as server:
        url = server.url("toy0.root")
        with DataLoader(url, 64, COLUMNS) as loader:
            expected = digests(loader)
            name = loader.dataset.name
        sent = len(server.requests)
        DataLoader(url, 64, COLUMNS).close()
        assert len(server.requests) == sent
        open_cache(load_settings()).remove(name)
        with DataLoader(url, 64, COLUMNS) as loader:
            assert digests(loader) == expected
        assert len(server.requests) > sent


def tasks_of(entries_of_sources: list[int], per_task: int = 100) -> list[Task]:
    pieces = [Span(n, a, a + per_task) for n, e in enumerate(entries_of_sources) for a in range(0, e, per_task)]
    return [Task(number, (piece,), f"key{number}") for number, piece in enumerate(pieces)]


def test_the_order_keeps_few_sources_open() -> None:
    tasks = tasks_of([1000] * 40)
    first = plan_first_epoch(tasks, 3, 50, None)
    assert sorted(first.order) == list(range(400))
    assert first.task_chunks == 2.0
    sources = [tasks[n].pieces[0].source for n in first.order]
    spans = [(sources.index(s), 399 - sources[::-1].index(s)) for s in range(40)]
    assert max(sum(a <= at <= b for a, b in spans) for at in range(400)) == MIXED_SOURCES
    assert len(set(sources[:20])) == MIXED_SOURCES
    assert sources != sorted(sources)
    assert plan_first_epoch(tasks, 3, 50, None) == first
    assert plan_first_epoch(tasks, 4, 50, None).order != first.order
    assert plan_first_epoch(tasks, None, 50, None).order == tuple(range(400))


def test_an_order_that_was_begun_is_kept() -> None:
    tasks = tasks_of([1000] * 3)
    first = plan_first_epoch(tasks, 3, 50, None)
    assert plan_first_epoch(tasks, 4, 50, first) == first
    assert plan_first_epoch(tasks, None, 50, first) == first
    others = [replace(task, key="other") if task.number == 5 else task for task in tasks]
    changed = plan_first_epoch(others, 4, 50, first)
    assert changed == plan_first_epoch(others, 4, 50, None)
    assert changed.order != first.order
    assert changed.fingerprint != first.fingerprint
