"""The catalog and those who write it die at any moment: datasets are there all the same, and so are their rows."""

import os
import random
import signal
import time
import warnings
from pathlib import Path

import pytest
from tests.faults.processes import Child, wait_for

from storagering import api
from storagering.api import convert
from storagering.cache.dataset import open_dataset
from storagering.cache.layout import open_cache
from storagering.catalog.index import catalog_path, index_dataset
from storagering.catalog.query import sql
from storagering.config import load_settings
from storagering.testing.toys import write_toy_tree

NAMES = "SELECT name FROM datasets ORDER BY name"


@pytest.fixture
def source(tmp_path: Path) -> str:
    write_toy_tree(tmp_path / "toy.root", entries=100)
    return str(tmp_path / "toy.root")


def names() -> list[str]:
    found: list[str] = sql(NAMES).column(0).to_pylist()
    return found


def build_and_die(source: str) -> None:
    """Die as soon as the dataset is there, before the catalog knows."""
    api._enter_into_catalog = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    convert(source, name="second", workers=1)


def index_for_ever(started: Path) -> None:
    cache = open_cache(load_settings())
    while True:
        index_dataset(cache, "first")
        started.touch()


@pytest.mark.scenario(2)
def test_a_dataset_whose_builder_died_before_the_catalog_knew(source: str) -> None:
    convert(source, name="first", workers=1)
    assert names() == ["first"]
    assert Child(build_and_die, source).join() == -signal.SIGKILL
    assert len(open_dataset("second").arrays()) == 100
    assert convert(source, name="second", workers=1).manifest == open_dataset("second").manifest
    assert names() == ["first", "second"]


@pytest.mark.scenario(6)
@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.soak)])
def test_a_writer_of_the_catalog_is_killed(source: str, tmp_path: Path, kills: int) -> None:
    """At any moment: the next one reads it, or makes it anew with one warning."""
    convert(source, name="first", workers=1)
    rng = random.Random(kills)
    for number in range(kills):
        started = tmp_path / f"started-{number}"
        writer = Child(index_for_ever, started)
        wait_for(started.exists)
        time.sleep(rng.uniform(0.0, 0.1))
        writer.kill()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert names() == ["first"]
        assert len(caught) <= 1


@pytest.mark.scenario(7)
def test_a_catalog_of_a_newer_duckdb(source: str) -> None:
    convert(source, name="first", workers=1)
    path = catalog_path(open_cache(load_settings()))
    data = bytearray(path.read_bytes())
    assert data[8:12] == b"DUCK"
    data[12:20] = (1_000_000).to_bytes(8, "little")  # the version of its storage
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="the catalog could not be read .*: put aside as .*corrupt-"):
        assert names() == ["first"]
    assert names() == ["first"]
