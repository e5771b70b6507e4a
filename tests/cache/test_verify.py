"""Every damaged byte is found, nothing is changed unless told, and what is mended is what it was."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storagering.api import append, convert, verify
from storagering.cache.dataset import open_dataset
from storagering.cache.layout import Cache, open_cache
from storagering.cache.unfinished import Outline, write_outline
from storagering.config import load_settings
from storagering.errors import ChecksumError, NotFoundError, SourceChangedError, StorageringError
from storagering.testing.toys import write_toy_tree
from storagering.types import Manifest

WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fast": {"profile": "fast"},
    "parquet": {"format": "parquet"},
    "selected": {"where": "MET_pt > 30", "define": {"HT": "sum(Jet_pt)"}, "exclude": ["nVtx"]},
    "few of large pieces": {"where": "MET_pt > 1", "chunk_bytes": 16_000},
    "rounded": {"precision": {"Jet_*": 10}},
}


@pytest.fixture
def opened() -> Cache:
    return open_cache(load_settings())


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.root" for number in range(3)]
    for number, path in enumerate(paths):
        write_toy_tree(path, entries=900, seed=number, basket_entries=300)
    return paths


def build(sources: list[Path], **options: Any) -> Manifest:
    usual: dict[str, Any] = {"name": "x", "workers": 1, "chunk_bytes": 50_000}
    labelled = {"a": [str(sources[0])], "b": [str(path) for path in sources[1:]]}
    return convert(labelled, **usual | options).manifest


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "cut": lambda path: os.truncate(path, 100),
    "grown": grow,
    "lost": Path.unlink,
}


@pytest.mark.scenario(22)
@pytest.mark.parametrize("way", WAYS)
def test_repair_gives_back_every_byte(sources: list[Path], opened: Cache, way: str) -> None:
    manifest = build(sources, **WAYS[way])
    whole = contents(opened.path("x"))
    numbers = [0, 1, 2, len(manifest.chunks) - 1]
    assert len(set(numbers)) == len(DAMAGES)
    for damage, number in zip(DAMAGES.values(), numbers, strict=True):
        damage(opened.path("x") / manifest.chunks[number].file)
    assert [fault.chunk for fault in verify("x")] == numbers
    assert verify("x", repair=True) == ()
    assert contents(opened.path("x")) == whole
    assert not list((opened.root / "staging").iterdir())


@pytest.mark.scenario(18, 19, 22)
@pytest.mark.parametrize("damage", DAMAGES)
def test_verify_changes_nothing(sources: list[Path], opened: Cache, damage: str) -> None:
    manifest = build(sources)
    assert verify("x") == ()
    chunk = manifest.chunks[2]
    DAMAGES[damage](opened.path("x") / chunk.file)
    before = contents(opened.path("x"))
    (fault,) = verify("x")
    assert (fault.file, fault.chunk, fault.start, fault.stop) == (chunk.file, 2, chunk.start, chunk.stop)
    assert contents(opened.path("x")) == before
    with pytest.raises(StorageringError, match=r"--repair|missing|bytes"):
        open_dataset("x").arrays()


@pytest.mark.scenario(22)
def test_the_damaged_file_is_kept_aside(sources: list[Path], opened: Cache) -> None:
    manifest = build(sources)
    flip(opened.path("x") / manifest.chunks[1].file)
    damaged = (opened.path("x") / manifest.chunks[1].file).read_bytes()
    verify("x", repair=True)
    (kept,) = (opened.root / "quarantine").iterdir()
    assert kept.read_bytes() == damaged


@pytest.mark.scenario(22)
def test_chunks_of_every_version_are_mended(sources: list[Path], opened: Cache) -> None:
    convert(str(sources[0]), name="x", workers=1, chunk_bytes=50_000)
    manifest = append("x", [str(path) for path in sources[1:]], workers=1).manifest
    whole = contents(opened.path("x"))
    for chunk in manifest.chunks:
        flip(opened.path("x") / chunk.file)
    assert len(verify("x")) == len(manifest.chunks)
    assert verify("x", repair=True) == ()
    assert contents(opened.path("x")) == whole


def test_unfinished_work_of_that_name_stays(sources: list[Path], opened: Cache) -> None:
    manifest = build(sources)
    with opened.staging("x", "0123456789abcdef") as staging:
        write_outline(staging, Outline("x", manifest.digest, 1, {"0": (0,)}, manifest.schema, "zarr", None))
        (staging / "task-0.json").write_text("{}")
    flip(opened.path("x") / manifest.chunks[0].file)
    assert verify("x", repair=True) == ()
    assert (staging / "task-0.json").exists()


@pytest.mark.scenario(22)
def test_a_source_that_changed_cannot_mend(sources: list[Path], opened: Cache) -> None:
    manifest = build(sources)
    flip(opened.path("x") / manifest.chunks[0].file)
    before = contents(opened.path("x"))
    write_toy_tree(sources[0], entries=900, seed=9, basket_entries=300)
    os.utime(sources[0], ns=(1, 1))
    with pytest.raises(SourceChangedError, match=r"0\.root changed"):
        verify("x", repair=True)
    sources[0].unlink()
    with pytest.raises(NotFoundError, match=r"0\.root"):
        verify("x", repair=True)
    assert contents(opened.path("x")) == before


def test_statistics_are_checked_and_left(sources: list[Path], opened: Cache) -> None:
    manifest = build(sources)
    flip(opened.path("x") / manifest.chunk_statistics[0])
    (fault,) = verify("x", repair=True)
    assert (fault.file, fault.chunk) == ("statistics.parquet", None)


@pytest.mark.scenario(22)
def test_a_damaged_manifest_is_an_error(sources: list[Path], opened: Cache) -> None:
    build(sources)
    flip(opened.path("x") / "manifest.json")
    with pytest.raises(StorageringError):
        verify("x")
    with pytest.raises(NotFoundError, match="'y'"):
        verify("y")


@pytest.mark.scenario(17)
@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_changed_byte_goes_unseen(small: tuple[Path, dict[str, bytes]], data: st.DataObject) -> None:
    folder, whole = small
    name = data.draw(st.sampled_from(sorted(whole)))
    at = data.draw(st.integers(0, len(whole[name]) - 1))
    changed = bytearray(whole[name])
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(changed)
    try:
        assert [fault.file for fault in verify("small")] == [name]
    except ChecksumError:
        assert name == "manifest.json"
    except StorageringError:
        assert name == "manifest.json"
    finally:
        (folder / name).write_bytes(whole[name])


@pytest.fixture
def small(sources: list[Path], opened: Cache) -> tuple[Path, dict[str, bytes]]:
    convert(str(sources[0]), name="small", workers=1, columns=["MET_pt", "Jet_pt"], chunk_bytes=4096)
    return opened.path("small"), contents(opened.path("small"))
