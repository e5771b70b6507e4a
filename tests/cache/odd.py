"""A dataset of numbers at which comparisons go wrong, in many chunks, of which some hold one value only."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import storagering as sr

ENTRIES = 2400
GROUP = 100


def odd_columns() -> dict[str, Any]:
    """Columns by name; ``number`` rises, and most others hold few values, other ones in every chunk."""
    rng = np.random.default_rng(7)
    part = np.repeat(np.arange(ENTRIES // GROUP), GROUP)
    tenths = np.round(part * 0.1 + rng.integers(0, 2, ENTRIES) * 0.05, 2)
    wild = np.where(rng.random(ENTRIES) < 0.02, rng.choice([np.nan, np.inf, -np.inf, -0.0, 1e300], ENTRIES), tenths)
    wild[part < 6] = tenths[part < 6]
    return {
        "number": np.arange(ENTRIES),
        "run": (part // 3 + rng.integers(0, 2, ENTRIES)).astype(np.int32),
        "big": (1 << 53) - 12 + part.astype(np.int64),
        "unsigned": np.uint64(2**64 - 30) + part.astype(np.uint64),
        "small": (part - 12).astype(np.int8),
        "f": tenths.astype(np.float32),
        "half": tenths.astype(np.float16),
        "d": tenths,
        "wild": wild,
        "flag": (part % 5 == 0) & (rng.random(ENTRIES) < 0.5),
        "trigger": np.array([f"HLT_{p // 4}{'é' if p % 4 == 0 else ''}" for p in part]),
        "rare": np.where(rng.random(ENTRIES) < 0.003, "signal", "other"),
    }


def odd_dataset(folder: Path, **options: Any) -> sr.Dataset:
    """The dataset ``odd``."""
    pq.write_table(pa.table(odd_columns()), folder / "odd.parquet", row_group_size=GROUP)
    made = sr.convert(str(folder / "odd.parquet"), name="odd", chunk_bytes=GROUP * 80, **options)
    assert len(made.manifest.chunks) > 15
    return made
