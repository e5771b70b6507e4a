"""Datasets of every format version: read equal, or refused by the name of their version, never misread."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.data.make_golden import fingerprints

from storagering.api import append, verify
from storagering.cache.dataset import open_dataset
from storagering.cache.manifest import decode_manifest, encode_manifest
from storagering.catalog.query import sql
from storagering.errors import FormatError
from storagering.loaders.torch import DataLoader
from storagering.testing.toys import toy_columns, write_toy_rntuple
from storagering.types import FORMAT_VERSION

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden"
VERSIONS = sorted(int(path.name) for path in GOLDEN.iterdir())
DATASETS = [(version, name) for version in VERSIONS for name in ("zarr", "parquet")]


@pytest.fixture
def golden(request: pytest.FixtureRequest, cache: Path) -> str:
    """A dataset of that version, in this test's cache."""
    version, name = request.param
    shutil.copytree(GOLDEN / str(version) / name, cache / "datasets" / name)
    return str(name)


def test_this_version_has_some() -> None:
    assert FORMAT_VERSION in VERSIONS


@pytest.mark.scenario(23)
@pytest.mark.parametrize("golden", [d for d in DATASETS if d[0] == FORMAT_VERSION], indirect=True)
def test_what_was_written_is_read(golden: str) -> None:
    dataset = open_dataset(golden)
    expected: dict[str, Any] = json.loads((GOLDEN / str(FORMAT_VERSION) / "expected.json").read_text())
    assert fingerprints(dataset) == expected[golden]
    first = toy_columns(20, 1, nested=True)
    kept = first["MET_pt"] > 2
    for name in ("passed", "Jet_pt", "hits", "trigger"):
        assert dataset.arrays([name])[name][: kept.sum()].to_list() == first[name][kept].tolist()
    assert dataset.manifest.version == 2
    assert open_dataset(golden, version=1).num_entries == kept.sum()
    assert verify(golden) == ()


@pytest.mark.scenario(23)
@pytest.mark.parametrize("golden", [d for d in DATASETS if d[0] == FORMAT_VERSION], indirect=True)
def test_all_that_is_done_with_datasets_works(golden: str, tmp_path: Path) -> None:
    entries = open_dataset(golden).num_entries
    with DataLoader(golden, batch_size=5, columns=["passed", "Jet_pt", "label"]) as loader:
        assert sum(len(batch["label"]) for batch in loader) == entries
    assert sql(f"SELECT count(*) FROM {golden}").column(0).to_pylist() == [entries]
    write_toy_rntuple(tmp_path / "third.root", entries=9, seed=3)
    assert append(golden, labels={"b": str(tmp_path / "third.root")}, workers=1).manifest.version == 3
    assert verify(golden) == ()


@pytest.mark.scenario(23)
@pytest.mark.parametrize("version", [*(v for v in VERSIONS if v != FORMAT_VERSION), FORMAT_VERSION + 1])
def test_other_versions_are_refused_by_name(cache: Path, version: int) -> None:
    folder = GOLDEN / str(min(version, FORMAT_VERSION)) / "zarr"
    shutil.copytree(folder, cache / "datasets" / "zarr")
    if version > FORMAT_VERSION:
        text = (folder / "manifest.json").read_text()
        newer = text.replace(f'"version":{FORMAT_VERSION}}},"spec_key"', f'"version":{version},"more":1}},"spec_key"')
        assert newer != text
        (cache / "datasets" / "zarr" / "manifest.json").write_text(newer)
    for use in (open_dataset, verify, append):
        with pytest.raises(FormatError, match=f"is of format version {version}; this release reads {FORMAT_VERSION}"):
            use("zarr", *(["x.root"] if use is append else []))


@pytest.mark.parametrize("name", ["zarr", "parquet"])
def test_a_manifest_is_the_same_when_it_is_written_again(name: str) -> None:
    data = (GOLDEN / str(FORMAT_VERSION) / name / "manifest.json").read_bytes()
    assert encode_manifest(decode_manifest(data, name)) == data
