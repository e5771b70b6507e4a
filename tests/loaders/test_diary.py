"""What loaders note of their epochs: a line each, of what was delivered and read."""

import os
import shutil
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import storagering as sr
from storagering.cache.accesses import ACCESSES, Access
from storagering.cache.journal import list_journals, read_journal
from storagering.cache.layout import open_cache
from storagering.config import load_settings
from storagering.loaders.diary import EpochSize, _end_all
from storagering.loaders.mixture import Mix
from storagering.loaders.torch import DataLoader
from storagering.loaders.torch_dataset import TorchDataset

COLUMNS = ["MET_pt", "Jet_pt"]
ENTRIES = 1033


@pytest.fixture
def mine(toys: sr.Dataset, cache: Path) -> sr.Dataset:
    shutil.copytree(toys.cache.root, cache, ignore=shutil.ignore_patterns("journals"))
    return sr.open_dataset("toys")


def noted(*, since: int = 0) -> list[Access]:
    """All lines of the cache, oldest first."""
    cache = open_cache(load_settings())
    paths = list_journals(cache, ACCESSES)
    lines = [msgspec.json.decode(line.text, type=Access) for path in paths for line in read_journal(path).lines]
    return sorted(lines, key=lambda access: access.time)[since:]


def test_an_epoch_is_a_line(mine: sr.Dataset) -> None:
    with DataLoader("toys", 64, {"x": ["MET_pt"], "j": ["Jet_pt"]}, seed=1) as loader:
        for _ in range(2):
            list(loader)
    first, second = noted()
    chunks = mine.manifest.chunks
    assert (first.dataset, first.version, first.digest) == ("toys", 1, mine.manifest.digest)
    assert (first.columns, first.purpose, first.tier) == (("MET_pt", "Jet_pt"), "loader", "disk")
    assert (first.entries, first.epoch, first.pid) == (ENTRIES, 0, os.getpid())
    assert first.hits >= len(chunks)
    assert first.misses == 0
    needed = sum(mine.open_chunk(chunk).stored_bytes(["MET_pt", "Jet_pt"]) for chunk in chunks)
    assert needed <= first.nbytes < 2 * needed < sum(chunk.nbytes for chunk in chunks)
    assert second.epoch == 1
    assert second.entries == ENTRIES
    assert 0 < second.seconds < 60


@pytest.mark.parametrize("tail", ["short", "drop", "pad", "wrap"])
def test_ranks_note_what_they_delivered(mine: sr.Dataset, tail: Any) -> None:
    delivered = []
    for rank in range(3):
        with DataLoader("toys", 20, ["nVtx"], tail=tail, rank=rank, world_size=3) as loader:
            batches = list(loader)
        entries = sum(int(b["mask"].sum()) if tail == "pad" else len(b["nVtx"]) for b in batches)
        delivered.append(entries)
    assert [access.entries for access in noted()] == delivered
    assert sum(delivered) == {"drop": 1020, "wrap": 1080}.get(tail, ENTRIES)


def test_iterations_that_are_broken_off(mine: sr.Dataset) -> None:
    with DataLoader("toys", 64, COLUMNS) as loader:
        for number, _ in enumerate(loader):
            if number == 2:
                break
        assert [access.entries for access in noted()] == [3 * 64]
        held = iter(loader)  # epoch 1 is not begun anew: the broken one is
        next(held)
        loader.set_epoch(7)
    assert [access.entries for access in noted()] == [3 * 64, 64]
    del held
    with pytest.raises(ZeroDivisionError), DataLoader("toys", 64, COLUMNS, transform=fail) as loader:
        list(loader)
    DataLoader("toys", 64, COLUMNS).close()
    assert len(noted()) == 2


def fail(batch: Any) -> Any:
    raise ZeroDivisionError


def test_an_epoch_that_is_resumed_is_two_lines(mine: sr.Dataset) -> None:
    with DataLoader("toys", 64, COLUMNS, num_epochs=2) as loader:
        next(iter(loader))
        state = loader.state_dict()
    with DataLoader("toys", 64, COLUMNS, num_epochs=2) as loader:
        loader.load_state_dict(state)
        list(loader)
    assert [(access.epoch, access.entries) for access in noted()] == [(0, 64), (0, ENTRIES - 64), (1, ENTRIES)]


def test_an_exact_shuffle_reads_what_its_entries_take(mine: sr.Dataset) -> None:
    with DataLoader("toys", 64, ["nVtx"], shuffle="exact") as loader:
        list(loader)
    [access] = noted()
    stored = sum(chunk.nbytes for chunk in mine.manifest.chunks)
    assert (access.entries, access.nbytes, access.hits) == (ENTRIES, stored, len(mine.manifest.chunks))


