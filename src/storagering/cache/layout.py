"""Where things lie in the cache, and how a new dataset gets there whole or not at all.

ROOT/datasets/NAME/     manifest.json, statistics.parquet, chunk-000000.zarr.zip, ...   published; a file named
                        "partial" says that chunks may be absent
ROOT/staging/NAME.KEY/  the finished tasks of a build; NAME.KEY.lock is held by its builder. It outlives a
                        builder that died, so that the next one goes on from there. In a shared cache it is
                        NAME.KEY@MACHINE: others may not see that the lock is held, and leave it alone
ROOT/locks/NAME.lock    held by whoever builds NAME, so that others wait instead of building too; NAME.fill by the
                        process that does it for the loaders of this node
ROOT/fills/KEY.json     which dataset came of a request, so that no server need be asked what a pattern means
ROOT/leases/ID.lock     held by a process that pins chunks or claims room
ROOT/pins/NAME.json     a dataset that somebody wants to stay, until it is unpinned
ROOT/node               the id by which other nodes know this one; locks/.forward.lock is held by who forwards
ROOT/journals/KIND/     what processes tell of what they did: see `storagering.cache.journal`
ROOT/logs/KIND/DIGEST.parquet   imported logs of the grid
ROOT/ledger.sqlite      which chunks lie here, and their use; may be deleted at any time
ROOT/quarantine/        damaged files that were replaced, and folders that were in the way
ROOT/indexes/NAME-DIGEST/COLUMN.bitmaps   bitmap indexes of columns; may be deleted at any time
ROOT/catalog.duckdb     an index; may be deleted at any time
"""

from __future__ import annotations

import os
import platform
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from storagering.cache.manifest import MANIFEST_NAME, earlier_manifest_name, read_manifest
from storagering.cache.root import check_folder, make_folder, open_root
from storagering.cache.unfinished import (
    UnfinishedBuild,
    count_finished,
    holds_finished_work,
    read_outline,
)
from storagering.config import Settings
from storagering.errors import CacheError, InputError, NotFoundError, StorageringError, nearest_names
from storagering.files import (
    FileLock,
    list_directory,
    remove_directory,
    remove_file,
    rename_file,
    safe_join,
    sync_directory,
)
from storagering.types import Manifest, sha256_hex

