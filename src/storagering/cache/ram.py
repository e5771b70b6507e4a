"""The memory tier: copies of chunks in a tmpfs folder over the disk, shared by all processes of the node.

    RAM/chunks/DIGEST.SUFFIX    the same bytes as on the disk, with the same checks when they are read
    RAM/ledger.sqlite           what lies there, as on the disk

Everything in it is a copy, so anything may go at any time.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from storagering.cache.leases import Lease
from storagering.cache.ledger import Ledger, Resident, forget_chunks, note_filled, touch_chunks
from storagering.cache.room import Limits, Room, Tier
from storagering.cache.root import make_folder
from storagering.config import Settings, parse_quota
from storagering.errors import CacheError, CacheFullError, StorageringError
from storagering.files import make_directory, map_file, remove_file, rename_file, safe_join, write_new
from storagering.types import Chunk

_CHUNKS = "chunks"


class RamTier:
    """Copies of chunks in memory; safe to share."""

    def __init__(self, settings: Settings) -> None:
        root = Path(settings.ram_tier).expanduser().absolute()
        make_directory(root, private=not settings.shared)
        for folder in (root, root / _CHUNKS):
            make_folder(folder, shared=settings.shared)
        self._folder, self._root = root / _CHUNKS, root
        self._ledger = Ledger(root / "ledger.sqlite")
        limits = Limits(parse_quota(settings.ram_quota, root), 1.0, settings.low_water, settings.eviction, 0.0)
        self._room = Room(Tier(root, self._ledger, lambda: 0, lambda: False, lambda _name: "", self._remove), limits)
        if not self._ledger.is_filled():
            self._sync()

    def find(self, chunk: Chunk) -> Path | None:
        """Where a chunk's copy is, None if there is none."""
        path = self._path(chunk)
        return path if path.exists() else None

    def admit(self, chunk: Chunk, path: Path) -> None:
        """Copy a chunk's file into memory, in the place of what was not used for longest; or leave it."""
        lease = Lease(self._root, "copying into memory")
        target = self._path(chunk)
        hidden = target.with_name(f".{secrets.token_hex(8)}")
        try:
            self._room.claim(lease.id, target.name, chunk.nbytes)
            write_new(hidden, map_file(path, chunk.nbytes))
            row = Resident(_CHUNKS, target.name, chunk.nbytes, float(chunk.nbytes))
            self._room.settle(lease.id, target.name, [row])  # first: a row without a file does no harm
            rename_file(hidden, target)
        except StorageringError as error:
            with suppress(CacheError):
                remove_file(hidden)
                self._room.settle(lease.id, target.name, ())
            if not isinstance(error, CacheFullError):
                raise
        finally:
            lease.release()

    def touch(self, chunks: Sequence[Chunk]) -> None:
        """Note that copies are used."""
        with suppress(CacheError), self._ledger.transaction() as database:
            touch_chunks(database, _CHUNKS, [self._path(chunk).name for chunk in chunks])

    def drop(self, chunk: Chunk) -> None:
        """Remove a copy that is damaged."""
        self._remove(_CHUNKS, [self._path(chunk).name])
        with self._ledger.transaction() as database:
            forget_chunks(database, _CHUNKS, [self._path(chunk).name])

    def _path(self, chunk: Chunk) -> Path:
        return safe_join(self._folder, f"{chunk.digest}.{chunk.file.partition('.')[2]}")

    def _remove(self, _dataset: str, files: Sequence[str]) -> None:
        for file in files:
            remove_file(safe_join(self._folder, file))

    def _sync(self) -> None:
        """Without a ledger nobody knows what lies there, or how old it is: it goes."""
        with self._ledger.transaction() as database:
            for path in self._folder.iterdir():
                remove_file(path)
            database.execute("DELETE FROM chunks")
            note_filled(database)
