"""Ranks in processes of their own, found through torch.distributed: every global batch has the same entries."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.faults.processes import Child

import storagering as sr
from storagering.loaders.torch import DataLoader

COLUMNS = {"id": "event", "y": "label", "x": ["MET_pt", "nVtx"]}
GLOBAL_BATCH = 64


def read(rank: int, world_size: int, threads: int, folder: Path, state: dict[str, Any] | None) -> str:
    """The entries of each of this rank's batches, and the loader's state after half of them."""
    dist.init_process_group("gloo", f"file://{folder}/store", world_size=world_size, rank=rank)
    with DataLoader("toys", GLOBAL_BATCH // world_size, COLUMNS, seed=3, threads=threads) as loader:
        if state is not None:
            loader.load_state_dict(state)
        found = []
        half: dict[str, Any] = {}
        for step, batch in enumerate(loader):
            found.append(entries_of(batch))
            if step == 7:
                half = loader.state_dict()
    dist.destroy_process_group()
    return json.dumps([found, half])


def entries_of(batch: dict[str, Any]) -> list[str]:
    """Digests of every bit of every entry."""
    parts = [batch[key].reshape(len(batch["y"]), -1).to(torch.float64) for key in sorted(COLUMNS)]
    return [hashlib.md5(row.numpy().tobytes()).hexdigest()[:8] for row in torch.cat(parts, dim=1)]


def run(tmp_path: Path, world_size: int, threads: int, state: Any = None) -> tuple[list[list[str]], Any]:
    folder = tmp_path / f"{world_size}-{threads}-{state is not None}"
    folder.mkdir()
    ranks = [Child(read, rank, world_size, threads, folder, state) for rank in range(world_size)]
    results = [json.loads(child.result(seconds=120)) for child in ranks]
    together = [
        sorted(x for part in parts for x in part) for parts in zip(*(found for found, _ in results), strict=True)
    ]
    return together, results[0][1]


def convert_toys(toy_files: list[Path]) -> list[list[str]]:
    """The dataset, and the entries of its global batches as one process gets them."""
    sources = {"signal": [str(toy_files[0])], "background": [str(toy_files[1])]}
    sr.convert(sources, name="toys", chunk_bytes=8192, workers=1)
    with DataLoader("toys", GLOBAL_BATCH, COLUMNS, seed=3, threads=4) as loader:
        return [sorted(entries_of(batch)) for batch in loader]


@pytest.mark.scenario(55)
def test_global_batches_are_the_same_for_ranks_in_processes(toy_files: list[Path], tmp_path: Path) -> None:
    """For 1, 2 and 4 ranks and 1 and 4 threads; and 2 ranks go on where 4 have stopped."""
    one = convert_toys(toy_files)
    assert sum(map(len, one)) == 1033
    four, state = run(tmp_path, 4, 1)
    assert four == one
    two, _ = run(tmp_path, 2, 1, state)
    assert two == one[8:]


@pytest.mark.soak
@pytest.mark.scenario(55)
def test_eight_ranks(toy_files: list[Path], tmp_path: Path) -> None:
    one = convert_toys(toy_files)
    eight, _ = run(tmp_path, 8, 1)
    assert eight == one