#: In the folder of a dataset of which chunks may be absent.
PARTIAL_NAME = "partial"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
#: The key of what is staged for chunks that are fetched begins with this.
FETCH_KEY = "fetch"
#: Tables of the catalog: a dataset of that name could not be queried.
RESERVED_NAMES = frozenset({
    "accesses", "chunks", "columns", "datasets", "insight_cold", "insight_cpu_efficiency", "insight_failures",
    "insight_hot_without_replica", "insight_site_traffic", "journals", "lineage", "log_accesses", "log_aso",
    "log_cmssw", "log_condor", "log_dbs", "log_eos", "log_files", "log_fts", "log_jobmonitoring", "log_jobs",
    "log_phedex", "log_replicas", "log_transfers", "log_wmarchive", "log_xrootd", "replicas", "residents",
    "skipped_columns", "skipped_sources", "source_files", "trainings", "versions",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cache:
    """The node-local cache: its folders and what is published in it."""

    root: Path
    settings: Settings

    def names(self) -> list[str]:
        """Names of the published datasets, sorted."""
        found = list_directory(self.root / "datasets")
        return sorted(p.name for p in found if _NAME.fullmatch(p.name) and _holds_manifest(p))

    def path(self, name: str) -> Path:
        """Folder of a dataset, published or not."""
        return safe_join(self.root, "datasets", check_name(name))

    def contains(self, name: str) -> bool:
        """Whether a dataset of that name is published.

        Raises:
            CacheError: what is there is a link, or another user can write there.
        """
        folder = check_folder(self.path(name), shared=self.settings.shared)
        return folder is not None and (self.path(name) / MANIFEST_NAME).is_file()

    def manifest(self, name: str, version: int | None = None) -> Manifest:
        """The manifest of a published dataset, as it is or in an earlier version.

        Raises:
            NotFoundError: there is none (lists the nearest names), or no such version.
            FormatError, ChecksumError: it is damaged or of another version.
            CacheError: as `contains`.
        """
        if not self.contains(name):
            known = self.names()
            hint = nearest_names(name, known) if known else "; the cache is empty, run 'storagering convert' first"
            raise NotFoundError(f"no dataset {name!r} in {self.root}{hint}")
        limit = self.settings.max_manifest_bytes
        manifest = read_manifest(self.path(name), limit)
        if version is None or version == manifest.version:
            return manifest
        if not 1 <= version < manifest.version:
            raise NotFoundError(f"dataset {name!r} has no version {version}; there are 1 to {manifest.version}")
        return read_manifest(self.path(name), limit, earlier_manifest_name(version))

    def holds(self, manifest: Manifest) -> bool:
        """Whether that very dataset is published, in that version: read, where an error left it open."""
        with suppress(StorageringError):
            return self.manifest(manifest.name).digest == manifest.digest
        return False

    def put_aside(self, name: str) -> Path:
        """Move a dataset that cannot be read into quarantine; returns its folder there."""
        make_folder(self.root / "quarantine", shared=self.settings.shared)
        aside = safe_join(self.root, "quarantine", f"{check_name(name)}-{secrets.token_hex(4)}")
        rename_file(self.path(name), aside)
        sync_directory(aside.parent)
        sync_directory(self.path(name).parent)
        return aside

    def is_being_built(self, name: str) -> bool:
        """Whether some process builds a dataset of that name, or changes it."""
        lock = self.build_lock(name)
        if not lock.path.exists() or lock.try_acquire():
            lock.release()
            return False
        return True

    def build_lock(self, name: str, number: int = 0) -> FileLock:
        """The lock that builders of that name take turns with; the next number's if its holder stands still."""
        suffix = f"@{number}" if number else ""
        return FileLock(safe_join(self.root, "locks", f"{check_name(name)}{suffix}.lock"))

    def filler_lock(self, name: str, number: int = 0) -> FileLock:
        """The lock held by the one process of the node that makes that dataset for those who read it meanwhile; the
        next number's if that one stands still.
        """
        suffix = f"@{number}" if number else ""
        return FileLock(safe_join(self.root, "locks", f"{check_name(name)}{suffix}.fill"))

    @contextmanager
    def staging(self, name: str, key: str, *, keep_others: bool = False) -> Iterator[Path]:
        """The folder in which builds of that name and key work, with what the last one finished.

        What builds of another key left under the name is removed, unless told otherwise. The folder is kept
        when the block ends if a task is finished in it; `remove_directory` it when nothing in it is of use any more.
        """
        path = safe_join(self.root, "staging", f"{check_name(name)}.{key}{self.machine}")
        if not keep_others:
            self._drop_unfinished(name, keep=path)
        lock, owner = _lock_of(path), os.getpid()
        lock.acquire(self.settings.lock_timeout_seconds)
        try:
            make_folder(path, shared=self.settings.shared)
            _drop_folders(path)
            yield path
        finally:
            try:
                if os.getpid() != owner:
                    pass  # a forked child: it is its parent's
                elif holds_finished_work(path):
                    _drop_folders(path)
                else:
                    remove_directory(path)
                    remove_file(lock.path)
            except CacheError:  # it is removed by a later `reclaim`; what was done, or failed, is so all the same
                pass
            finally:
                lock.release()

    def work_on(self, name: str) -> dict[str, int]:
        """What lies in the staging folders of that name, with sizes: it changes while somebody builds."""
        found: dict[str, int] = {}
        for folder, _ in self.staging_folders(name):
            for parent, folders, files in os.walk(folder):  # passes over folders that are removed meanwhile
                for path in (Path(parent, name) for name in (*folders, *files)):
                    with suppress(OSError):  # removed meanwhile
                        found[str(path)] = path.stat().st_size
        return found

    def is_changing(self, name: str) -> bool:
        """Whether an append or a repair of that dataset may be going on: they work on what is published."""
        for folder, _ in self.staging_folders(name):
            outline = read_outline(folder)
            if folder.name.startswith(f"{name}.{FETCH_KEY}-") or (outline is not None and outline.parent):
                return True
        return False

    def staging_folders(self, name: str) -> list[tuple[Path, Path]]:
        """The folders in which builds of that name work or have worked, each with the file that its builder locks."""
        locks = list_directory(self.root / "staging", f"{check_name(name)}.*.lock")
        folders = [(path.with_suffix(""), path) for path in locks]
        return [(folder, lock) for folder, lock in folders if folder.name.rpartition(".")[0] == name]

    def unfinished(self) -> list[UnfinishedBuild]:
        """Builds that were interrupted, or are going on, and have finished some of their work."""
        folders = sorted(path for path in list_directory(self.root / "staging", "[!.]*") if path.is_dir())
        found = []
        for path in folders:
            with suppress(CacheError):  # a link, or another user's
                found.append(count_finished(path))
        return [build for build in found if build is not None]

    def reclaim(self) -> None:
        """Remove what dead builders and removers left and nobody can go on from.

        A live builder is known by its lock, never by age.
        """
        for path in list_directory(self.root / "staging", "*.lock"):
            folder = path.with_suffix("")
            if self.is_of_another_machine(folder):
                continue
            lock = _lock_of(folder)
            if lock.try_acquire():
                try:
                    if not self.can_go_on(folder):
                        remove_directory(folder)
                        remove_file(path)
                finally:
                    lock.release()
        for path in list_directory(self.root / "locks", "*.fetch"):
            lock = FileLock(path)
            if lock.try_acquire():
                remove_file(path)
                lock.release()
        for name in ("staging", "datasets"):
            for path in list_directory(self.root / name, ".removed-*"):
                remove_directory(path)

    def remove(self, name: str) -> None:
        """Remove a published dataset, at once from view, then from disk; and unfinished work of that name.

        Raises:
            NotFoundError: there is neither.
        """
        there = self.contains(name)
        dropped = self._drop_unfinished(name)
        if there:
            remove_directory(self.path(name))
        elif not dropped:
            raise NotFoundError(f"no dataset {name!r} in {self.root}{nearest_names(name, self.names())}")

    @property
    def machine(self) -> str:
        """What tells staging folders and journals of this machine from those of others, where these share the cache."""
        return f"@{sha256_hex(platform.node().encode())[:8]}" if self.settings.shared else ""

    def is_of_another_machine(self, folder: Path) -> bool:
        """Whether a staging folder, or journal without its suffix, is of a machine whose locks cannot be seen here."""
        return "@" in folder.name and not (self.machine and folder.name.endswith(self.machine))

    def can_go_on(self, folder: Path) -> bool:
        """Whether a build can go on from that staging folder: not if what it made is published."""
        if folder.is_symlink() or (outline := read_outline(folder)) is None or not holds_finished_work(folder):
            return False
        with suppress(StorageringError):
            if self.contains(outline.name):
                return self.manifest(outline.name).digest == outline.parent
        return not outline.parent

    def _drop_unfinished(self, name: str, keep: Path | None = None) -> bool:
        """Remove the staging folders of dead builders of that name; whether there were any."""
        dropped = False
        for folder, path in self.staging_folders(name):
            if folder == keep or self.is_of_another_machine(folder):
                continue
            lock = _lock_of(folder)
            if lock.try_acquire():
                try:
                    remove_directory(folder)
                    remove_file(path)
                finally:
                    lock.release()
                dropped = True
        return dropped


def _holds_manifest(folder: Path) -> bool:
    try:
        return (folder / MANIFEST_NAME).is_file()
    except PermissionError:  # somebody else's: opening it tells so
        return True


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def _drop_folders(staging: Path) -> None:
    """Remove what is of use to one run only: spooled files, a dataset that was not published."""
    for path in list_directory(staging):
        if path.is_dir():
            remove_directory(path)


def open_cache(settings: Settings) -> Cache:
    """The cache at ``settings.cache``, its folders made if absent.

    Raises:
        CacheError, ReadOnlyCacheError: the root cannot be used or trusted: see `open_root`.
    """
    open_root(settings.cache, shared=settings.shared)
    return Cache(settings.cache, settings)


def check_name(name: str) -> str:
    """The name itself, if a dataset may have it.

    Raises:
        InputError: it is not made of letters, digits, ``_``, ``.`` and ``-``, or is a catalog table's.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"dataset name {name!r}: use up to 100 letters, digits, '_', '.', '-', not starting with '.' or '-'"
        )
    if name.lower() in RESERVED_NAMES:
        raise InputError(f"dataset name {name!r} is a table of the catalog; choose another")
    return name
