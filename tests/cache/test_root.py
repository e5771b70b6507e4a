"""What may be the root of a cache, and what may lie in it: nothing that others can write, no link, no other disk."""

import errno
import os
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storagering.api import convert, verify
from storagering.cache import root as cache_root
from storagering.cache.dataset import open_dataset
from storagering.cache.layout import Cache, open_cache
from storagering.cache.root import FOLDERS, mount_number, mount_type
from storagering.config import load_settings
from storagering.errors import CacheError
from storagering.testing.toys import write_toy_tree

STRANGER = 54321


@pytest.fixture
def toy(tmp_path: Path) -> str:
    write_toy_tree(tmp_path / "toy.root", entries=100)
    return str(tmp_path / "toy.root")


@pytest.fixture
def opened() -> Cache:
    return open_cache(load_settings())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.scenario(14)
@pytest.mark.parametrize("umask", [0o077, 0o022, 0o000])
def test_a_root_that_is_missing_is_made_and_private(cache: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        open_cache(load_settings())
    finally:
        os.umask(before)
    assert {mode_of(path) for path in (cache, *cache.iterdir())} == {0o700}
    assert sorted(path.name for path in cache.iterdir()) == sorted(FOLDERS)


@pytest.mark.scenario(14)
def test_a_root_in_a_folder_of_a_group_is_private_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "group").chmod(0o2770)
    open_cache(load_settings(cache=tmp_path / "group" / "cache"))
    assert mode_of(tmp_path / "group" / "cache") & 0o777 == 0o700


@pytest.mark.scenario(14)
def test_a_root_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link-to-file").symlink_to(tmp_path / "file")
    told = {
        "file": "is not a folder;",
        "link": f"is not a folder but a link to {tmp_path / 'nowhere'}, which is absent",
    }
    for name, text in (told | {"link-to-file": "is not a folder;"}).items():
        with pytest.raises(CacheError, match=rf"{re.escape(f'{name} {text}')}.*set STORAGERING_CACHE to one"):
            open_cache(load_settings(cache=tmp_path / name))
    with pytest.raises(CacheError, match=r"file/cache"):
        open_cache(load_settings(cache=tmp_path / "file" / "cache"))
    assert (tmp_path / "file").read_text() == "x"
    assert not (tmp_path / "nowhere").exists()


