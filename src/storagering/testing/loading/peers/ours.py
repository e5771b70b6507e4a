"""Our loader, on datasets converted from the workload's own files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storagering.api import convert
from storagering.cache.dataset import Dataset
from storagering.config import load_settings
from storagering.loaders.plan import Shuffle
from storagering.loaders.torch import DataLoader
from storagering.testing.loading.case import (
    FLAT_FEATURES,
    JET_FEATURES,
    MAX_PARTICLES,
    PARTICLE_FEATURES,
    Batch,
    Case,
    Epoch,
    Variant,
)
from storagering.testing.loading.source import source_files

_COLUMNS: dict[str, dict[str, str | list[str]]] = {
    "w1": {"x": list(FLAT_FEATURES), "y": "label"},
    "w2": {"particles": list(PARTICLE_FEATURES), "jet": list(JET_FEATURES), "y": "label"},
    "w3": {"images": "images", "energy": "energy", "y": "label"},
}


def _variant(shuffle: Shuffle = "block", **options: Any) -> Variant:
    def dataset(case: Case) -> Dataset:
        settings = load_settings(cache=case.root / "cache")
        chosen = options | ({"sparse": ("images",)} if case.data == "w3" else {})
        name = "-".join([case.data, str(case.limit or "all"), *(f"{k}-{v}" for k, v in sorted(options.items()))])
        return convert([str(file) for file in source_files(case)], name=name, settings=settings, **chosen)

    def files(case: Case) -> list[Path]:
        return [dataset(case).path]

    def epochs(case: Case) -> Epoch:
        keys = list(_COLUMNS[case.data])
        if case.workload == "w2f":
            keys.insert(1, "particles_offsets")
        loader = DataLoader(
            dataset(case),
            case.batch_size,
            _COLUMNS[case.data],
            shuffle=shuffle,
            seed=1,
            jagged="flat" if case.workload == "w2f" else "padded",
            pad_to=MAX_PARTICLES if case.workload == "w2" else None,
            threads=case.cores,
        )

        def epoch(number: int) -> Iterator[Batch]:
            loader.set_epoch(number)
            return (tuple(batch[key] for key in keys) for batch in loader)

        return epoch

    return Variant(files, epochs)


VARIANTS = {
    "fast": _variant(profile="fast", mix=1),
    "small": _variant(profile="small", mix=1),
    "sorted": _variant(profile="fast"),
    "rows": _variant("exact", layout="rows"),
}
