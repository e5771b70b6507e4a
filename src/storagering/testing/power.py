"""A model of power cuts: what a program changed on the disk and did not sync is undone.

What it assumes of the disk: a synced file has its contents; a name that was made, changed or taken away is so for good
once the folder was synced that it is in (for renames: the one that it is in then); everything else may be undone, in
the reverse order of how it was done. A rename is done whole or not at all.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_Id = tuple[int, int]


@dataclass(frozen=True)
class _Change:
    folder: _Id
    undo: Callable[[], None]


class PowerLog:
    """What was changed since it was last synced, with all that is needed to undo it.

    Folders are kept open and reached by their descriptors, as they may get other names before the cut.
    """

    def __init__(self, vault: Path) -> None:
        """``vault``: an empty folder on the same file system, for what was replaced and removed."""
        self._vault = vault
        self._changes: list[_Change] = []
        self._folders: dict[_Id, int] = {}
        self._unsynced: dict[_Id, int] = {}
        self._kept = 0

    def creating(self, path: Path, create: Callable[[], int]) -> int:
        """Make a new file, whose contents and name are not synced."""
        descriptor = create()
        self._unsynced[_id_of(os.fstat(descriptor))] = os.dup(descriptor)
        self.added(path)
        return descriptor

    def synced(self, descriptor: int) -> None:
        """The contents of a file are on the disk."""
        own = self._unsynced.pop(_id_of(os.fstat(descriptor)), None)
        if own is not None:
            os.close(own)

    def synced_directory(self, path: Path) -> None:
        """The names in a folder are on the disk."""
        folder = _id_of(path.stat())
        self._changes = [change for change in self._changes if change.folder != folder]

    def added(self, path: Path) -> None:
        """A file or folder has been given a name."""
        folder, place = self._place(path)
        self._changes.append(_Change(folder, lambda: _remove(place)))

    def removing(self, path: Path) -> Iterator[Path]:
        """A file, or all in a folder and then the folder; each is to be removed when it was given."""
        _, place = self._place(path)
        inside = sorted(path.rglob("*"), key=lambda p: (-len(p.parts), p.is_dir(), p.name)) if path.is_dir() else []
        for one in (*inside, path):
            folder, there = _id_of(one.parent.stat()), place / one.relative_to(path)
            self._changes.append(_Change(folder, partial(_put_back, self._keep(one), there)))
            yield one

    def renaming(self, source: Path, target: Path) -> None:
        """A file or folder is about to get another name, perhaps that of a file."""
        _, before = self._place(source)
        folder, after = self._place(target)
        kept = self._keep(target) if target.is_file() else None

        def undo() -> None:
            after.rename(before)
            if kept is not None:
                _put_back(kept, after)

        self._changes.append(_Change(folder, undo))

    def cut(self, names: str, seed: int) -> None:
        """Undo what a power cut loses; see `storagering.testing.faults.PowerCut`."""
        for number, descriptor in enumerate(self._unsynced.values()):
            torn = names != "lost" and number % 2
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2 if torn else 0)
        chance = random.Random(seed)  # noqa: S311
        folders = dict.fromkeys(change.folder for change in self._changes)
        some = {folder: chance.random() < 0.5 for folder in folders}
        for change in reversed(self._changes):
            kept = names == "kept" or (names == "some" and some[change.folder])
            if not kept:
                with suppress(OSError):  # what it was in is gone as well
                    change.undo()

    def _place(self, path: Path) -> tuple[_Id, Path]:
        """The folder of a path, and the path by way of its descriptor."""
        folder = _id_of(path.parent.stat())
        if folder not in self._folders:
            self._folders[folder] = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        return folder, Path(f"/proc/self/fd/{self._folders[folder]}") / path.name

    def _keep(self, path: Path) -> Path:
        self._kept += 1
        kept = self._vault / str(self._kept)
        _put_back(path, kept)
        return kept


def _id_of(found: os.stat_result) -> _Id:
    return found.st_dev, found.st_ino


def _put_back(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir()
    else:
        os.link(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
