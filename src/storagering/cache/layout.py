"""Where things lie in the cache, and how a new dataset gets there whole or not at all.

ROOT/datasets/NAME/   manifest.json, statistics.parquet, chunk-000000.zarr.zip, ...   published
ROOT/staging/TOKEN/   the same being built; TOKEN.lock is held by its builder
ROOT/locks/NAME.lock  held by whoever builds NAME, so that others wait instead of building too
ROOT/catalog.duckdb   an index; may be deleted at any time
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from storagering.cache.manifest import MANIFEST_NAME, read_manifest
from storagering.config import Settings
from storagering.errors import CacheError, InputError, NotFoundError, nearest_names
from storagering.files import FileLock, disk_errors, make_directory, remove_directory, safe_join
from storagering.types import Manifest

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
#: Tables of the catalog: a dataset of that name could not be queried.
RESERVED_NAMES = frozenset({"datasets", "columns", "chunks", "source_files", "skipped_columns", "skipped_sources"})


@dataclass(frozen=True, slots=True)
class Cache:
    """The node-local cache: its folders and what is published in it."""

    root: Path
    settings: Settings

    def names(self) -> list[str]:
        """Names of the published datasets, sorted."""
        folder = self.root / "datasets"
        if not folder.is_dir():
            return []
        return sorted(p.name for p in folder.iterdir() if _NAME.fullmatch(p.name) and (p / MANIFEST_NAME).is_file())

    def path(self, name: str) -> Path:
        """Folder of a dataset, published or not."""
        return safe_join(self.root, "datasets", check_name(name))

    def contains(self, name: str) -> bool:
        """Whether a dataset of that name is published."""
        return (self.path(name) / MANIFEST_NAME).is_file()

    def manifest(self, name: str) -> Manifest:
        """The manifest of a published dataset.

        Raises:
            NotFoundError: there is none (lists the nearest names).
            FormatError, ChecksumError: it is damaged or of another version.
        """
        if not self.contains(name):
            known = self.names()
            hint = nearest_names(name, known) if known else "; the cache is empty, run 'storagering convert' first"
            raise NotFoundError(f"no dataset {name!r} in {self.root}{hint}")
        return read_manifest(self.path(name), self.settings.max_manifest_bytes)

    def build_lock(self, name: str) -> FileLock:
        """The lock that builders of that name take turns with."""
        return FileLock(safe_join(self.root, "locks", f"{check_name(name)}.lock"))

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A fresh folder to build in, removed afterwards unless it was renamed away."""
        folder = self.root / "staging"
        token = secrets.token_hex(8)
        lock = FileLock(folder / f"{token}.lock")
        lock.acquire(self.settings.lock_timeout_seconds)
        path = folder / token
        try:
            with disk_errors(path):
                path.mkdir(mode=0o700)
            yield path
        finally:
            remove_directory(path)
            lock.path.unlink(missing_ok=True)
            lock.release()

    def reclaim(self) -> None:
        """Remove what dead builders and removers left; a live builder is known by its lock, never by age."""
        for path in (self.root / "staging").glob("*.lock"):
            lock = FileLock(path)
            if lock.try_acquire():
                remove_directory(path.with_suffix(""))
                path.unlink(missing_ok=True)
                lock.release()
        for folder in ("staging", "datasets"):
            for path in (self.root / folder).glob(".removed-*"):
                remove_directory(path)

    def remove(self, name: str) -> None:
        """Remove a published dataset: at once from view, then from disk.

        Raises:
            NotFoundError: there is none.
        """
        if not self.path(name).exists():
            raise NotFoundError(f"no dataset {name!r} in {self.root}{nearest_names(name, self.names())}")
        remove_directory(self.path(name))


def open_cache(settings: Settings) -> Cache:
    """The cache at ``settings.cache``, its folders made if absent.

    Raises:
        CacheError: the root is a file or a dangling link.
        ReadOnlyCacheError: its folders cannot be made.
    """
    root = settings.cache
    if (root.exists() and not root.is_dir()) or (root.is_symlink() and not root.exists()):
        raise CacheError(f"the cache root {root} is not a folder; set STORAGERING_CACHE to one")
    for name in ("datasets", "staging", "locks"):
        make_directory(root / name)
    return Cache(root, settings)


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
