"""Makes the datasets that every later release must read, or refuse by the name of their version.

python tests/data/make_golden.py    (once for each format version; what is there is never made again)
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from storagering.api import append, convert
from storagering.cache.dataset import Dataset, open_dataset
from storagering.testing.contracts import bits
from storagering.testing.toys import write_toy_rntuple
from storagering.types import FORMAT_VERSION, sha256_hex

WAYS: dict[str, dict[str, Any]] = {"zarr": {}, "parquet": {"format": "parquet"}}
COLUMNS = ["passed", "Jet_pt", "hits", "trigger"]  # of different kinds


def fingerprints(dataset: Dataset) -> dict[str, str]:
    """Column -> hash of every bit of all of its arrays."""
    batches = list(dataset.batches())
    return {name: sha256_hex(repr([bits(b.arrays[name]) for b in batches]).encode()) for name in dataset.schema.names}


def main() -> None:
    """Write the folder of this format version, with the hashes of what is in it."""
    target = Path(__file__).with_name("golden") / str(FORMAT_VERSION)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["STORAGERING_CACHE"] = f"{folder}/cache"
        write_toy_rntuple(Path("first.root"), entries=20, seed=1)
        write_toy_rntuple(Path("second.root"), entries=7, seed=2)
        expected = {}
        for name, way in WAYS.items():
            options: dict[str, Any] = {"where": "MET_pt > 2", "labels": {"b": "first.root"}}
            convert(name=name, chunk_bytes=4096, workers=1, columns=COLUMNS, **options, **way)
            append(name, labels={"c": "second.root"}, workers=1)
            expected[name] = fingerprints(open_dataset(name))
            shutil.copytree(f"cache/datasets/{name}", target / name)
        (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
