"""The disk tier: the cache's room, what may leave it, and the ledger kept equal to what lies there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from storagering.cache.layout import Cache
from storagering.cache.ledger import Ledger, Resident, add_chunks, note_filled
from storagering.cache.pins import pin_of
from storagering.cache.residency import mark_partial, resident_files, why_it_must_stay
from storagering.cache.room import Limits, Room, Tier
from storagering.config import Settings, parse_quota
from storagering.errors import NotFoundError, StorageringError
from storagering.files import FileLock, remove_directory, remove_file, safe_join
from storagering.types import Manifest

_LEDGER_NAME = "ledger.sqlite"


def disk_ledger(cache: Cache) -> Ledger:
    """The ledger of the cache's disk."""
    return Ledger(cache.root / _LEDGER_NAME, shared=cache.settings.shared)


def disk_room(cache: Cache) -> Room:
    """The room on the cache's disk.

    Raises:
        ConfigError: the quota, its water marks or the policy are not what they should be.
        CacheError: the ledger cannot be read.
    """
    ledger = disk_ledger(cache)

    def must_stay(name: str) -> str:
        return _why_it_must_stay(cache, name)

    def remove(name: str, files: Sequence[str]) -> None:
        _remove_chunks(cache, name, files)

    def give_up() -> bool:
        return _drop_unfinished(cache)

    tier = Tier(cache.root, ledger, lambda: unfinished_bytes(cache), give_up, must_stay, remove)
    room = Room(tier, limits_of(cache.settings))
    if not ledger.is_filled():
        sync_ledger(cache)
    return room


def limits_of(settings: Settings) -> Limits:
    """What the disk may hold."""
    return Limits(
        quota_bytes=parse_quota(settings.quota, settings.cache),
        high_water=settings.high_water,
        low_water=settings.low_water,
        policy=settings.eviction,
        wait_seconds=settings.room_timeout_seconds,
    )


def residents_of(manifest: Manifest, files: set[str] | None = None) -> Iterator[Resident]:
    """The rows of a dataset's chunks, of those files or of all."""
    for chunk in manifest.chunks:
        if files is None or chunk.file in files:
            yield Resident(manifest.name, chunk.file, chunk.nbytes, float(chunk.raw_bytes))


def sync_ledger(cache: Cache) -> None:
    """Make the ledger say what lies on the disk; the history of what is known is kept."""
    with disk_ledger(cache).transaction() as database:
        known = {(name, file) for name, file in database.execute("SELECT dataset, file FROM chunks")}
        there = [row for name in cache.names() for row in _lying_there(cache, name)]
        gone = known - {(row.dataset, row.file) for row in there}
        database.executemany("DELETE FROM chunks WHERE dataset = ? AND file = ?", sorted(gone))
        add_chunks(database, there)
        note_filled(database)


def unfinished_bytes(cache: Cache) -> int:
    """What interrupted builds have left; those of a living builder are claimed by it."""
    total = 0
    for path in (cache.root / "staging").glob("*.lock"):
        lock = FileLock(path, shared=True)
        if lock.try_acquire():
            total += folder_bytes(path.with_suffix(""))
            lock.release()
    return total


def _drop_unfinished(cache: Cache) -> bool:
    """Remove what interrupted builds have left; False if there is nothing, or somebody goes on with it."""
    dropped = False
    for path in sorted((cache.root / "staging").glob("*.lock")):
        lock = FileLock(path)
        if not cache.is_of_another_machine(path.with_suffix("")) and lock.try_acquire():
            try:
                dropped |= folder_bytes(path.with_suffix("")) > 0
                remove_directory(path.with_suffix(""))
                remove_file(path)
            finally:
                lock.release()
    return dropped


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; what goes meanwhile does not count."""
    total = 0
    for where, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):
                total += Path(where, file).lstat().st_size
    return total


def _lying_there(cache: Cache, name: str) -> list[Resident]:
    try:
        manifest = cache.manifest(name)
    except StorageringError:  # 'verify' tells of it
        return []
    return list(residents_of(manifest, resident_files(cache.path(name), manifest)))


def _why_it_must_stay(cache: Cache, name: str) -> str:
    if (pin := pin_of(cache, name)) is not None:
        return f"pinned: {pin}"
    try:
        return why_it_must_stay(cache.manifest(name), cache.settings)
    except NotFoundError:  # rows of a dataset that was removed
        return ""
    except StorageringError:
        return "its manifest cannot be read"


def _remove_chunks(cache: Cache, name: str, files: Sequence[str]) -> None:
    """Who has a file open reads on; who opens it later finds it absent, and the mark that tells why."""
    folder = cache.path(name)
    if not folder.exists():
        return
    mark_partial(folder)
    for file in files:
        remove_file(safe_join(folder, file))
