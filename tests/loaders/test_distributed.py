"""Ranks in processes of their own, found through torch.distributed: every global batch has the same entries."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tests.faults.processes import Child

import storagering as sr

COLUMNS = {"id": "event", "y": "label", "x": ["MET_pt", "nVtx"]}
GLOBAL_BATCH = 64


def read(rank: int, world_size: int, threads: int, folder: Path, state: dict[str, Any] | None) -> str:
    """The entries of each of this rank's batches, and the loader's state after half of them."""
    import torch.distributed as dist

    from storagering.loaders.torch import DataLoader

    dist.init_process_group("gloo", f"file://{folder}/store", world_size=world_size, rank=rank)
    with DataLoader("toys", GLOBAL_BATCH // world_size, COLUMNS, seed=3, threads=threads) as loader:
        if state is not None:
            loader.load_state_dict(state)
        found = []
        half: dict[str, Any] = {}
        for step, batch in enumerate(loader):
            found.append([hashlib.md5(x.numpy().tobytes()).hexdigest()[:8] for x in zip_rows(batch)])
            if step == 7:
                half = loader.state_dict()
    dist.destroy_process_group()
    return json.dumps([found, half])


def zip_rows(batch: dict[str, Any]) -> list[Any]:
    """Every bit of every entry."""
    import torch

    parts = [batch[key].reshape(len(batch["y"]), -1).to(torch.float64) for key in sorted(COLUMNS)]
    return list(torch.cat(parts, dim=1))


def run(tmp_path: Path, world_size: int, threads: int, state: Any = None) -> tuple[list[list[str]], Any]:
    folder = tmp_path / f"{world_size}-{threads}-{state is not None}"
    folder.mkdir()
    ranks = [Child(read, rank, world_size, threads, folder, state) for rank in range(world_size)]
    results = [json.loads(child.result(seconds=120)) for child in ranks]
    together = [
        sorted(x for part in parts for x in part) for parts in zip(*(found for found, _ in results), strict=True)
    ]
    return together, results[0][1]


@pytest.mark.scenario(55)
def test_global_batches_are_the_same_for_ranks_in_processes(toy_files: list[Path], tmp_path: Path) -> None:
    """For 1, 2 and 4 ranks and 1 and 4 threads; and 2 ranks go on where 4 have stopped."""
    sources = {"signal": [str(toy_files[0])], "background": [str(toy_files[1])]}
    sr.convert(sources, name="toys", chunk_bytes=8192, workers=1)
    one, _ = run(tmp_path, 1, 4)
    assert sum(map(len, one)) == 1033
    four, state = run(tmp_path, 4, 1)
    assert four == one
    two, _ = run(tmp_path, 2, 1, state)
    assert two == one[8:]
