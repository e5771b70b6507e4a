"""Loaders over a cache that is too small, or damaged: the same batches, or a typed error."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import storagering as sr
from storagering.errors import CacheFullError, ChecksumError
from storagering.housekeeping import du
from storagering.loaders.loader import MIX_CHUNKS
from storagering.loaders.torch import DataLoader
from storagering.testing.toys import write_toy_tree

ENTRIES = 3000


@pytest.fixture
def small(tmp_path: Path) -> sr.Dataset:
    write_toy_tree(tmp_path / "toy.root", entries=ENTRIES, basket_entries=50)
    dataset = sr.convert(str(tmp_path / "toy.root"), name="toy", workers=1, chunk_bytes=8192)
    assert len(dataset.manifest.chunks) > 3 * MIX_CHUNKS
    return dataset


def lying_there(dataset: sr.Dataset) -> int:
    """Bytes of its chunks on the disk; some go while we look."""
    total = 0
    for path in dataset.path.glob("chunk-*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def batches(**options: object) -> list[list[int]]:
    with DataLoader("toy", batch_size=200, columns=["event"], seed=3, **options) as loader:  # type: ignore[arg-type]
        return [batch["event"].tolist() for _ in range(2) for batch in loader]


def test_a_quota_smaller_than_the_dataset_still_trains(small: sr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = batches()
    total = sum(chunk.nbytes for chunk in small.manifest.chunks)
    quota = int(total * 0.6)
    monkeypatch.setenv("STORAGERING_QUOTA", f"{quota}B")
    with DataLoader("toy", batch_size=200, columns=["event"], seed=3) as loader:
        found = []
        for _ in range(2):
            for batch in loader:
                found.append(batch["event"].tolist())
                assert lying_there(small) <= quota
    assert found == expected


@pytest.mark.scenario(11)
def test_a_quota_smaller_than_a_window_is_refused_when_the_epoch_is_planned(
    small: sr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGERING_QUOTA", "24KB")
    with DataLoader("toy", columns=["event"]) as loader, pytest.raises(CacheFullError, match="will never fit"):
        iter(loader)
    with DataLoader("toy", 20, ["event"], shuffle=None) as loader:  # one chunk at a time
        assert sum(len(batch["event"]) for batch in loader) == ENTRIES


def test_what_a_loader_needs_is_pinned_until_it_is_closed(small: sr.Dataset) -> None:
    loader = DataLoader("toy", columns=["event"])
    assert du().datasets[0].pins == ()
    iterator = iter(loader)
    next(iterator)
    assert "training on toy" in du().datasets[0].pins[0]
    loader.close()
    assert du().datasets[0].pins == ()


def test_a_forgotten_loader_lets_go(small: sr.Dataset) -> None:
    for _ in DataLoader("toy", columns=["event"]):
        pass
    assert du().datasets[0].pins == ()


@pytest.mark.scenario(15)
@pytest.mark.parametrize("how", ["flip", "delete", "truncate"])
def test_a_damaged_chunk_is_made_again_without_changing_the_order(small: sr.Dataset, how: str) -> None:
    expected = batches()
    path = small.path / small.manifest.chunks[7].file
    whole = path.read_bytes()
    if how == "delete":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if how == "truncate" else whole[:-1] + bytes([whole[-1] ^ 1]))
    if how != "flip":
        with pytest.raises(sr.StorageringError, match=path.name):
            batches()
    assert batches(on_corrupt="rebuild") == expected
    assert path.read_bytes() == whole


@pytest.mark.scenario(15)
def test_a_chunk_that_changes_under_a_running_loader(small: sr.Dataset) -> None:
    column = np.concatenate([small.arrays(["event"]).event.to_numpy()])
    with DataLoader("toy", batch_size=100, columns=["event"], shuffle=None, on_corrupt="rebuild") as loader:
        found = []
        for step, batch in enumerate(loader):
            found += batch["event"].tolist()
            if step == 1:
                for chunk in small.manifest.chunks[-3:]:
                    path = small.path / chunk.file
                    data = bytearray(path.read_bytes())
                    data[100:120] = bytes(20)
                    path.unlink()  # the loader may have the old file open
                    path.write_bytes(data)
    assert found == column.tolist()
    data = bytearray(path.read_bytes())
    data[-20] ^= 4
    path.write_bytes(data)
    with DataLoader("toy", columns=["event"]) as loader, pytest.raises(ChecksumError, match=path.name):
        list(loader)
