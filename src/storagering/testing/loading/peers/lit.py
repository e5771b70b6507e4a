"""LitData: ``optimize`` once, then its StreamingDataset and StreamingDataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import litdata
import numpy as np

from storagering.testing.loading.case import Case, Epoch, Variant
from storagering.testing.loading.mixing import collate, samples_of


class _Samples:
    """All samples, from the one worker that ``optimize`` may start (it has to be sent there, so no closure)."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def __call__(self, _: int) -> Iterator[dict[str, Any]]:
        for first, *parts in samples_of(self.case):
            yield {"first": np.array(first), **{f"part{k}": np.array(part) for k, part in enumerate(parts)}}


def files(case: Case) -> list[Path]:
    """A folder of chunks of 32 MB."""

    def write(path: Path) -> None:
        litdata.optimize(fn=_Samples(case), inputs=[0], output_dir=str(path), chunk_bytes="32MB", num_workers=1)

    return [case.made("litdata", write)]


def open_stream(case: Case) -> Epoch:
    """Shuffled as it does by default."""
    dataset = litdata.StreamingDataset(str(files(case)[0]), shuffle=True, drop_last=False, max_pre_download=4)
    loader = litdata.StreamingDataLoader(
        dataset,
        batch_size=case.batch_size,
        num_workers=case.workers,
        collate_fn=lambda samples: collate(case, [tuple(sample.values()) for sample in samples]),
        shuffle=True,
        persistent_workers=case.workers > 0,
    )
    return lambda _: iter(loader)


VARIANTS = {"optimize": Variant(files, open_stream)}
