"""Two ranks train on one dataset and one of them fails: both end, and what they share is whole."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.faults.processes import Child

from storagering.api import convert, verify
from storagering.cache.dataset import Dataset
from storagering.cache.layout import open_cache
from storagering.config import load_settings
from storagering.errors import ChecksumError
from storagering.testing.toys import write_toy_tree

RANKS, STEPS = 2, 4
TIMEOUT_SECONDS = 10


def be_killed(dataset: Dataset) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def find_damage(dataset: Dataset) -> None:
    """Read a chunk that was damaged meanwhile."""
    chunk = dataset.manifest.chunks[0]
    path = dataset.path / chunk.file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    list(dataset.batches())


def train(rank: int, folder: Path, fail: Callable[[Dataset], None]) -> str:
    """Sum each batch over all ranks and save a checkpoint; the last rank fails after some steps."""
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    from storagering.loaders.torch import DataLoader
    from storagering.training.checkpoint import Checkpoint, save_checkpoint

    dist.init_process_group(
        "gloo", f"file://{folder}/store", timedelta(seconds=TIMEOUT_SECONDS), world_size=RANKS, rank=rank
    )
    with DataLoader("toy", 10, ["MET_pt"], prefetch_batches=2) as loader:
        for step, batch in enumerate(loader):
            total = batch["MET_pt"].sum()
            dist.all_reduce(total)
            if rank == 0:
                save_checkpoint(folder / "checkpoint", Checkpoint({"total": total}, {"step": step}))
            if step == STEPS and rank == RANKS - 1:
                fail(loader.dataset)
    torch.distributed.destroy_process_group()
    return "finished"


@pytest.mark.scenario(59)
@pytest.mark.parametrize("fail", [be_killed, find_damage], ids=lambda fail: fail.__name__)
def test_one_rank_fails(tmp_path: Path, fail: Callable[[Dataset], None]) -> None:
    from storagering.training.checkpoint import load_checkpoint

    write_toy_tree(tmp_path / "toy.root", entries=1000)
    convert(str(tmp_path / "toy.root"), name="toy", workers=1, chunk_bytes=8192)
    ranks = [Child(train, rank, tmp_path, fail) for rank in range(RANKS)]
    told = []
    for child in ranks:
        with pytest.raises(AssertionError) as caught:
            child.result(seconds=60 + 2 * TIMEOUT_SECONDS)
        told.append(str(caught.value))
    assert "RuntimeError" in told[0]
    assert ChecksumError.__name__ in told[1] if fail is find_damage else f"ended with {-signal.SIGKILL}" in told[1]
    assert load_checkpoint(tmp_path / "checkpoint").state["step"] >= STEPS - 1
    faults = verify("toy")
    assert [fault.chunk for fault in faults] == ([0] if fail is find_damage else [])
    assert verify("toy", repair=True) == ()
    assert not list((open_cache(load_settings()).root / "staging").iterdir())
