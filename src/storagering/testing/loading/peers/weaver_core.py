"""weaver-core: SimpleIterDataset and DataLoader as its training builds them, a tenth of every file at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from weaver.utils.dataset import SimpleIterDataset

from storagering.testing.loading.case import (
    FLAT_FEATURES,
    JET_FEATURES,
    MAX_PARTICLES,
    PARTICLE_FEATURES,
    TREE,
    Batch,
    Case,
    Epoch,
    Variant,
)
from storagering.testing.loading.source import source_files


def _write_config(case: Case, path: Path) -> None:
    def group(names: tuple[str, ...], length: int | None) -> dict[str, Any]:
        return {"length": length, "pad_mode": "constant", "vars": [[name, None] for name in names]}

    flat = {"flat": group(JET_FEATURES if case.data == "w2" else FLAT_FEATURES, None)}
    inputs = ({"part": group(PARTICLE_FEATURES, MAX_PARTICLES)} if case.data == "w2" else {}) | flat
    config = {
        "treename": TREE,
        "selection": None,
        "preprocess": {"method": "manual", "data_fraction": 1},
        "inputs": inputs,
        "labels": {"type": "custom", "value": {"y": "label"}},
        "observers": None,
        "weights": None,
    }
    path.write_text(json.dumps(config))  # JSON is YAML


def open_stream(case: Case) -> Epoch:
    """Slices of all files at once, shuffled in memory."""
    config = case.made("weaver.yaml", lambda path: _write_config(case, path))
    dataset = SimpleIterDataset(
        {"_": [str(file) for file in source_files(case)]},
        str(config),
        for_training=True,
        fetch_by_files=False,
        fetch_step=0.1,
        batch_size=case.batch_size,
        async_load=True,
        name="train",
    )
    loader = torch.utils.data.DataLoader(
        dataset, case.batch_size, num_workers=case.workers, persistent_workers=case.workers > 0
    )

    def epoch(_: int) -> Iterator[Batch]:
        for inputs, labels, _observers in loader:
            yield *inputs.values(), labels["y"]

    return epoch


VARIANTS = {"root": Variant(source_files, open_stream)}
