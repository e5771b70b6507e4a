"""The peers that are installed here deliver every entry once, as it is in the data; how fast is not judged."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import uproot

from storagering.errors import InputError
from storagering.testing.loading.case import Batch, Case, Jagged, pad, take
from storagering.testing.loading.data import make_data
from storagering.testing.loading.mixing import collate, samples_of, to_tensors
from storagering.testing.loading.noise import find_places
from storagering.testing.loading.peers import arrow_rows, hdf5, memory, ours, parquet, uproot_chunks, zarr_stores

SIZES = {"w1": 5_000, "w2": 2_300, "w3": 300}
PEERS = {
    "limit": memory.VARIANTS["limit"],
    "gather": memory.VARIANTS["gather"],
    "TensorDataset": memory.VARIANTS["dataset"],
    "mapped": memory.VARIANTS["mapped"],
    "uproot": uproot_chunks.VARIANTS["chunks"],
    "h5py": hdf5.VARIANTS["blocks"],
    "h5py rows": hdf5.VARIANTS["rows"],
    "parquet": parquet.VARIANTS["zstd"],
    "zarr": zarr_stores.VARIANTS["python"],
    "ours": ours.VARIANTS["sorted"],
}
NOT_FOR = {
    "gather": {"w2f"},
    "TensorDataset": {"w2", "w2f"},
    "uproot": {"w3"},
    "h5py rows": {"w2", "w2f"},
    "ours": {"w3"},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_data(folder, SIZES)
    return folder


def check(case: Case, batches: list[Batch]) -> None:
    """Each entry once, and each batch what the arrays say."""
    block = case.arrays()
    places = [find_places(case.keys(block), case.keys(batch)) for batch in batches]
    assert sorted(np.concatenate(places).tolist()) == list(range(len(block[-1])))
    assert [len(batch[-1]) for batch in batches[:-1]] == [case.batch_size] * (len(batches) - 1)
    for rows, batch in zip(places, batches, strict=True):
        for found, expected in zip(batch, to_tensors(case, take(block, rows)), strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("peer", "workload"), [(p, w) for p in PEERS for w in ("w1", "w2", "w2f", "w3") if w not in NOT_FOR.get(p, ())]
)
def test_peer(root: Path, peer: str, workload: str) -> None:
    case = Case(root, workload)
    epoch = PEERS[peer].open(case)
    assert all(file.exists() for file in PEERS[peer].files(case))
    first, second = list(epoch(0)), list(epoch(1))
    check(case, first)
    check(case, second)
    assert not torch.equal(first[0][-2], second[0][-2])


def test_fewer_entries_are_taken_evenly(root: Path) -> None:
    case = Case(root, "w2", limit=500)
    files = uproot_chunks.VARIANTS["chunks"].files(case)
    with uproot.open({files[-1]: "events"}) as tree:
        assert tree.num_entries == 50
        assert set(tree["label"].array().tolist()) == {9}
    check(case, list(uproot_chunks.VARIANTS["chunks"].open(case)(0)))


@pytest.mark.parametrize("workload", ["w1", "w2", "w3"])
def test_samples_one_by_one_make_the_same_batch(root: Path, workload: str) -> None:
    case = Case(root, workload)
    samples = [sample for _, sample in zip(range(130), samples_of(case), strict=False)]
    expected = to_tensors(case, take(case.arrays(), np.arange(130)))
    assert all(torch.equal(*pair) for pair in zip(collate(case, samples), expected, strict=True))


@pytest.mark.parametrize("workload", ["w1", "w2", "w3"])
def test_rows_of_arrow_tables(root: Path, workload: str) -> None:
    case = Case(root, workload)
    rows = np.array([200, 3, 77])
    found = arrow_rows.decode(case, arrow_rows.table(case).take(rows))
    expected = to_tensors(case, take(case.arrays(), rows))
    assert all(torch.equal(*pair) for pair in zip(to_tensors(case, found), expected, strict=True))


def test_one_class_a_file(root: Path) -> None:
    classes = {"w1": [{0}, {0}, {1}, {1}], "w2": [{k} for k in range(10)]}
    for workload, expected in classes.items():
        files = sorted((root / workload / "source").iterdir())
        trees = [uproot.open({file: "events"}) for file in files]
        assert [set(tree["label"].array().tolist()) for tree in trees] == expected
    for number in range(2):
        with h5py.File(root / "w3" / "source" / f"{number}.h5") as file:
            assert set(file["label"][:].tolist()) == {number}
            assert np.count_nonzero(file["images"][:]) / file["images"].size == pytest.approx(0.1, abs=0.01)


def test_data_of_another_size_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"w1 holds 5,000 entries, not 10"):
        make_data(root, {"w1": 10})


def test_padding() -> None:
    lists = Jagged(np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 2, 2, 3]))
    padded = pad(lists)
    assert padded.shape == (3, 128, 2)
    assert padded[0, :3].tolist() == [[0, 1], [2, 3], [0, 0]]
    assert padded[1].sum() == 0
    assert padded[2, 0].tolist() == [4, 5]
