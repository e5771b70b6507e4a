"""A small dataset of many chunks, for tests of what comes and goes."""

from pathlib import Path

import numpy as np
import pytest

from storagering.api import convert
from storagering.cache.dataset import Dataset
from storagering.testing.toys import toy_columns, write_toy_tree

ENTRIES = 3000


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_toy_tree(tmp_path / "toy.root", entries=ENTRIES, basket_entries=250)
    return convert(str(tmp_path / "toy.root"), name="toy", workers=1, chunk_bytes=40_000)


def files(dataset: Dataset) -> set[str]:
    return {path.name for path in dataset.path.iterdir() if path.name.startswith("chunk")}


def check_whole(dataset: Dataset) -> None:
    np.testing.assert_array_equal(dataset.arrays(["event"]).event, toy_columns(ENTRIES)["event"])


def largest(dataset: Dataset) -> int:
    return max(chunk.nbytes for chunk in dataset.manifest.chunks)
