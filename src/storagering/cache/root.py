"""Whether a folder may be a cache: whose it is, who else may write there, and what kind of disk it is on.

Whoever can write into a cache decides what a training reads. So every folder of it is the user's own, or, where
``shared`` is set, that of a group of his; and no link is followed inside.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from storagering.errors import CacheError
from storagering.files import disk_errors, make_directory

#: What every cache has; renames lead from one to the other.
FOLDERS = ("datasets", "staging", "locks")
_LATER = ("fills", "indexes", "journals", "leases", "logs", "pins", "quarantine")
#: File systems of one machine alone. On all others its locks may mean nothing to the next machine.
_LOCAL = frozenset({
    "bcachefs", "btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "fuse.fuse-overlayfs", "jfs", "overlay", "ramfs",
    "rootfs", "squashfs", "tmpfs", "xfs", "zfs",
})  # fmt: skip
_READ = 0o050


def open_root(root: Path, *, shared: bool) -> None:
    """Make the folders of a cache where they are absent, and check that they can be trusted.

    Args:
        shared: folders may be those of a group of this user, and on a file system of several machines.

    Raises:
        CacheError: the root is no folder; a folder in it is a link or on another disk; another user can write
            there; or other machines can, and the cache is not shared. Tells what to do.
        ReadOnlyCacheError: a folder is absent and cannot be made.
    """
    found = _look(root, follow=True)
    if found is None and not root.is_symlink():
        make_directory(root, private=True)
        found = _look(root, follow=True)
    if found is None or not stat.S_ISDIR(found.st_mode):
        what = f" but a link to {root.readlink()}, which is absent" if root.is_symlink() and found is None else ""
        raise CacheError(f"the cache root {root} is not a folder{what}; set STORAGERING_CACHE to one")
    _check_trust(root, found, shared=shared)
    mount = _mount_of(str(root), found.st_dev, found.st_ino)
    kind = _kind_of(mount, found.st_dev)
    if kind not in _LOCAL and not shared:
        raise CacheError(
            f"the cache root {root} is on a file system of type {kind or 'unknown'}, which other machines may use too; "
            "set STORAGERING_CACHE to a disk of this node, or STORAGERING_SHARED=1 if the cache is meant for several: "
            "two of them may then do the same work, of which one keeps the result"
        )
    for name in _LATER:
        check_folder(root / name, shared=shared)
    for name in FOLDERS:
        inside = check_folder(root / name, shared=shared)
        if inside is None:
            make_directory(root / name)
            inside = (root / name).lstat()
        there = _mount_of(str(root / name), inside.st_dev, inside.st_ino)
        if (inside.st_dev, there) != (found.st_dev, mount):
            raise CacheError(
                f"{root / name} is on another disk than {root}, so nothing can be renamed from one to the other; "
                "unmount it, and set STORAGERING_CACHE to a folder on the disk that is wanted"
            )


def check_folder(path: Path, *, shared: bool) -> os.stat_result | None:
    """What is known of a folder inside a cache, if it can be trusted; None if there is none.

    Raises:
        CacheError: it is a link, no folder, or another user can write there. Tells what to do.
    """
    found = _look(path, follow=False)
    if found is None:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise CacheError(f"{path} is a link, and none is followed inside a cache: remove it with 'rm {path}'")
    if not stat.S_ISDIR(found.st_mode):
        raise CacheError(f"{path} is not a folder, as it should be in a cache: move it away")
    _check_trust(path, found, shared=shared)
    return found


def make_folder(path: Path, *, shared: bool) -> None:
    """Make a folder inside a cache; raises as `check_folder` if there is something else of that name."""
    make_directory(path)
    check_folder(path, shared=shared)


def _look(path: Path, *, follow: bool) -> os.stat_result | None:
    with disk_errors(path):
        try:
            return path.stat(follow_symlinks=follow)
        except FileNotFoundError:
            return None


def _check_trust(path: Path, found: os.stat_result, *, shared: bool) -> None:
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        raise CacheError(
            f"every user of this machine may write into {path}, and so change what is trained on; "
            f"run 'chmod o-w {path}', or set STORAGERING_CACHE to a folder that is yours"
        )
    if found.st_uid in (os.geteuid(), 0):
        return
    ours = found.st_gid in (os.getegid(), *os.getgroups())
    owner, group = _user(found.st_uid), _group(found.st_gid) if ours else "GROUP"
    sharing = f"'chgrp -R {group} {path} && chmod -R g+rXs {path}'"
    if not shared:
        raise CacheError(
            f"{path} belongs to {owner}; set STORAGERING_CACHE to a folder that is yours, or, if {owner} shares the "
            f"cache with a group of yours (by {sharing}), STORAGERING_SHARED=1"
        )
    if not ours or found.st_mode & _READ != _READ:
        raise CacheError(f"{path} belongs to {owner}, who does not share it with you: {owner} can by {sharing}")


def _user(number: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return f"user {number}"


def _group(number: int) -> str:
    with suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return str(number)


@lru_cache(maxsize=64)
def _mount_of(path: str, device: int, inode: int) -> int:  # noqa: ARG001  (another folder there is asked anew)
    """The number of the mount that a folder is on, -1 where the system does not tell."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return mount_number(Path(f"/proc/self/fdinfo/{descriptor}").read_text())
    except OSError:
        return -1
    finally:
        os.close(descriptor)


@lru_cache(maxsize=64)
def _kind_of(mount: int, device: int) -> str:  # noqa: ARG001  (numbers are given anew)
    """The type of a file system, '' where the system does not tell."""
    try:
        return mount_type(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"), mount)
    except OSError:
        return ""


def mount_number(fdinfo: str) -> int:
    """The number of the mount in ``/proc/self/fdinfo/N``; -1 if it says none."""
    for line in fdinfo.splitlines():
        key, _, value = line.partition(":")
        if key == "mnt_id" and value.strip().isdecimal():
            return int(value)
    return -1


def mount_type(mountinfo: str, number: int) -> str:
    """The file system type of that mount in ``/proc/self/mountinfo``; '' if it is not there."""
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split(" ", 1)[0] == str(number) and rest:
            return rest.split(" ", 1)[0]
    return ""
