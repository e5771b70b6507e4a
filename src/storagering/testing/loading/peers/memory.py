"""Tensors in memory: the limit, and what users write instead; and the same arrays mapped from disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from storagering.testing.loading.case import Batch, Case, Epoch, Jagged, Variant, take
from storagering.testing.loading.mixing import cut_rows, random_rows, to_tensors


def files(case: Case) -> list[Path]:
    """The arrays of the workload."""
    return sorted(case.folder.glob("*.npy"))


def _tensors(case: Case) -> Batch:
    block = case.arrays()
    return to_tensors(case, tuple(part if isinstance(part, Jagged) else part.copy() for part in block))


def gather(case: Case) -> Epoch:
    """A random permutation and ``index_select`` of each tensor."""
    tensors = _tensors(case)

    def epoch(number: int) -> Iterator[Batch]:
        order = torch.randperm(len(tensors[-1]), generator=torch.Generator().manual_seed(number))
        for start in range(0, len(order), case.batch_size):
            rows = order[start : start + case.batch_size]
            yield tuple(tensor.index_select(0, rows) for tensor in tensors)

    return epoch


def lists(case: Case) -> Epoch:
    """Jagged values gathered in memory with NumPy, batch by batch, and padded where the workload is."""
    mapped = case.arrays()
    block = take(mapped, np.arange(len(mapped[-1])))
    return random_rows(case, len(block[-1]), lambda rows: to_tensors(case, take(block, rows)))


def limit(case: Case) -> Epoch:
    """What no loader passes that makes the same batches of data in memory."""
    return lists(case) if case.data == "w2" else gather(case)


def tensor_dataset(case: Case) -> Epoch:
    """``TensorDataset`` and ``DataLoader(shuffle=True)``, which index sample by sample."""
    dataset = torch.utils.data.TensorDataset(*_tensors(case))
    loader = torch.utils.data.DataLoader(dataset, case.batch_size, shuffle=True, num_workers=case.workers)
    return lambda _: iter(loader)


def mapped(case: Case) -> Epoch:
    """Random rows out of memory maps: the page cache does the rest."""
    return random_rows(case, len(case.arrays()[-1]), cut_rows(case))


VARIANTS = {
    "limit": Variant(files, limit),
    "gather": Variant(files, gather),
    "dataset": Variant(files, tensor_dataset),
    "mapped": Variant(files, mapped),
}
