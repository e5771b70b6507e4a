"""Sweeping up: what dead processes left, and what was put aside. Who lives is told by locks, never by age."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storagering.cache.bitmaps import index_folder
from storagering.cache.layout import Cache
from storagering.cache.leases import sweep_leases
from storagering.cache.space import folder_bytes
from storagering.errors import NotFoundError, StorageringError
from storagering.files import FileLock, remove_directory, remove_file

_PUT_ASIDE = "*.corrupt*"


@dataclass(frozen=True)
class Swept:
    """One thing that went, or would go."""

    path: str
    what: str
    nbytes: int


def sweep_cache(cache: Cache, *, unfinished: bool, dry_run: bool) -> tuple[Swept, ...]:
    """Remove what is of no use any more; what it was."""
    root = cache.root
    found = [
        *_dead_builds(cache, unfinished=unfinished, dry_run=dry_run),
        *_free_locks(root, dry_run=dry_run),
        *_all_of(root.glob("*/.removed-*"), "being removed when its process died", remove_directory, dry_run),
        *_all_of((root / "quarantine").glob("*"), "damaged, and replaced", _remove, dry_run),
        *_all_of(_idle_indexes(cache), "index of a dataset that is gone", remove_directory, dry_run),
        *_all_of(root.glob(_PUT_ASIDE), "damaged index, made anew", remove_file, dry_run),
    ]
    if not dry_run:
        sweep_leases(root)
    return tuple(found)


def _dead_builds(cache: Cache, *, unfinished: bool, dry_run: bool) -> Iterator[Swept]:
    resumable = {path for path in (cache.root / "staging").glob("[!.]*") if path.is_dir() and cache.can_go_on(path)}
    for lock_path in sorted((cache.root / "staging").glob("*.lock")):
        folder = lock_path.with_suffix("")
        if (folder in resumable and not unfinished) or cache.is_of_another_machine(folder):
            continue
        lock = FileLock(lock_path)
        if lock.try_acquire():
            try:
                yield Swept(str(folder), "left by an interrupted build", folder_bytes(folder))
                if not dry_run:
                    remove_directory(folder)
                    remove_file(lock_path)
            finally:
                lock.release()


def _idle_indexes(cache: Cache) -> Iterator[Path]:
    """Folders of bitmap indexes of datasets, or versions of them, that are not there any more."""
    for folder in (cache.root / "indexes").glob("*-*"):
        name = folder.name.rpartition("-")[0]
        try:
            versions = range(1, cache.manifest(name).version + 1)
            known = {index_folder(cache, cache.manifest(name, version)) for version in versions}
        except NotFoundError:
            known = set()
        except StorageringError:  # it cannot be read just now
            continue
        if folder not in known:
            yield folder


def _free_locks(root: Path, *, dry_run: bool) -> Iterator[Swept]:
    for path in sorted((root / "locks").glob("*.fetch")):
        lock = FileLock(path)
        if lock.try_acquire():
            try:
                yield Swept(str(path), "lock of a dead process", 0)
                if not dry_run:
                    remove_file(path)
            finally:
                lock.release()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove_directory(path)
    else:
        remove_file(path)


def _all_of(paths: Iterator[Path], what: str, remove: Callable[[Path], None], dry_run: bool) -> Iterator[Swept]:
    for path in sorted(paths):
        with suppress(FileNotFoundError):  # a living process was about to remove it
            nbytes = folder_bytes(path) if path.is_dir() else path.lstat().st_size
            yield Swept(str(path), what, nbytes)
        if not dry_run:
            remove(path)
