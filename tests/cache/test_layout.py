"""Folders of the cache: names, staging that dead builders left, removal, and disks that refuse."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from storagering.api import convert, verify
from storagering.cache.dataset import open_dataset
from storagering.cache.layout import RESERVED_NAMES, Cache, check_name, open_cache
from storagering.cache.unfinished import holds_finished_work
from storagering.config import load_settings
from storagering.errors import (
    CacheError,
    CacheFullError,
    CorruptDataError,
    InputError,
    LockTimeoutError,
    NotFoundError,
    ReadOnlyCacheError,
    VersionError,
)
from storagering.files import FileLock, free_bytes, publish_directory, replace_file, safe_join, write_new
from storagering.testing.toys import write_toy_tree


@pytest.fixture
def opened() -> Cache:
    return open_cache(load_settings())


@pytest.fixture
def toy(tmp_path: Path) -> str:
    write_toy_tree(tmp_path / "toy.root", entries=100)
    return str(tmp_path / "toy.root")


def check_only_finished_work(staging: Path) -> None:
    """What is left is of use to the next run."""
    for path in staging.iterdir():
        assert path.suffix == ".lock" or holds_finished_work(path), path
        assert path.suffix == ".lock" or not [p for p in path.iterdir() if p.is_dir()]


def test_folders_are_private(toy: str, opened: Cache) -> None:
    dataset = convert(toy, name="x", workers=1)
    for path in [opened.root / "datasets", opened.root / "staging", dataset.path]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    for path in dataset.path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_names_lists_published_datasets_only(toy: str, opened: Cache) -> None:
    convert(toy, name="b", workers=1)
    convert(toy, name="a", workers=1)
    (opened.root / "datasets" / "half").mkdir()
    (opened.root / "datasets" / ".removed-1").mkdir()
    (opened.root / "datasets" / "stray.txt").write_text("x")
    assert opened.names() == ["a", "b"]
    with pytest.raises(NotFoundError, match=r"no dataset 'c' in .*; there are: 'a', 'b'"):
        open_dataset("c")


def test_an_empty_cache_says_so(opened: Cache) -> None:
    with pytest.raises(NotFoundError, match="the cache is empty, run 'storagering convert' first"):
        open_dataset("x")


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_names_of_tables_are_taken(name: str) -> None:
    with pytest.raises(InputError, match="is a table of the catalog"):
        check_name(name.upper())


def test_remove(toy: str, opened: Cache) -> None:
    dataset = convert(toy, name="x", workers=1)
    opened.remove("x")
    assert not dataset.path.exists()
    assert not list((opened.root / "datasets").iterdir())
    with pytest.raises(NotFoundError, match="no dataset 'x'"):
        opened.remove("x")
    assert len(convert(toy, name="x", workers=1)) == 100


def test_a_reader_finishes_what_it_opened_before_a_removal(toy: str, opened: Cache) -> None:
    dataset = convert(toy, name="x", workers=1)
    reader = dataset.open_chunk(dataset.manifest.chunks[0])
    opened.remove("x")
    assert len(reader.read_column("event")[0]) == 100


@pytest.mark.scenario(32)
def test_staging_of_the_dead_is_reclaimed_and_of_the_living_kept(toy: str, opened: Cache) -> None:
    staging = opened.root / "staging"
    for name in ("dead", "living"):
        (staging / name).mkdir()
        (staging / name / "chunk").write_bytes(b"x")
    (staging / "dead.lock").touch()
    (staging / ".removed-abc").mkdir()
    (opened.root / "datasets" / ".removed-def").mkdir()
    (opened.root / "datasets" / ".removed-def" / "x").touch()
    living = FileLock(staging / "living.lock")
    assert living.try_acquire()
    convert(toy, name="x", workers=1)
    assert sorted(p.name for p in staging.iterdir()) == ["living", "living.lock"]
    assert [p.name for p in (opened.root / "datasets").iterdir()] == ["x"]
    living.release()
    convert(toy, name="x", workers=1)  # also where there is nothing to build
    assert not list(staging.iterdir())


def test_a_lock_is_freed_by_death(tmp_path: Path) -> None:
    code = "import sys, time; from storagering.files import FileLock; from pathlib import Path\n"
    code += "lock = FileLock(Path(sys.argv[1]))\nlock.acquire(5); print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x.lock")], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    lock = FileLock(tmp_path / "x.lock")
    assert not lock.try_acquire()
    assert lock.holder() == str(holder.pid)
    with pytest.raises(LockTimeoutError, match=f"process {holder.pid} held"):
        lock.acquire(0.1)
    holder.kill()
    holder.communicate()
    lock.acquire(1)
    lock.release()


def test_a_lock_on_a_file_that_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reclaims a lock file removes it; another may have opened it just before."""
    import fcntl

    path = tmp_path / "x.lock"
    original = fcntl.flock

    def remove_then_lock(descriptor: int, mode: int) -> None:
        monkeypatch.setattr(fcntl, "flock", original)
        path.unlink()
        original(descriptor, mode)

    monkeypatch.setattr(fcntl, "flock", remove_then_lock)
    lock = FileLock(path)
    assert not lock.try_acquire()
    assert lock.try_acquire()
    lock.release()