def test_a_root_that_is_a_link_to_a_folder(tmp_path: Path, toy: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    settings = load_settings(cache=tmp_path / "link", workers=1)
    assert len(convert(toy, name="x", settings=settings).arrays()) == 100
    assert verify("x", settings=settings) == ()
    assert (tmp_path / "disk" / "datasets" / "x").is_dir()


@pytest.mark.scenario(14)
@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_the_cache_that_is_a_link(opened: Cache, tmp_path: Path, name: str) -> None:
    (opened.root / name).rename(tmp_path / "elsewhere")
    (opened.root / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match=rf"cache/{name} is a link.*remove it with 'rm .*cache/{name}'"):
        open_cache(opened.settings)


@pytest.mark.scenario(14)
def test_a_folder_of_the_cache_that_is_a_file(opened: Cache) -> None:
    (opened.root / "locks").rmdir()
    (opened.root / "locks").write_text("x")
    with pytest.raises(CacheError, match=r"cache/locks is not a folder"):
        open_cache(opened.settings)


@pytest.mark.scenario(14)
@pytest.mark.parametrize("name", ["", *FOLDERS])
def test_a_folder_that_everybody_can_write(opened: Cache, name: str) -> None:
    folder = opened.root / name
    folder.chmod(0o777)
    with pytest.raises(CacheError, match=r"every user of this machine may write") as caught:
        open_cache(opened.settings)
    command = re.search(r"'(chmod .*?)'", str(caught.value))
    assert command
    subprocess.run(command[1], shell=True, check=True)
    open_cache(opened.settings)
    folder.chmod(0o1777)  # nobody can take away what is another's
    open_cache(opened.settings)


@pytest.mark.scenario(14)
@pytest.mark.parametrize("name", ["", *FOLDERS, "datasets/x"])
def test_a_folder_of_somebody_else(opened: Cache, toy: str, name: str) -> None:
    if os.getuid():
        pytest.skip("only root can give a folder away")
    convert(toy, name="x", workers=1)
    os.chown(opened.root / name, STRANGER, STRANGER)
    with pytest.raises(
        CacheError, match=rf"belongs to user {STRANGER}; set STORAGERING_CACHE to .*STORAGERING_SHARED=1"
    ):
        open_dataset("x")
    with pytest.raises(CacheError, match=r"does not share it with you: .*'chgrp -R GROUP .* && chmod -R g\+rXs "):
        open_dataset("x", cache=open_cache(load_settings(shared=True)))
    os.chown(opened.root / name, STRANGER, os.getgid())
    (opened.root / name).chmod(0o700)
    with pytest.raises(CacheError, match=r"does not share it with you"):
        open_dataset("x", cache=open_cache(load_settings(shared=True)))
    (opened.root / name).chmod(0o2750)
    assert len(open_dataset("x", cache=open_cache(load_settings(shared=True))).arrays()) == 100


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a file system on a folder, where this process may."""
    folders: list[Path] = []

    def mount(folder: Path, *arguments: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        if os.getuid() or not shutil.which("mount"):
            pytest.skip("cannot mount a file system here")
        done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a file system here: {done.stderr.decode()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in reversed(folders):
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.scenario(14)
@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_a_folder_of_the_cache_on_another_disk(
    opened: Cache, mounted: Callable[..., Path], tmp_path: Path, name: str, kind: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    # A folder of the same disk that is mounted there has its device number, and yet nothing can be renamed into it.
    what = ["-t", "tmpfs", "tmpfs"] if kind == "tmpfs" else ["--bind", str(tmp_path / "elsewhere")]
    mounted(opened.root / name, *what)
    if name == "datasets":
        with pytest.raises(OSError, match="cross-device"):
            (opened.root / "staging").rename(opened.root / "datasets" / "x")
    with pytest.raises(CacheError, match=rf"cache/{name} is on another disk than .*/cache, so nothing can be renamed"):
        open_cache(opened.settings)


@pytest.mark.scenario(14)
def test_a_cache_on_a_disk_of_its_own(mounted: Callable[..., Path], tmp_path: Path, toy: str) -> None:
    disk = mounted(tmp_path / "a disk", "-t", "tmpfs", "tmpfs")
    for root in (disk, disk / "cache"):
        assert len(convert(toy, name="x", settings=load_settings(cache=root, workers=1))) == 100


@pytest.mark.scenario(14)
def test_a_file_system_that_is_not_known_to_be_local(
    mounted: Callable[..., Path], tmp_path: Path, toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one; that Linux calls it something else is all that is made up."""
    disk = mounted(tmp_path / "disk", "-t", "tmpfs", "tmpfs")
    monkeypatch.setattr(cache_root, "_LOCAL", cache_root._LOCAL - {"tmpfs"})
    with pytest.raises(CacheError, match=r"is on a file system of type tmpfs, .*STORAGERING_SHARED=1"):
        convert(toy, name="x", settings=load_settings(cache=disk, workers=1))
    assert not list(disk.iterdir())
    shared = load_settings(cache=disk, workers=1, shared=True)
    assert len(convert(toy, name="x", settings=shared).arrays()) == 100


MOUNTS = r"""27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
31 27 0:26 / /home rw,nosuid shared:7 - nfs4 server:/export/home rw,vers=4.2
127 27 0:27 / /a\040disk rw,relatime master:1 propagate_from:2 - fuse.sshfs me@there:/ rw
"""


def test_how_linux_tells_of_mounts() -> None:
    assert mount_number("pos:\t0\nflags:\t012100000\nmnt_id:\t27\nino:\t2\n") == 27
    assert mount_number("pos:\t0\n") == -1
    assert [mount_type(MOUNTS, number) for number in (27, 31, 127, 1, -1)] == ["ext4", "nfs4", "fuse.sshfs", "", ""]
    assert not {"nfs", "nfs4", "lustre", "gpfs", "ceph", "fuse.sshfs", "9p", "virtiofs", ""} & cache_root._LOCAL


def test_a_system_that_tells_nothing_of_mounts(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache_root._mount_of.cache_clear()
    cache_root._kind_of.cache_clear()
    original = Path.read_text

    def refuse(path: Path, *arguments: Any, **options: Any) -> str:
        if str(path).startswith("/proc/"):
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return original(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", refuse)
        with pytest.raises(CacheError, match="file system of type unknown"):
            open_cache(load_settings())
        open_cache(load_settings(shared=True))
    cache_root._mount_of.cache_clear()
    cache_root._kind_of.cache_clear()


def test_looking_at_the_root_costs_little(opened: Cache) -> None:
    def seconds() -> float:
        begin = time.perf_counter()
        open_cache(opened.settings)
        return time.perf_counter() - begin

    assert min(seconds() for _ in range(20)) < 0.001
