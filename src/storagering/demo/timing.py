"""How long an epoch takes: straight from ROOT, and from the cache."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
import torch
import uproot

from storagering.cache.dataset import Dataset
from storagering.config import Settings
from storagering.formats.remote.errors import source_errors
from storagering.formats.remote.options import storage_options
from storagering.loaders.torch import DataLoader
from storagering.types import Column

BATCH_SIZE = 128
CACHE_EPOCHS = 3
_ROOT_ENTRIES = 1000
_ROOT_SECONDS = 60.0
_MAX_COLUMNS = 20


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the data.

    Attributes:
        entries: read within ``seconds``; fewer than the dataset has if the pass was cut short.
        total: seconds that a whole pass takes, extrapolated if it was cut short.
    """

    what: str
    entries: int
    seconds: float
    total: float

    @property
    def rate(self) -> float:
        """Entries per second."""
        return self.entries / self.seconds


def comparable_columns(dataset: Dataset) -> list[str]:
    """Numeric columns that the sources have under the same name: the first 20."""
    spec = dataset.manifest.spec
    made = {name for name, _ in spec.define} | ({"label"} if spec.classes else set())
    names = [c.name for c in dataset.schema.columns if c.kind in ("flat", "jagged") and c.name not in made]
    return names[:_MAX_COLUMNS]


def time_root_epoch(dataset: Dataset, urls: Sequence[str], columns: Sequence[str], settings: Settings) -> Epoch:
    """A plain loop over the ROOT files: read, pad, make tensors; stops after a minute.

    Args:
        urls: the files of the dataset, in order.
    """
    kinds = {c.name: c for c in dataset.schema.select(columns).columns}
    total = sum(file.entries for file in dataset.manifest.sources)
    started, entries = time.perf_counter(), 0
    for url, file in zip(urls, dataset.manifest.sources, strict=True):
        with source_errors(url):
            for batch in _root_batches(url, file.tree, kinds, settings):
                entries += len(next(iter(batch.values())))
                if time.perf_counter() - started > _ROOT_SECONDS:
                    break
        if time.perf_counter() - started > _ROOT_SECONDS:
            break
    seconds = time.perf_counter() - started
    return Epoch("straight from ROOT", entries, seconds, seconds * total / max(entries, 1))


def _root_batches(
    url: str, tree: str, columns: dict[str, Column], settings: Settings
) -> Iterator[dict[str, torch.Tensor]]:
    with uproot.open(url, **storage_options(url, settings)) as file:
        for arrays in file[tree].iterate(list(columns), step_size=_ROOT_ENTRIES, library="ak"):
            for start in range(0, len(arrays), BATCH_SIZE):
                part = arrays[start : start + BATCH_SIZE]
                yield {name: _to_tensor(part[name], column) for name, column in columns.items()}


def _to_tensor(array: Any, column: Column) -> torch.Tensor:
    if column.kind == "jagged":
        longest = int(ak.max(ak.num(array, axis=1), initial=0))
        array = ak.fill_none(ak.pad_none(array, longest, axis=1), 0)
    return torch.from_numpy(np.array(ak.to_numpy(array).astype(column.dtype)))


def time_cache_epochs(dataset: Dataset, columns: Sequence[str], settings: Settings) -> list[Epoch]:
    """Shuffled passes over the dataset."""
    epochs = []
    with DataLoader(dataset, BATCH_SIZE, list(columns), jagged="padded", threads=settings.threads) as loader:
        for number in range(1, CACHE_EPOCHS + 1):
            started, entries = time.perf_counter(), 0
            for batch in loader:
                entries += len(batch[columns[0]])
            seconds = time.perf_counter() - started
            epochs.append(Epoch(f"from the cache, epoch {number}", entries, seconds, seconds))
    return epochs
