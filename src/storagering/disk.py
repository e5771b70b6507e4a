"""The calls with which `storagering.files` changes and reads the disk, in one object.

A test puts another one in its place (see `storagering.testing.faults`): it then decides what becomes of each call.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from storagering.modes import open_in_place

_MADV_POPULATE_READ = 22
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class Disk:
    """The operating system's own calls. All raise OSError."""

    def create(self, path: Path) -> int:
        """A descriptor for writing a file that must not exist yet."""
        return os.open(path, _NEW_FILE, 0o600)

    def open_lock(self, path: Path) -> int:
        """A descriptor of a lock's file, which is made if absent."""
        return os.open(path, _LOCK_FILE, 0o600)

    def write(self, path: Path, descriptor: int, pieces: Sequence[bytes | memoryview]) -> None:
        """Write the pieces one after the other, all of them."""
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.writelines(pieces)

    def sync(self, path: Path, descriptor: int) -> None:
        """Make the contents of a file survive a power cut."""
        os.fsync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory survive a power cut."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another name; a file that has it is replaced."""
        source.rename(target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name."""
        os.link(source, target, follow_symlinks=False)

    def unlink(self, path: Path) -> None:
        """Take a name away."""
        path.unlink()

    def make_directory(self, path: Path) -> None:
        """Make one directory, private to the user."""
        path.mkdir(mode=0o700)

    def remove_tree(self, path: Path) -> None:
        """Remove a directory and all in it."""
        shutil.rmtree(path)

    def open(self, path: Path) -> int:
        """A descriptor for reading."""
        return open_in_place(path)

    def load(self, path: Path, mapped: mmap.mmap, start: int, nbytes: int) -> None:
        """Bring part of a mapped file into memory; without this, what cannot be read ends the process (SIGBUS)."""
        begin = start - start % mmap.PAGESIZE
        mapped.madvise(_MADV_POPULATE_READ, begin, start + nbytes - begin)

    def reach(self, point: str, path: Path) -> None:
        """Work on ``path``, done by a library of its own, has come to a point of that name."""