@pytest.mark.scenario(20)
@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"{}"])
def test_a_damaged_manifest_is_named_and_can_be_removed(toy: str, opened: Cache, damage: bytes) -> None:
    path = convert(toy, name="x", workers=1).path / "manifest.json"
    path.write_bytes(damage)
    with pytest.raises(CorruptDataError, match=r"x/manifest\.json is not a manifest"):
        open_dataset("x")
    with pytest.raises(CorruptDataError):
        verify("x")
    opened.remove("x")
    assert len(convert(toy, name="x", workers=1)) == 100


@pytest.mark.scenario(4)
@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"{}"])
def test_a_damaged_manifest_is_put_aside_and_the_dataset_built_anew(toy: str, opened: Cache, damage: bytes) -> None:
    whole = convert(toy, name="x", workers=1).manifest
    (opened.path("x") / "manifest.json").write_bytes(damage)
    assert convert(toy, name="x", workers=1).manifest == whole
    assert verify("x") == ()
    (aside,) = (opened.root / "quarantine").iterdir()
    assert (aside / "manifest.json").read_bytes() == damage
    assert (aside / whole.chunks[0].file).exists()


def test_a_dataset_of_another_release_is_not_put_aside(toy: str, opened: Cache) -> None:
    path = convert(toy, name="x", workers=1).path / "manifest.json"
    path.write_bytes(re.sub(rb'"version":\d+', b'"version":999', path.read_bytes()))
    with pytest.raises(VersionError, match="of format version 999"):
        convert(toy, name="x", workers=1)
    assert opened.names() == ["x"]


def test_a_folder_without_manifest_does_not_stay_in_the_way(toy: str, opened: Cache) -> None:
    (opened.path("x") / "sub").mkdir(parents=True)
    assert len(convert(toy, name="x", workers=1)) == 100
    assert not (opened.path("x") / "sub").exists()


def test_the_root_must_be_a_folder(tmp_path: Path, toy: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(CacheError, match=f"{name} is not a folder"):
            convert(toy, name="x", settings=load_settings(cache=tmp_path / name))


@pytest.mark.scenario(26)
def test_the_first_of_two_directories_wins(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    assert publish_directory(tmp_path / "one", tmp_path / "target")
    assert not publish_directory(tmp_path / "two", tmp_path / "target")
    assert (tmp_path / "target" / "file").read_text() == "one"
    assert (tmp_path / "two" / "file").exists()


@pytest.mark.scenario(47)
@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/abs", ".hidden", "a\0b", "x" * 256])
def test_unsafe_names_are_never_joined(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be used as a file name"):
        safe_join(tmp_path, "fine", name)


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    replace_file(tmp_path / "f", b"one")
    replace_file(tmp_path / "f", b"two")
    assert (tmp_path / "f").read_bytes() == b"two"
    assert [p.name for p in tmp_path.iterdir() if p.name != "cache"] == ["f"]
    with pytest.raises(CacheError):
        write_new(tmp_path / "f", b"three")


def test_links_are_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(CacheError):
        write_new(tmp_path / "link", b"x")
    assert not (tmp_path / "target").exists()


def test_free_bytes_of_what_is_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b" / "c") > 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A file system of 5 MiB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and os.getuid() == 0
    if (
        not mounted
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("cannot mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.scenario(9)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk(tmp_path: Path, small_disk: Path, toy: str, workers: int) -> None:
    write_toy_tree(tmp_path / "big.root", entries=80_000, basket_entries=4000)
    settings = load_settings(cache=small_disk, workers=workers)
    other = convert(toy, name="other", settings=settings)
    before = {path.name: path.read_bytes() for path in other.path.iterdir()}
    with pytest.raises(CacheFullError, match=r"needs .* bytes, .* are free; free some space or set STORAGERING_CACHE"):
        convert(str(tmp_path / "big.root"), name="x", chunk_bytes=100_000, settings=settings)
    opened = open_cache(settings)
    assert opened.names() == ["other"]
    assert {path.name: path.read_bytes() for path in other.path.iterdir()} == before
    check_only_finished_work(small_disk / "staging")
    write_toy_tree(tmp_path / "small.root", entries=100)
    assert len(convert(str(tmp_path / "small.root"), name="x", settings=settings).arrays()) == 100


@pytest.mark.scenario(10)
def test_a_read_only_disk(tmp_path: Path, small_disk: Path, toy: str) -> None:
    settings = load_settings(cache=small_disk, workers=1)
    convert(toy, name="x", settings=settings)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ReadOnlyCacheError, match="set STORAGERING_CACHE to a folder that is yours"):
        convert(toy, name="y", settings=settings)
    assert len(convert(toy, name="x", settings=settings).arrays()) == 100
    assert len(open_dataset("x", cache=open_cache(settings)).arrays()) == 100