def test_what_was_fetched_is_a_miss(mine: sr.Dataset) -> None:
    chunks = len(mine.manifest.chunks)
    sr.evict(["toys"])
    with DataLoader("toys", 64, ["nVtx"]) as loader:
        list(loader), list(loader)
    first, second = noted()
    assert first.misses == chunks
    assert second.misses == 0
    assert second.hits >= chunks
    sr.evict(["toys"])
    mine.arrays(["nVtx"], 0, 10)
    assert (noted()[-1].misses, noted()[-1].hits) == (1, 0)


def test_the_first_epoch_of_a_dataset_that_is_made(toy_files: list[Path]) -> None:
    files = [str(path) for path in toy_files]
    with sr.fill(files, name="toys", workers=1) as data, DataLoader(data, 64, ["nVtx"]) as loader:
        list(loader), list(loader)
    first, second = noted()
    assert (first.dataset, first.entries) == ("toys", ENTRIES)
    assert first.misses > 0 == first.hits
    assert (second.misses, second.digest) == (0, sr.open_dataset("toys").manifest.digest)


def test_chunks_in_memory(mine: sr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGERING_RAM_TIER", str(tmp_path / "ram"))
    for _ in range(2):
        with DataLoader("toys", 64, ["nVtx"]) as loader:
            list(loader)
    assert [access.tier for access in noted()] == ["disk", "ram"]


def test_datasets_that_are_mixed(mine: sr.Dataset, toy_files: list[Path]) -> None:
    sr.convert(str(toy_files[0]), name="more", workers=1)
    with DataLoader(Mix([("toys", 0.5), ("more", 0.5)]), 40, ["nVtx"]) as loader:
        assert len(list(islice(loader, 10))) == 10
    found = {access.dataset: access.entries for access in noted()}
    assert found.keys() == {"toys", "more"}
    assert all(count >= 200 for count in found.values())


def test_workers_note_their_part(mine: sr.Dataset) -> None:
    import torch

    data: Any = TorchDataset("toys", 64, ["nVtx"])
    loader: Any = torch.utils.data.DataLoader(data, None, num_workers=2, multiprocessing_context="fork")
    assert len(list(loader)) == 17
    found = noted()
    assert sum(access.entries for access in found) == ENTRIES
    assert len({access.pid for access in found} - {os.getpid()}) == 2


def test_a_fork_does_not_note_what_its_parent_reads(mine: sr.Dataset) -> None:
    with DataLoader("toys", 64, ["nVtx"]) as loader:
        batches = iter(loader)
        next(batches)
        pid = os.fork()
        if not pid:
            loader.close()
            del batches
            os._exit(0)
        os.waitpid(pid, 0)
        assert noted() == []
    assert [access.entries for access in noted()] == [64]


def test_a_program_that_ends_with_an_open_iteration(mine: sr.Dataset) -> None:
    with DataLoader("toys", 64, ["nVtx"]) as loader:
        batches = iter(loader)
        next(batches), next(batches)
        _end_all()  # as Python does at exit
        assert [access.entries for access in noted()] == [128]
    assert len(noted()) == 1


def test_other_ways_to_read(mine: sr.Dataset, tmp_path: Path) -> None:
    mine.arrays(["nVtx", "run"], 5, 500)
    sr.sql("SELECT avg(MET_pt) FROM toys a JOIN (SELECT count(*) FROM toys) b ON true")
    sr.export("toys", tmp_path / "out.parquet", to="parquet", columns=["run"])
    found = [(access.purpose, access.columns, access.entries) for access in noted()]
    assert found[0] == ("arrays", ("nVtx", "run"), 495)
    assert found[-1] == ("export", ("run",), ENTRIES)
    assert {(purpose, entries) for purpose, _, entries in found[1:-1]} == {("sql", ENTRIES)}


def test_nothing_is_counted_where_nothing_is_noted(mine: sr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGERING_JOURNAL", "no")
    with DataLoader("toys", 64, ["nVtx"]) as loader:
        assert len(list(loader)) == 17
    sr.open_dataset("toys").arrays(["nVtx"])
    assert noted() == []


@given(
    steps=st.integers(1, 30), size=st.integers(1, 9), data=st.data(), stride=st.integers(1, 4), first=st.integers(0, 30)
)
def test_entries_follow_from_steps(steps: int, size: int, data: Any, stride: int, first: int) -> None:
    missing = data.draw(st.integers(0, size - 1))
    sizes = [size] * (steps - 1) + [size - missing]
    taken = list(range(first, steps, stride))[: data.draw(st.integers(0, 30))]
    step = first + stride * len(taken)
    assert EpochSize(steps, size, missing).delivered(first, step, stride) == sum(sizes[n] for n in taken)
