"""Faults of the disk on demand, at every point of some work: refusals, kills, power cuts, slowness.

A point is one call that `storagering.files` makes to change the disk (or, where asked for, to read it), or one that
work inside a library names with `storagering.files.reach`. `count_points` lists those of some work, `FaultyDisk`
strikes at one, and `storagering.testing.crashes` does the work again and again, struck at each of them in turn.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from storagering import files
from storagering.disk import Disk
from storagering.testing.power import PowerLog

_AnyDisk = TypeVar("_AnyDisk", bound=Disk)
READS = frozenset({"open", "load"})
_TAKES_ROOM = frozenset({"create", "open_lock", "write", "sync", "make_directory", "link"})


@dataclass(frozen=True)
class Point:
    """One call: the how manieth of the work, the method of `Disk` or the name of the point, and its path."""

    number: int
    operation: str
    path: str


@dataclass(frozen=True)
class Refusal:
    """The call raises OSError.

    Attributes:
        code: as ``errno.ENOSPC``. A full disk refuses only what takes room.
        partly: half of the call was done before, as in a short write.
        lasting: so do all calls after it.
    """

    code: int
    partly: bool = False
    lasting: bool = False

    def refuses(self, operation: str) -> bool:
        """Whether a disk that is like this refuses such calls, too."""
        return operation in _TAKES_ROOM if self.code in (errno.ENOSPC, errno.EDQUOT) else operation not in READS


@dataclass(frozen=True)
class Kill:
    """SIGKILL before the call, or when half of it is done."""

    partly: bool = False


@dataclass(frozen=True)
class PowerCut:
    """The machine stops before the call (in the middle of it where a folder is removed); what was not synced is lost.

    Attributes:
        vault: an empty folder outside of the cache, on the same file system.
        names: what becomes of changes in folders that were not synced since: all ``lost``; all ``kept``, while
            contents that were not synced are gone; or ``some`` of them lost, folder by folder.
        seed: of which folders that are.
    """

    vault: Path
    names: str = "lost"
    seed: int = 0


@dataclass(frozen=True)
class Delay:
    """This call and all after it take so much longer."""

    seconds: float


Fault = Refusal | Kill | PowerCut | Delay


class FaultyDisk(Disk):
    """A disk with a fault at one of its calls.

    Attributes:
        points: the calls so far.
    """

    def __init__(self, number: int = -1, fault: Fault | None = None) -> None:
        """``number``: of the point at which the fault strikes."""
        self.points: list[Point] = []
        self._number, self._fault = number, fault
        self._lock = threading.Lock()
        self._power = PowerLog(fault.vault) if isinstance(fault, PowerCut) else None

    def create(self, path: Path) -> int:
        self._meet("create", path)
        if self._power is None:
            return super().create(path)
        return self._power.creating(path, lambda: super(FaultyDisk, self).create(path))

    def open_lock(self, path: Path) -> int:
        self._meet("open_lock", path)
        if self._power is None or path.exists():
            return super().open_lock(path)
        return self._power.creating(path, lambda: super(FaultyDisk, self).open_lock(path))

    def write(self, path: Path, descriptor: int, pieces: Sequence[bytes | memoryview]) -> None:
        def half() -> None:
            data = b"".join(pieces)
            super(FaultyDisk, self).write(path, descriptor, [data[: len(data) // 2]])

        self._meet("write", path, half)
        super().write(path, descriptor, pieces)

    def sync(self, path: Path, descriptor: int) -> None:
        self._meet("sync", path)
        super().sync(path, descriptor)
        if self._power:
            self._power.synced(descriptor)

    def sync_directory(self, path: Path) -> None:
        self._meet("sync_directory", path)
        super().sync_directory(path)
        if self._power:
            self._power.synced_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self._meet("rename", target)
        if self._power:
            self._power.renaming(source, target)
        super().rename(source, target)

    def link(self, source: Path, target: Path) -> None:
        self._meet("link", target)
        super().link(source, target)
        if self._power:
            self._power.added(target)

    def unlink(self, path: Path) -> None:
        self._meet("unlink", path)
        if self._power and os.path.lexists(path):
            list(self._power.removing(path))
        super().unlink(path)

    def make_directory(self, path: Path) -> None:
        self._meet("make_directory", path)
        super().make_directory(path)
        if self._power:
            self._power.added(path)

    def remove_tree(self, path: Path) -> None:
        def half() -> None:
            for number, one in enumerate(self._power.removing(path) if self._power else sorted(path.rglob("*"))):
                if number % 2 and not one.is_dir():
                    one.unlink()

        self._meet("remove_tree", path, half)
        for one in self._power.removing(path) if self._power else ():
            one.rmdir() if one.is_dir() else one.unlink()
        if not self._power:
            super().remove_tree(path)

    def open(self, path: Path) -> int:
        self._meet("open", path)
        return super().open(path)

    def load(self, path: Path, mapped: mmap.mmap, start: int, nbytes: int) -> None:
        self._meet("load", path)
        super().load(path, mapped, start, nbytes)

    def reach(self, point: str, path: Path) -> None:
        self._meet(point, path)

    def _meet(self, operation: str, path: Path, half: Callable[[], None] | None = None) -> None:
        """Count a call, and strike if it is its turn."""
        with self._lock:
            point = Point(len(self.points), operation, str(path))
            self.points.append(point)
        fault = self._fault
        if isinstance(fault, Delay) and point.number >= self._number:
            time.sleep(fault.seconds)
        elif isinstance(fault, Refusal):
            later = fault.lasting and point.number > self._number >= 0 and fault.refuses(operation)
            if point.number == self._number or later:
                if fault.partly and half is not None:
                    half()
                raise OSError(fault.code, os.strerror(fault.code), str(path))
        elif point.number == self._number and isinstance(fault, Kill | PowerCut):
            if half is not None and (operation == "remove_tree" if isinstance(fault, PowerCut) else fault.partly):
                half()
            if isinstance(fault, PowerCut) and self._power is not None:
                self._power.cut(fault.names, fault.seed)
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def faulty(disk: _AnyDisk) -> Iterator[_AnyDisk]:
    """Have `storagering.files` use that disk, in this process, for the length of a ``with`` block."""
    before, files.disk = files.disk, disk
    try:
        yield disk
    finally:
        files.disk = before


def count_points(action: Callable[[], Any], *, reads: bool = False) -> list[Point]:
    """Do some work and list its points: those that change the disk, or with ``reads`` those that read it."""
    disk = FaultyDisk()
    with faulty(disk):
        action()
    return [point for point in disk.points if (point.operation in READS) == reads]
