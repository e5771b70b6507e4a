"""salt-ml: SaltDataset and RandomBatchSampler, contiguous batches in random order, from padded HDF5 (lzf)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from salt.data.datasets import SaltDataset
from salt.data.samplers import RandomBatchSampler

from storagering.testing.loading.case import (
    FLAT_FEATURES,
    JET_FEATURES,
    MAX_PARTICLES,
    PARTICLE_FEATURES,
    Array,
    Batch,
    Block,
    Case,
    Epoch,
    Jagged,
    Variant,
    cut,
    pad,
)
from storagering.testing.loading.mixing import spans


def _names(case: Case) -> tuple[str, ...]:
    return JET_FEATURES if case.data == "w2" else FLAT_FEATURES


def _records(names: tuple[str, ...], values: Any, last: str, extra: Any) -> Array:
    kind = np.dtype([*((name, "f4") for name in names), (last, extra.dtype)])
    records = np.zeros(extra.shape, kind)
    for number, name in enumerate(names):
        records[name] = values[..., number]
    records[last] = extra
    return records


def _write(file: Any, case: Case, block: Block) -> None:
    first, *_, label = block
    count = len(label)
    packed = {"compression": "lzf", "shuffle": True}
    jets = tracks = None
    for start, stop in spans(count, 20_000):
        first, *flat, label = cut(block, start, stop)
        found = _records(_names(case), flat[0] if flat else first, "label", np.asarray(label))
        if jets is None:
            jets = file.create_dataset("jets", (count,), found.dtype, chunks=(min(count, 1000),), **packed)
            jets.attrs["label"] = [str(number) for number in range(10)]
        jets[start:stop] = found
        if isinstance(first, Jagged):
            valid = np.arange(MAX_PARTICLES) < np.diff(first.offsets)[:, None]
            found = _records(PARTICLE_FEATURES, pad(first), "valid", valid)
            if tracks is None:
                shape = (count, MAX_PARTICLES)
                tracks = file.create_dataset(
                    "tracks", shape, found.dtype, chunks=(min(count, 100), MAX_PARTICLES), **packed
                )
            tracks[start:stop] = found


def files(case: Case) -> list[Path]:
    """Structured arrays ``jets`` and ``tracks``."""

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            _write(file, case, case.arrays())

    return [case.made("salt.h5", write)]


def open_batches(case: Case) -> Epoch:
    """Its "weak shuffle"."""
    variables = {"jets": list(_names(case))} | ({"tracks": list(PARTICLE_FEATURES)} if case.data == "w2" else {})
    dataset = SaltDataset(
        str(files(case)[0]), norm_dict="", variables=variables, stage="fit", labels={"jets": ["label"]}
    )
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=None,
        sampler=RandomBatchSampler(dataset, case.batch_size, shuffle=True),
        num_workers=case.workers,
        persistent_workers=case.workers > 0,
    )

    def epoch(_: int) -> Iterator[Batch]:
        for inputs, _mask, labels in loader:
            yield *(inputs[name] for name in ("tracks", "jets") if name in inputs), labels["jets"]["label"]

    return epoch


VARIANTS = {"h5": Variant(files, open_batches)}
