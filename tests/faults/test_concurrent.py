"""Several processes at once: readers see nothing or the whole, and no row of the catalog is lost."""

import random
import time
from pathlib import Path

import pytest
from tests.faults.processes import Child, results

from storagering.api import convert
from storagering.cache.dataset import open_dataset
from storagering.cache.layout import open_cache
from storagering.catalog.index import index_dataset
from storagering.catalog.query import sql
from storagering.config import load_settings
from storagering.testing.toys import write_toy_tree

ENTRIES = 2000


def convert_and_index(source: str, number: int) -> None:
    for again in range(2):
        convert(source, name=f"d{number}_{again}", workers=1, columns=["run"])
        index_dataset(open_cache(load_settings()), f"d{number}_0")
        assert sql("SELECT count(*) FROM datasets").column(0)[0].as_py() > again


def build(source: str, name: str) -> None:
    convert(source, name=name, workers=1, chunk_bytes=20_000)


def read(name: str) -> int:
    """Entries of the dataset, 0 if it is not there."""
    cache = open_cache(load_settings())
    return len(open_dataset(name, cache=cache).arrays()) if name in cache.names() else 0


def test_no_row_of_the_catalog_is_lost(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=50)
    results([Child(convert_and_index, str(tmp_path / "toy.root"), number) for number in range(8)])
    names = sql("SELECT name FROM datasets ORDER BY name").column(0).to_pylist()
    assert names == sorted(f"d{p}_{n}" for p in range(8) for n in range(2))
    assert sql("SELECT count(*) FROM columns").column(0).to_pylist() == [len(names)]
    assert not list(tmp_path.glob("cache/*corrupt*"))


@pytest.mark.scenario(27)
@pytest.mark.parametrize("times", [12, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])])
def test_a_reader_sees_nothing_or_the_whole(tmp_path: Path, times: int) -> None:
    """It starts at any moment of a build."""
    source = str(tmp_path / "toy.root")
    write_toy_tree(tmp_path / "toy.root", entries=ENTRIES, basket_entries=100)
    begin = time.monotonic()
    Child(build, source, "first").result()
    duration = time.monotonic() - begin
    rng, seen = random.Random(1), []
    for number in range(times):
        builder = Child(build, source, f"toy{number}")
        time.sleep(duration * rng.uniform(0.0, 1.2))
        seen.append(Child(read, f"toy{number}").result())
        builder.result()
        duration *= 1.1 if seen[-1] == 0 else 0.95  # as the load of the machine changes
        open_cache(load_settings()).remove(f"toy{number}")
    assert set(seen) == {0, ENTRIES}
    assert times / 10 < seen.count(ENTRIES) < 0.9 * times
