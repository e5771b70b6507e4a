"""WebDataset: tar shards of .npy members, shards shuffled, samples through a shuffle buffer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import webdataset

from storagering.testing.loading.case import Batch, Case, Epoch, Variant
from storagering.testing.loading.mixing import collate, samples_of

_SHARD = {"w1": 20_000, "w2": 5_000, "w3": 500}
_BUFFER = 10_000
_PARTS = {"w1": ("first.npy", "y.npy"), "w2": ("first.npy", "jet.npy", "y.npy"), "w3": ("first.npy", "e.npy", "y.npy")}


def files(case: Case) -> list[Path]:
    """A folder of shards."""

    def write(path: Path) -> None:
        path.mkdir()
        with webdataset.ShardWriter(str(path / "%05d.tar"), maxcount=_SHARD[case.data], verbose=0) as writer:
            for number, sample in enumerate(samples_of(case)):
                parts = {name: np.asarray(part) for name, part in zip(_PARTS[case.data], sample, strict=True)}
                writer.write({"__key__": f"{number:08d}", **parts})

    return [case.made("tar", write)]


def open_stream(case: Case) -> Epoch:
    """Its usual pipeline."""
    urls = sorted(str(path) for path in files(case)[0].iterdir())
    buffer = min(_BUFFER, case.buffer)

    def epoch(number: int) -> Iterator[Batch]:
        shards = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=number, nodesplitter=None, empty_check=False)
        samples = shards.shuffle(buffer, initial=buffer).decode().to_tuple(*_PARTS[case.data])
        batches = samples.batched(case.batch_size, collation_fn=lambda found: collate(case, found))
        return iter(webdataset.WebLoader(batches, batch_size=None, num_workers=case.workers))

    return epoch


VARIANTS = {"tar": Variant(files, open_stream)}
