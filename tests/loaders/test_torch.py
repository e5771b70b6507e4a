"""The loader against the dataset's own arrays: every batch of every mode holds what it should."""

import threading
from collections.abc import Iterator
from typing import Any

import awkward as ak
import numpy as np
import pytest
import torch

import storagering as sr
from storagering.errors import LoaderError, NotFoundError, SchemaError, SpecError
from storagering.loaders.torch import DataLoader

Batch = dict[str, Any]


def events(batches: Iterator[Batch] | DataLoader) -> list[int]:
    """Event numbers in order of delivery: they identify entries."""
    return [n for batch in batches for n in batch["id"].tolist()]


def all_events(dataset: sr.Dataset) -> list[int]:
    """(run, event) is not unique across files; the pair of label and event is."""
    numbers: list[int] = ak.to_numpy(dataset.arrays(["event"]).event).astype(np.int64).tolist()
    return numbers


@pytest.mark.parametrize("shuffle", ["block", "exact", None])
@pytest.mark.parametrize("batch_size", [1, 64, 5000])
def test_an_epoch_holds_each_entry_once(dataset: sr.Dataset, shuffle: Any, batch_size: int) -> None:
    with DataLoader(dataset, batch_size, {"id": "event"}, shuffle=shuffle) as loader:
        batches = list(loader)
    assert len(batches) == len(loader) == -(-dataset.num_entries // batch_size)
    assert [len(b["id"]) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert sorted(events(iter(batches))) == sorted(all_events(dataset))
    if shuffle is None:
        assert events(iter(batches)) == all_events(dataset)


def test_orders(dataset: sr.Dataset) -> None:
    loader = DataLoader(dataset, 64, {"id": "event"}, seed=5)
    first, second = events(loader), events(loader)
    assert first != second
    assert loader.epoch == 2
    loader.set_epoch(0)
    assert events(loader) == first
    assert events(DataLoader(dataset, 64, {"id": "event"}, seed=5, threads=4, prefetch_batches=0)) == first
    assert events(DataLoader(dataset, 64, {"id": "event"}, seed=6)) != first


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_each_global_batch(dataset: sr.Dataset, world_size: int) -> None:
    columns = {"id": "event"}
    whole = [b["id"].tolist() for b in DataLoader(dataset, 12, columns)]
    ranks = [
        [b["id"].tolist() for b in DataLoader(dataset, 12 // world_size, columns, rank=r, world_size=world_size)]
        for r in range(world_size)
    ]
    together = [sorted(n for part in parts for n in part) for parts in zip(*ranks, strict=True)]
    assert together == [sorted(batch) for batch in whole]


def test_drop_last(dataset: sr.Dataset) -> None:
    batches = list(DataLoader(dataset, 64, {"id": "event"}, tail="drop"))
    assert [len(b["id"]) for b in batches] == [64] * (dataset.num_entries // 64)


def test_values_and_types(dataset: sr.Dataset) -> None:
    truth = dataset.arrays()
    names = ["MET_pt", "nVtx", "weight", "passed", "image", "run", "event", "label"]
    batch = next(iter(DataLoader(dataset, dataset.num_entries, names, shuffle=None)))
    for name in names:
        expected = ak.to_numpy(truth[name])
        np.testing.assert_array_equal(batch[name].numpy(), expected.astype(batch[name].numpy().dtype))
    kinds = {n: batch[n].dtype for n in names}
    assert kinds["MET_pt"] == torch.float32
    assert kinds["weight"] == torch.float64
    assert kinds["passed"] == torch.bool
    assert kinds["run"] == kinds["event"] == kinds["label"] == torch.int64
    assert batch["image"].shape == (dataset.num_entries, 4, 4)


def test_groups_are_stacked(dataset: sr.Dataset) -> None:
    truth = dataset.arrays(["MET_pt", "nVtx"])
    batch = next(iter(DataLoader(dataset, 100, {"x": ["MET_pt", "nVtx"]}, shuffle=None)))
    expected = np.stack([ak.to_numpy(truth.MET_pt), ak.to_numpy(truth.nVtx)], axis=1)[:100]
    assert batch["x"].dtype == torch.float32
    np.testing.assert_array_equal(batch["x"].numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_jagged_modes_agree_with_awkward(dataset: sr.Dataset, batch_size: int) -> None:
    truth = dataset.arrays(["event", "Jet_pt", "Jet_eta"])
    columns = {"id": "event", "jets": ["Jet_pt", "Jet_eta"]}
    loaders = {mode: DataLoader(dataset, batch_size, columns, jagged=mode) for mode in ("flat", "padded", "nested")}
    cut = DataLoader(dataset, batch_size, columns, jagged="padded", pad_to=3)
    order = {number: row for row, number in enumerate(ak.to_numpy(truth.event).astype(np.int64).tolist())}
    doubled = len(order) != dataset.num_entries
    for flat, padded, nested, short in zip(*loaders.values(), cut, strict=True):
        counts = (flat["jets_offsets"][1:] - flat["jets_offsets"][:-1]).tolist()
        assert padded["jets_mask"].sum(1).tolist() == counts
        assert padded["jets"].shape[1] == max(counts)
        torch.testing.assert_close(padded["jets"][padded["jets_mask"]], flat["jets"], rtol=0, atol=0)
        assert not padded["jets"][~padded["jets_mask"]].any()
        assert [len(t) for t in nested["jets"].unbind()] == counts
        torch.testing.assert_close(nested["jets"].values(), flat["jets"], rtol=0, atol=0)
        assert short["jets"].shape[1] == 3
        keep = padded["jets"][:, :3]
        torch.testing.assert_close(short["jets"][:, : keep.shape[1]], keep, rtol=0, atol=0)
        if not doubled:
            rows = [order[n] for n in flat["id"].tolist()]
            np.testing.assert_array_equal(flat["jets"][:, 0].numpy(), ak.to_numpy(ak.flatten(truth.Jet_pt[rows])))


def test_splits(dataset: sr.Dataset) -> None:
    train = DataLoader(dataset, 50, {"id": "event", "y": "label"}, split=(0, 0.75))
    test = DataLoader(dataset, 50, {"id": "event", "y": "label"}, split=(0.75, 1))
    pairs = [
        [(n, y) for b in loader for n, y in zip(b["id"].tolist(), b["y"].tolist(), strict=True)]
        for loader in (train, test)
    ]
    assert not set(pairs[0]) & set(pairs[1])
    assert len(pairs[0]) + len(pairs[1]) == dataset.num_entries
    assert 0.65 < len(pairs[0]) / dataset.num_entries < 0.85


def test_block_shuffle_mixes_classes(dataset: sr.Dataset) -> None:
    """The files hold one class each; no batch of the first half may be of one class."""
    batches = list(DataLoader(dataset, 64, ["label"]))
    assert all(0 < b["label"].float().mean() < 1 for b in batches[:-1])


@pytest.mark.scenario(44)
def test_selection_of_nothing_gives_empty_epochs(toy_files: list[Any]) -> None:
    empty = sr.convert(str(toy_files[0]), name="nothing", where="MET_pt < 0", workers=1)
    for world in (1, 4):
        for rank in range(world):
            loader = DataLoader(empty, 8, ["MET_pt"], rank=rank, world_size=world)
            assert len(loader) == 0
            assert list(loader) == []


@pytest.mark.scenario(53)
def test_fewer_entries_than_ranks(toy_files: list[Any]) -> None:
    one = sr.convert(str(toy_files[0]), name="one", where="event == 1152921504606846977", workers=1)
    assert one.num_entries == 1
    for columns in (["MET_pt"], ["Jet_pt"]):
        batches = [list(DataLoader(one, 8, columns, rank=r, world_size=8)) for r in range(8)]
        assert [len(b) for b in batches] == [1] * 8
        assert sum(len(b[0][columns[0]]) for b in batches) == 1


def test_refusals(dataset: sr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (
        {"batch_size": 0}, {"seed": -1}, {"rank": 2, "world_size": 2}, {"rank": 0}, {"shuffle": "yes"},
        {"jagged": "dense"}, {"pad_to": 0}, {"prefetch_batches": -1}, {"split": (0.5, 0.5)},
    ):  # fmt: skip
        with pytest.raises(SpecError):
            DataLoader(dataset, **wrong)
    with pytest.raises(SchemaError, match="nearest names: 'Jet_pt'"):
        DataLoader(dataset, columns=["Jet_p"])
    with pytest.raises(NotFoundError, match="cache is empty"):
        DataLoader("nope")
    monkeypatch.setenv("STORAGERING_EXACT_SHUFFLE_BYTES", "1000")
    with pytest.raises(SpecError, match="shuffle='block'"):
        DataLoader(dataset, shuffle="exact")


def test_groups_of_different_lengths_are_refused(toy_files: list[Any]) -> None:
    define = {"hard": "Jet_pt[Jet_pt > 40]"}
    made = sr.convert(str(toy_files[0]), name="uneven", define=define, workers=1)
    with (
        DataLoader(made, 8, {"x": ["Jet_pt", "hard"]}) as loader,
        pytest.raises(SchemaError, match="different lengths"),
    ):
        next(iter(loader))


@pytest.mark.scenario(57)
def test_threads_end_with_the_iteration(dataset: sr.Dataset) -> None:
    before = threading.active_count()
    loader = DataLoader(dataset, 16, ["MET_pt"])
    iterator = iter(loader)
    next(iterator)
    assert threading.active_count() > before
    loader.close()
    assert threading.active_count() == before
    loader.close()
    with loader:
        for _ in loader:
            break
    assert threading.active_count() == before


@pytest.mark.scenario(57)
def test_a_broken_iteration_starts_again(dataset: sr.Dataset) -> None:
    loader = DataLoader(dataset, 64, {"id": "event"})
    whole = events(loader)
    loader.set_epoch(0)
    for _ in loader:
        break
    assert events(loader) == whole


def test_damage_reaches_the_consumer(toy_files: list[Any]) -> None:
    made = sr.convert(str(toy_files[0]), name="damaged", chunk_bytes=8192, workers=1)
    path = made.path / made.manifest.chunks[3].file
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(bytes(data))
    for ahead in (0, 2):
        loader = DataLoader(made, 32, prefetch_batches=ahead)
        with pytest.raises(sr.StorageringError, match=path.name):
            list(loader)
    assert not isinstance(LoaderError("x"), ValueError)
