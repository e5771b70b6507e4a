"""Datasets that the loader tests share: one class a file, several small chunks."""

from pathlib import Path
from typing import Any

import pytest
from tests.loaders.numbered import numbered

import storagering as sr
from storagering.config import load_settings
from storagering.testing.toys import write_toy_tree

ENTRIES = (700, 333)


@pytest.fixture(scope="session")
def toy_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("toys")
    paths = [folder / f"toy{seed}.root" for seed in range(len(ENTRIES))]
    for seed, path in enumerate(paths):
        write_toy_tree(path, entries=ENTRIES[seed], seed=seed, basket_entries=50)
    return paths


@pytest.fixture(scope="session", params=["zarr", "parquet"])
def dataset(
    request: pytest.FixtureRequest, toy_files: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> sr.Dataset:
    return convert_toys(toy_files, tmp_path_factory.mktemp("cache"), request.param)


@pytest.fixture(scope="session")
def toys(toy_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> sr.Dataset:
    """The same in one format, where the format makes no difference."""
    return convert_toys(toy_files, tmp_path_factory.mktemp("cache"), "zarr")


def convert_toys(files: list[Path], cache: Path, form: Any) -> sr.Dataset:
    settings = load_settings(cache=cache, workers=1)
    sources = {"signal": [str(files[0])], "background": [str(files[1])]}
    made = sr.convert(sources, name="toys", format=form, chunk_bytes=8192, settings=settings)
    assert len(made.manifest.chunks) > 10
    return made


@pytest.fixture(scope="session")
def events(tmp_path_factory: pytest.TempPathFactory) -> sr.Dataset:
    """See `numbered`; nobody may change it."""
    folder = tmp_path_factory.mktemp("events")
    return numbered(folder, settings=load_settings(cache=folder / "cache", workers=1))
