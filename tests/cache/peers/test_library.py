"""What a node gives away: exactly what valid manifests name, as it is now."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.cache.peers.conftest import Original

from storagering.api import append
from storagering.cache.layout import Cache, open_cache
from storagering.cache.manifest import MANIFEST_NAME
from storagering.cache.peers.library import CacheLibrary
from storagering.config import load_settings
from storagering.testing.toys import write_toy_tree
from storagering.types import Manifest


@pytest.fixture
def copy(original: Original) -> Cache:
    """The original's dataset in a cache that the test may change."""
    cache = open_cache(load_settings(workers=1))
    shutil.copytree(original.folder, cache.path("toys"))
    return cache


def test_all_of_a_dataset(original: Original, copy: Cache) -> None:
    library, manifest = CacheLibrary(copy), original.manifest
    paths = [library.chunk(chunk.digest) for chunk in manifest.chunks]
    assert paths == [copy.path("toys") / chunk.file for chunk in manifest.chunks]
    stored = (copy.path("toys") / MANIFEST_NAME).read_bytes()
    assert library.manifest("toys") == library.manifest_of_spec(manifest.spec_key) == stored
    file, digest = manifest.chunk_statistics
    assert library.statistics(digest) == (copy.path("toys") / file).read_bytes()


@pytest.mark.parametrize("name", ["", "0" * 64, "../toys", "toys/manifest.json", "/etc/passwd", "toys\0", "x" * 500])
def test_what_is_not_there(copy: Cache, name: str) -> None:
    library = CacheLibrary(copy)
    for find in (library.chunk, library.manifest, library.manifest_of_spec, library.statistics):
        assert find(name) is None


def test_what_comes_changes_and_goes(original: Original, copy: Cache, tmp_path: Path) -> None:
    library = CacheLibrary(copy)
    first = original.manifest.chunks[0]
    assert library.chunk(first.digest)
    write_toy_tree(tmp_path / "more.root", entries=500, seed=5)
    longer = append("toys", str(tmp_path / "more.root"), settings=copy.settings).manifest
    assert library.chunk(longer.chunks[-1].digest)
    assert library.chunk(first.digest)
    assert library.manifest_of_spec(original.manifest.spec_key) is None
    assert library.manifest_of_spec(longer.spec_key)
    shutil.copytree(original.folder, copy.path("again"))  # under another name than its manifest says
    copy.remove("toys")
    assert library.chunk(longer.chunks[-1].digest) is None
    assert library.manifest("toys") is None
    found = library.chunk(first.digest)
    assert found
    assert found.parent.name == "again"


def test_another_dataset_under_the_name(original: Original, copy: Cache) -> None:
    library = CacheLibrary(copy)
    assert library.chunk(original.manifest.chunks[0].digest)
    copy.remove("toys")
    copy.path("toys").mkdir()
    shutil.copy(original.folder / original.manifest.chunks[0].file, copy.path("toys"))
    assert library.chunk(original.manifest.chunks[0].digest) is None


def test_chunks_that_are_not_resident_or_cut(original: Original, copy: Cache) -> None:
    library, chunks = CacheLibrary(copy), original.manifest.chunks
    (copy.path("toys") / chunks[0].file).unlink()
    (copy.path("toys") / chunks[1].file).write_bytes(b"cut")
    assert [library.chunk(chunk.digest) for chunk in chunks[:2]] == [None, None]
    (place,) = library.places(chunks[0].digest)
    assert (place.name, place.number, place.chunk) == ("toys", 0, chunks[0])


def test_a_damaged_manifest_vouches_for_nothing(original: Original, copy: Cache) -> None:
    path = copy.path("toys") / MANIFEST_NAME
    path.write_bytes(path.read_bytes().replace(b"Jet_pt", b"Jet_px"))
    library = CacheLibrary(copy)
    assert library.chunk(original.manifest.chunks[0].digest) is None
    assert library.manifest("toys") is None
    assert library.statistics(original.manifest.chunk_statistics[1]) is None
    assert library.statistics("") is library.manifest_of_spec("") is None


def test_no_link_is_followed(original: Original, copy: Cache) -> None:
    folder = copy.path("toys")
    table, digest = original.manifest.chunk_statistics
    (folder / table).unlink()
    (folder / table).symlink_to(original.folder / table)
    assert CacheLibrary(copy).statistics(digest) is None
    copy.remove("toys")
    folder.symlink_to(original.folder)
    library = CacheLibrary(copy)
    assert library.chunk(original.manifest.chunks[0].digest) is None
    assert library.manifest("toys") is None


def test_manifests_are_read_once(original: Original, copy: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    manifest = Cache.manifest

    def counted(self: Cache, name: str) -> Manifest:
        reads.append(name)
        return manifest(self, name)

    monkeypatch.setattr(Cache, "manifest", counted)
    library = CacheLibrary(copy)
    for chunk in original.manifest.chunks * 3:
        assert library.chunk(chunk.digest)
    assert library.chunk("0" * 64) is None
    assert reads == ["toys"]
