"""MosaicML Streaming: local MDS shards, shuffled sample by sample (py1e, its default)."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from storagering.testing.loading.case import Case, Epoch, Variant
from storagering.testing.loading.mixing import collate, samples_of

_COLUMNS = {
    "w1": {"first": "ndarray:float32:28", "label": "int32"},
    "w2": {"first": "ndarray:float32", "jet": "ndarray:float32:4", "label": "int32"},
    "w3": {"first": "ndarray:float32:25,25,25", "energy": "float32", "label": "int32"},
}


def _streaming() -> Any:
    """The package; where torchvision cannot be loaded beside this torch, with empty modules of that name.

    It imports two names of torchvision for image data sets that nobody uses here.
    """
    try:
        import torchvision  # noqa: F401
    except Exception:  # noqa: BLE001  (a library that does not fit raises what it likes)
        for name in ("", ".datasets", ".transforms", ".transforms.functional"):
            module = ModuleType(f"torchvision{name}")
            module.__spec__ = ModuleSpec(module.__name__, None)
            vars(module).update(VisionDataset=object, CIFAR10=object, to_tensor=None, __path__=[])
            sys.modules[module.__name__] = module
    import streaming

    return streaming


def files(case: Case) -> list[Path]:
    """A folder of shards of 32 MB."""
    columns = _COLUMNS[case.data]

    def write(path: Path) -> None:
        with _streaming().MDSWriter(out=str(path), columns=columns, size_limit=1 << 25) as writer:
            for sample in samples_of(case):
                writer.write(dict(zip(columns, sample, strict=True)))

    return [case.made("mds", write)]


def open_stream(case: Case) -> Epoch:
    """Its dataset in a DataLoader."""
    streaming = _streaming()
    streaming.base.util.clean_stale_shared_memory()
    columns = _COLUMNS[case.data]
    dataset = streaming.StreamingDataset(
        local=str(files(case)[0]), shuffle=True, shuffle_algo="py1e", batch_size=case.batch_size, shuffle_seed=1
    )
    loader = torch.utils.data.DataLoader(
        dataset,
        case.batch_size,
        num_workers=case.workers,
        collate_fn=lambda samples: collate(case, [tuple(np.asarray(s[name]) for name in columns) for s in samples]),
        persistent_workers=case.workers > 0,
    )
    return lambda _: iter(loader)


VARIANTS = {"py1e": Variant(files, open_stream)}
