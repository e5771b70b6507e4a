"""The epoch engine: tails, leading columns, exact orders from packed entries, sparse images, faults of threads."""

import threading
import time
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np
import pytest
import torch

import storagering as sr
from storagering.config import load_settings
from storagering.errors import LoaderError, SchemaError, SpecError
from storagering.loaders.options import LoaderOptions, Options
from storagering.loaders.torch import DataLoader

SIGNAL, BACKGROUND = 700, 333
ONE_STORE = pytest.mark.parametrize("dataset", ["zarr"], indirect=True)
TAILS: tuple[Any, ...] = ("drop", "pad", "wrap")


@pytest.fixture(scope="module")
def packed(toy_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> sr.Dataset:
    """The same entries as `dataset` has, in the rows layout."""
    settings = load_settings(cache=tmp_path_factory.mktemp("packed"), workers=1)
    sources = {"signal": [str(toy_files[0])], "background": [str(toy_files[1])]}
    return sr.convert(sources, name="toys", layout="rows", chunk_bytes=8192, settings=settings)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[sr.Dataset, Any]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(5)
    cells = np.where(rng.random((300, 5, 6)) < 0.2, rng.normal(size=(300, 5, 6)), 0).astype(np.float32)
    with h5py.File(folder / "images.h5", "w") as file:
        file["images"], file["number"] = cells, np.arange(300)
    settings = load_settings(cache=folder / "cache", workers=1)
    return (
        sr.convert(str(folder / "images.h5"), name="images", sparse=("images",), chunk_bytes=4096, settings=settings),
        cells,
    )


@pytest.mark.scenario(53)
@pytest.mark.parametrize("shuffle", ["block", "exact", None])
@pytest.mark.parametrize("world_size", [1, 3])
@ONE_STORE
def test_tails(dataset: sr.Dataset, shuffle: Any, world_size: int) -> None:
    """All ranks have equally many batches; padding is marked and zero, wrapping repeats what came first."""
    total, batch = SIGNAL + BACKGROUND, 60 // world_size
    columns: dict[str, Any] = {"id": "event", "jets": ["Jet_pt", "Jet_eta"], "y": "label"}
    found: dict[str, list[Any]] = {}
    for tail in TAILS:
        ranks = [
            list(DataLoader(dataset, batch, columns, shuffle=shuffle, tail=tail, rank=r, world_size=world_size))
            for r in range(world_size)
        ]
        assert {len(batches) for batches in ranks} == {total // 60 if tail == "drop" else -(-total // 60)}
        assert {len(b["id"]) for batches in ranks for b in batches} == {batch}
        found[tail] = [b for batches in ranks for b in batches]
    assert len({(int(n), int(y)) for b in found["drop"] for n, y in zip(b["id"], b["y"], strict=True)}) == 1020
    real = [b["mask"] for b in found["pad"]]
    assert sum(int(mask.sum()) for mask in real) == total
    for b, mask in zip(found["pad"], real, strict=True):
        assert not b["id"][~mask].any()
        assert not b["jets_mask"][~mask].any()
    wrapped = [(int(n), int(y)) for b in found["wrap"] for n, y in zip(b["id"], b["y"], strict=True)]
    assert len(wrapped) == 1080
    assert len(set(wrapped)) == total


@ONE_STORE
def test_longer_entries_are_cut_by_a_leading_column(dataset: sr.Dataset) -> None:
    truth = dataset.arrays(["Jet_pt", "Jet_eta"])
    options: LoaderOptions = {"shuffle": None, "pad_to": 2, "lead": "Jet_pt"}
    batch = next(iter(DataLoader(dataset, dataset.num_entries, {"jets": ["Jet_eta", "Jet_pt"]}, **options)))
    order = ak.argsort(truth.Jet_pt, ascending=False, stable=True)
    for column, name in enumerate(("Jet_eta", "Jet_pt")):
        kept = ak.where(ak.num(truth.Jet_pt) > 2, truth[name][order], truth[name])
        expected = ak.to_numpy(ak.fill_none(ak.pad_none(kept, 2, clip=True), 0))
        np.testing.assert_array_equal(batch["jets"][..., column].numpy(), expected)
    with pytest.raises(SchemaError, match="nearest names: 'Jet_pt'"):
        DataLoader(dataset, 8, ["Jet_pt"], pad_to=2, lead="Jet_p")


@ONE_STORE
def test_an_exact_order_is_the_same_from_packed_entries_and_from_memory(
    dataset: sr.Dataset, packed: sr.Dataset
) -> None:
    """Also with entries left out, padding, and groups that are not packed; flat ones are not held in memory."""
    columns: dict[str, Any] = {"x": ["MET_pt", "nVtx"], "id": "event", "jets": "Jet_pt", "image": "image"}
    options: LoaderOptions = {"shuffle": "exact", "seed": 3, "split": (0.1, 0.9), "tail": "pad"}
    pairs = zip(DataLoader(dataset, 100, columns, **options), DataLoader(packed, 100, columns, **options), strict=True)
    for one, other in pairs:
        assert one.keys() == other.keys()
        for key, tensor in one.items():
            assert torch.equal(tensor, other[key]), key


def test_packed_entries_need_no_memory(packed: sr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGERING_EXACT_SHUFFLE_BYTES", "1")
    columns = ["MET_pt", "nVtx"]
    assert sum(len(b["nVtx"]) for b in DataLoader(packed, 100, columns, shuffle="exact")) == packed.num_entries
    with pytest.raises(SpecError, match="--layout rows"):
        DataLoader(packed, 100, ["Jet_pt"], shuffle="exact")


@pytest.mark.parametrize("shuffle", ["block", "exact", None])
def test_sparse_images_come_dense(images: tuple[sr.Dataset, Any], shuffle: Any) -> None:
    dataset, cells = images
    for tail in ("short", "pad"):
        options: LoaderOptions = {"shuffle": shuffle, "tail": "pad" if tail == "pad" else "short"}
        loader = DataLoader(dataset, 64, {"x": "images", "n": "number"}, **options)
        seen = []
        for batch in loader:
            real = batch.get("mask", torch.ones(len(batch["n"]), dtype=torch.bool))
            np.testing.assert_array_equal(batch["x"][real].numpy(), cells[batch["n"][real].numpy()])
            assert not batch["x"][~real].any()
            seen += batch["n"][real].tolist()
        assert sorted(seen) == list(range(300))


def test_a_batch_that_is_kept_does_not_change(dataset: sr.Dataset) -> None:
    """Memory is lent again only when nothing refers to it; what the user does to a batch stays with that batch."""
    columns: dict[str, Any] = {"x": ["MET_pt", "nVtx"], "jets": ["Jet_pt"], "id": "event"}
    fresh = [{k: v.clone() for k, v in batch.items()} for batch in DataLoader(dataset, 32, columns)]
    kept = []
    for batch in DataLoader(dataset, 32, columns):
        kept.append(batch)
        if len(kept) % 3 == 0:
            batch["x"] += 1
    for number, (one, other) in enumerate(zip(kept, fresh, strict=True), 1):
        assert torch.equal(one["x"], other["x"] + 1 if number % 3 == 0 else other["x"])
        assert torch.equal(one["jets"], other["jets"])
        assert torch.equal(one["id"], other["id"])


@ONE_STORE
def test_transforms_see_whole_batches(dataset: sr.Dataset) -> None:
    def double(batch: dict[str, Any]) -> dict[str, Any]:
        assert threading.current_thread() is not threading.main_thread()
        return {"twice": batch["MET_pt"] * 2, "MET_pt": batch["MET_pt"]}

    for batch in DataLoader(dataset, 100, ["MET_pt"], transform=double):
        assert torch.equal(batch["twice"], 2 * batch["MET_pt"])


@pytest.mark.scenario(51)
@ONE_STORE
def test_what_a_thread_raises_reaches_the_loop(dataset: sr.Dataset) -> None:
    def fail(batch: dict[str, Any]) -> dict[str, Any]:
        raise ZeroDivisionError("mine")

    before = threading.active_count()
    with DataLoader(dataset, 100, ["MET_pt"], transform=fail) as loader, pytest.raises(ZeroDivisionError, match="mine"):
        next(iter(loader))
    assert threading.active_count() == before


@pytest.mark.scenario(51)
@ONE_STORE
def test_threads_that_stand_still_are_given_up(dataset: sr.Dataset) -> None:
    go_on = threading.Event()

    def stand_still(batch: dict[str, Any]) -> dict[str, Any]:
        go_on.wait(60)
        return batch

    began = time.monotonic()
    loader = DataLoader(dataset, 100, ["MET_pt"], transform=stand_still, stall_seconds=0.3)
    try:
        with pytest.raises(LoaderError, match="no thread of the loader has done anything"):
            next(iter(loader))
    finally:
        go_on.set()
        loader.close()
    assert time.monotonic() - began < 30


@pytest.mark.scenario(52)
@ONE_STORE
def test_no_shared_memory_is_used(dataset: sr.Dataset) -> None:
    """However small it is, nothing of it is missed: batches are made by threads, in memory of the process."""
    before = {path.name for path in Path("/dev/shm").iterdir()}
    for _ in DataLoader(dataset, 100, ["MET_pt", "Jet_pt"], pad_to=4):
        assert {path.name for path in Path("/dev/shm").iterdir()} <= before


@ONE_STORE
def test_options_are_known_by_name(dataset: sr.Dataset) -> None:
    assert set(LoaderOptions.__annotations__) == set(Options.__dataclass_fields__)
    with pytest.raises(SpecError, match="no option 'sed'; nearest names: 'seed'"):
        DataLoader(dataset, 8, sed=1)  # type: ignore[call-arg]
    for wrong in ({"tail": "cut"}, {"lead": "Jet_pt"}, {"stall_seconds": 0}, {"threads": 0}):
        with pytest.raises(SpecError):
            DataLoader(dataset, 8, **wrong)


@ONE_STORE
def test_no_cuda_here(dataset: sr.Dataset) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(SpecError, match="this PyTorch sees no such device"):
            DataLoader(dataset, 8, device="cuda")
    assert next(iter(DataLoader(dataset, 8, ["MET_pt"], device="cpu")))["MET_pt"].device.type == "cpu"
