"""What changes under those who read, fetch and evict: nobody harms another, and the quota is kept."""

import os
from pathlib import Path

import pytest
from tests.cache.small import ENTRIES, check_whole, dataset, largest

from storagering.api import append, convert, verify
from storagering.cache import finished, publish, residency, source_state
from storagering.cache import verify as verifying
from storagering.cache.access import ChunkAccess
from storagering.cache.build_space import BuildSpace
from storagering.cache.dataset import Dataset
from storagering.cache.layout import open_cache
from storagering.cache.leases import Lease
from storagering.cache.space import disk_room, unfinished_bytes
from storagering.config import load_settings
from storagering.errors import CacheError, NotFoundError
from storagering.housekeeping import du, evict, remove
from storagering.testing.toys import write_toy_tree
from storagering.types import Manifest

__all__ = ["dataset"]


def test_a_dataset_made_anew_is_not_touched_by_who_reads_the_old_one(dataset: Dataset, tmp_path: Path) -> None:
    with dataset.access() as old:
        remove("toy")
        write_toy_tree(tmp_path / "other.root", entries=ENTRIES, seed=9, basket_entries=250)
        newer = convert(str(tmp_path / "other.root"), name="toy", workers=1, chunk_bytes=40_000)
        with pytest.raises(NotFoundError, match="made anew meanwhile"):
            old.mend(dataset.manifest.chunks)
        evict(["toy"])
        with pytest.raises(NotFoundError, match="made anew meanwhile"):
            old.open(dataset.manifest.chunks[0])
    assert verify("toy") == ()
    assert len(newer.arrays(["event"])) == ENTRIES


def test_chunks_of_an_older_release_stay_when_something_is_appended(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (publish, finished, residency):
        monkeypatch.setattr(module, "software", lambda: "storagering 99.0")
    write_toy_tree(tmp_path / "more.root", entries=500, basket_entries=250)
    append("toy", str(tmp_path / "more.root"), workers=1)
    with pytest.raises(CacheError, match=r"made by storagering 0\.1\.0, then storagering 99\.0"):
        evict(["toy"])


def test_a_forked_child_leaves_what_its_parent_works_with(dataset: Dataset) -> None:
    evict(["toy"])
    with dataset.access() as access:
        access.hold([dataset.manifest.chunks])
        access.open(dataset.manifest.chunks[0])
        child = os.fork()
        if child == 0:
            access.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert du().datasets[0].pins
        access.open(dataset.manifest.chunks[1])
    check_whole(dataset)


def test_two_readers_whose_datasets_are_coming_share_the_quota(dataset: Dataset, tmp_path: Path) -> None:
    other = convert(str(tmp_path / "toy.root"), name="other", workers=1, chunk_bytes=40_000)
    total = sum(chunk.nbytes for chunk in dataset.manifest.chunks)
    evict(["toy", "other"])
    cache = open_cache(load_settings(quota=f"{int(total * 1.4)}B", room_timeout_seconds=0.5))
    accesses = [ChunkAccess(cache, one.manifest, "training on") for one in (dataset, other)]
    for access, one in zip(accesses, (dataset, other), strict=True):
        access.hold([[chunk] for chunk in one.manifest.chunks])
    for access, one in zip(accesses, (dataset, other), strict=True):
        for chunk in one.manifest.chunks:
            with access.held([chunk]):
                access.open(chunk)
        assert sum(path.stat().st_size for path in cache.root.glob("datasets/*/chunk-*")) <= total * 1.4
    for access in accesses:
        access.close()


def test_a_reader_that_must_share_lets_go_of_the_whole(dataset: Dataset) -> None:
    total = sum(chunk.nbytes for chunk in dataset.manifest.chunks)
    cache = open_cache(load_settings(quota=f"{int(total * 1.2)}B", room_timeout_seconds=0.5))
    windows = [[chunk] for chunk in dataset.manifest.chunks]
    evict(["toy"])
    lease = Lease(cache.root, "writing")
    with ChunkAccess(cache, dataset.manifest) as access:
        access.hold(windows)  # all of it, though nothing is there yet
        disk_room(cache).claim(lease.id, "x", int(total * 0.5))
        access.hold(windows)
        for chunk in dataset.manifest.chunks:
            with access.held([chunk]):
                access.open(chunk)
        assert sum(path.stat().st_size for path in dataset.path.glob("chunk-*")) <= total * 0.7
    lease.release()


def test_eviction_while_everything_is_verified_is_no_damage(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    evict(to=f"{2 * largest(dataset)}B")
    real = residency.missing_chunks

    def look(folder: Path, manifest: Manifest) -> list[int]:
        found = real(folder, manifest)
        evict(["toy"])
        return found

    monkeypatch.setattr(verifying, "missing_chunks", look)
    assert verify("toy") == ()


def test_a_build_that_died_before_it_told_the_ledger_is_found(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BuildSpace, "publish", die)
    with pytest.raises(KeyboardInterrupt):
        convert(dataset.manifest.sources[0].url, name="again", workers=1, chunk_bytes=40_000)
    sizes = [path.stat().st_size for path in open_cache(load_settings()).root.glob("datasets/*/chunk-*")]
    cache = open_cache(load_settings())
    assert disk_room(cache).used_bytes() == sum(sizes) + unfinished_bytes(cache)


def test_a_source_that_cannot_be_looked_at_is_named(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(source_state, "_version_of", refuse)
    with pytest.raises(CacheError, match=r"toy\.root cannot be looked at: Permission denied"):
        evict(["toy"])
    assert evict(to="1B") == []
