"""A dataset whose entries are known by their numbers, which rise from chunk to chunk."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import storagering as sr
from storagering.types import Array

ENTRIES = 4000


def columns_of(entries: int = ENTRIES, seed: int = 0, first: int = 0) -> dict[str, Array]:
    """Numbers from ``first`` on; ``pt`` falls steeply and differently for the two classes, of which one is rarer."""
    rng = np.random.default_rng(seed)
    label = (rng.random(entries) < 0.2).astype(np.int32)
    return {
        "number": np.arange(first, first + entries),
        "label": label,
        "pt": (rng.exponential(1.0 + label, entries) * 100).astype(np.float32),
        "eta": rng.normal(0, 1 + 0.5 * label, entries).astype(np.float32),
        "own": rng.uniform(0.5, 1.5, entries),
        "one": np.ones(entries, np.float32),
    }


def numbered(
    folder: Path, name: str = "numbered", entries: int = ENTRIES, first: int = 0, **options: Any
) -> sr.Dataset:
    """The dataset, of many chunks."""
    columns = columns_of(entries, first=first)
    jets = pa.array([list(range(n % 3)) for n in range(entries)], pa.list_(pa.float32()))
    pq.write_table(pa.table({**columns, "jets": jets}), folder / f"{name}.parquet", row_group_size=100)
    options = {"chunk_bytes": 8192} | options
    made = sr.convert(str(folder / f"{name}.parquet"), name=name, **options)
    assert len(made.manifest.chunks) > 2
    return made
