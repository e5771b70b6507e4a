"""Ids of entries lead back to their sources."""

from typing import Any

import numpy as np
import pytest

from storagering.api import convert
from storagering.cache.dataset import Dataset
from storagering.cache.entries import entry_ids, locate_entry
from storagering.cache.entry_keys import split_ids
from storagering.errors import SchemaError, SpecError
from storagering.testing.toys import toy_columns, write_toy_rntuple
from storagering.types import Array

ENTRIES = (700, 350, 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("in")
    for number, entries in enumerate(ENTRIES):
        write_toy_rntuple(folder / f"{number}.root", entries=entries, seed=number, cluster_entries=90)
    return [str(path) for path in sorted(folder.iterdir())]


def make(files: list[str], name: str = "x", **options: Any) -> Dataset:
    return convert(files, name=name, columns=["MET_pt", "event"], chunk_bytes=5000, workers=1, **options)


def test_ids_split(files: list[str]) -> None:
    ids: Array = entry_ids(make(files, mix=7))
    sources, entries = split_ids(ids)
    assert [int((sources == n).sum()) for n in range(3)] == list(ENTRIES)
    assert entries.max() == ENTRIES[0] - 1


def test_the_way_back(files: list[str]) -> None:
    dataset = make(files, mix=7)
    ids = entry_ids(dataset, 10, 20)
    np.testing.assert_array_equal(ids, entry_ids(dataset)[10:20])
    source, entry = locate_entry(dataset.manifest, int(ids[3]))
    number = files.index(source.url)
    assert dataset.arrays(["event"], 13, 14).event[0] == toy_columns(ENTRIES[number], number)["event"][entry]
    for wrong in (-1, 3 << 40, 700, 1 << 63):
        with pytest.raises(SpecError, match="no entry of dataset 'x' has the id"):
            locate_entry(dataset.manifest, wrong)


def test_ids_of_datasets_that_are_not_mixed(files: list[str]) -> None:
    dataset = make(files)
    expected = np.concatenate([np.arange(n, dtype=np.uint64) | np.uint64(s << 40) for s, n in enumerate(ENTRIES)])
    np.testing.assert_array_equal(entry_ids(dataset), expected)
    np.testing.assert_array_equal(entry_ids(dataset, 690, 710), expected[690:710])
    with pytest.raises(SpecError):
        entry_ids(dataset, -1)
    with pytest.raises(SchemaError, match="convert it with --mix SEED"):
        entry_ids(make(files, "some", where="MET_pt > 40"))
