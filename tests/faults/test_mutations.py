"""Thousands of random damages to every kind of file in the cache: none goes unseen, nothing hangs or crashes."""

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import pytest
from tests.faults.mutations import Trial, check_trials, mutated

from storagering.api import convert, verify
from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.layout import open_cache
from storagering.catalog.query import sql
from storagering.config import load_settings
from storagering.errors import CorruptDataError
from storagering.testing.toys import write_toy_rntuple

WAYS: dict[str, dict[str, Any]] = {
    "small": {},
    "fast": {"profile": "fast"},
    "parquet": {"format": "parquet"},
}
EVERYTHING = """SELECT d.*, c.*, k.digest FROM datasets d JOIN columns c ON c.dataset = d.name
    JOIN chunks k ON k.dataset = d.name ORDER BY d.name, c.position, k.chunk"""


@pytest.fixture
def datasets(tmp_path: Path) -> None:
    write_toy_rntuple(tmp_path / "toy.root", entries=40, cluster_entries=20)
    for name, way in WAYS.items():
        convert(str(tmp_path / "toy.root"), name=name, workers=1, chunk_bytes=4096, exclude=["image"], **way)


#: What tells of a dataset, and is not needed to read it.
UNREAD = ("statistics.parquet", "first-epoch.json")


def damage_files() -> Trial:
    """Chunks, manifests and statistics: either reading fails with an error of ours, or nothing has changed."""
    whole = {name: open_dataset(name).arrays() for name in WAYS}
    files = {name: sorted(path for path in open_dataset(name).path.iterdir()) for name in WAYS}

    def trial(rng: random.Random) -> str:
        name = rng.choice(sorted(WAYS))
        path = rng.choice(files[name])
        sound = path.read_bytes()
        path.write_bytes(mutated(rng, sound))
        try:
            outcome = _read(open_dataset(name), whole[name])
            assert [fault.file for fault in verify(name)] == [path.name]
            assert outcome == (path.name in UNREAD), f"{path}: unseen by who reads"
        except CorruptDataError:
            assert path.name == "manifest.json"
        finally:
            path.write_bytes(sound)
        return path.name.partition(".")[0].partition("-")[0]

    return trial


def _read(dataset: Dataset, whole: Any) -> bool:
    """Whether all is as it was, and not an error."""
    try:
        found = dataset.arrays()
    except CorruptDataError:
        return False
    assert ak.array_equal(found, whole, equal_nan=True), "other data, and no error"
    return True


def damage_catalog() -> Trial:
    """The catalog and what DuckDB writes beside it: answers are as before."""
    before = sql(EVERYTHING).to_pylist()
    cache = open_cache(load_settings())
    path = cache.root / "catalog.duckdb"
    sound = path.read_bytes()

    def trial(rng: random.Random) -> str:
        beside = rng.random() < 0.2
        if beside:
            path.with_name("catalog.duckdb.wal").write_bytes(rng.randbytes(rng.choice([1, 64, 5000])))
        else:
            path.write_bytes(mutated(rng, sound))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert sql(EVERYTHING).to_pylist() == before
        assert len(caught) <= 1
        for leftover in cache.root.glob("catalog.duckdb*"):
            leftover.unlink()
        path.write_bytes(sound)
        return "rebuilt" if caught else "read"

    return trial


@pytest.mark.scenario(17, 19, 20)
@pytest.mark.parametrize("count", [160, pytest.param(9000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_no_damage_to_a_dataset_goes_unseen(
    datasets: None, tmp_path: Path, count: int, record_property: Callable[[str, object], None]
) -> None:
    found = check_trials(damage_files, count, tmp_path / "log")
    assert set(found) == {"chunk", "first", "manifest", "statistics"}
    assert min(found.values()) > count / 10
    assert not list((open_cache(load_settings()).root / "staging").iterdir())
    record_property("figure", f"{count:,} damages to files of datasets ({dict(found)}): 0 unseen, 0 hangs, 0 crashes")


@pytest.mark.scenario(7)
@pytest.mark.parametrize("count", [6, pytest.param(1000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_no_damage_to_the_catalog_changes_an_answer(
    datasets: None, tmp_path: Path, count: int, record_property: Callable[[str, object], None]
) -> None:
    found = check_trials(damage_catalog, count, tmp_path / "log")
    assert found["rebuilt"] > count / 10
    record_property("figure", f"{count:,} damages to the catalog ({dict(found)}): 0 other answers, 0 hangs, 0 crashes")
