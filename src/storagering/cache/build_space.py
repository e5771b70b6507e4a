"""The room that a build takes on the disk, task by task; a dataset larger than the quota keeps its last chunks."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from storagering.cache.finished import BuiltChunks
from storagering.cache.layout import Cache
from storagering.cache.leases import Lease
from storagering.cache.ledger import add_chunks, drop_lease, forget_filled, note_filled
from storagering.cache.messages import BuildContext
from storagering.cache.residency import mark_partial, resident_files
from storagering.cache.room import Room
from storagering.cache.space import disk_ledger, disk_room, residents_of
from storagering.errors import CacheError, CacheFullError
from storagering.files import remove_file, safe_join
from storagering.types import Manifest, SourceFile


class BuildSpace:
    """Claims what a build writes; close it. Without a quota it only tells the ledger what was published."""

    def __init__(self, cache: Cache, name: str, staging: Path) -> None:
        self._cache, self._name, self._staging = cache, name, staging
        self._room: Room | None = None
        self._lease: Lease | None = None
        self._can_drop = self._was_filled = False
        self._kept: dict[str, str] = {}
        self._lock = threading.Lock()
        if cache.settings.quota:
            self._room = disk_room(cache)
            self._lease = Lease(cache.root, f"building {name}")

    def check(self, context: BuildContext) -> None:
        """Raise CacheFullError if the quota cannot even hold one chunk; nothing was read for it then."""
        room = self._room
        if room is None or room.quota_bytes is None:
            return
        self._can_drop = _can_come_back(context)
        needed = min(context.spec.chunk_bytes, sum(file.nbytes for file in context.sources))
        if needed > room.quota_bytes:
            raise CacheFullError(
                f"a chunk of dataset {self._name!r} may take {needed:,} bytes, and the quota of {self._cache.root} is "
                f"{room.quota_bytes:,}; raise --quota, or lower --chunk-bytes"
            )

    def take(self, key: str, built: BuiltChunks) -> None:
        """A task's chunks are written; makes room for them.

        Raises:
            CacheFullError: there is none, though chunks of this build were given up.
        """
        if self._room is None or self._lease is None:
            return
        with self._lock:
            for number, item in enumerate(built):
                if not safe_join(self._staging, item.chunk.file).exists():  # given up in an earlier run
                    continue
                self._room.claim(self._lease.id, f"{key} {number}", item.chunk.nbytes, self._give_up_one)
                self._kept[f"{key} {number}"] = item.chunk.file

    def announce(self) -> None:
        """The chunks are about to be published: whoever finds nothing more than this looks at the disk."""
        with suppress(CacheError), disk_ledger(self._cache).transaction() as database:
            self._was_filled = forget_filled(database)

    def publish(self, manifest: Manifest) -> None:
        """The chunks lie in the dataset's folder now."""
        files = resident_files(self._cache.path(manifest.name), manifest)
        with suppress(CacheError), disk_ledger(self._cache).transaction() as database:
            if self._lease is not None:
                drop_lease(database, self._lease.id)
            add_chunks(database, residents_of(manifest, files))
            if self._was_filled:
                note_filled(database)

    def _give_up_one(self) -> bool:
        """Give up the chunk that was written first; False if there is none to give up."""
        if self._room is None or self._lease is None or not self._kept or not self._can_drop:
            return False
        key = next(iter(self._kept))
        mark_partial(self._staging)
        remove_file(safe_join(self._staging, self._kept.pop(key)))
        self._room.settle(self._lease.id, key, ())
        return True

    def close(self) -> None:
        """Let go of what was not published: it counts as unfinished work."""
        lease, self._lease, self._room = self._lease, None, None
        if lease is not None:
            with suppress(CacheError), disk_ledger(self._cache).transaction() as database:
                drop_lease(database, lease.id)
            lease.release()


def _can_come_back(context: BuildContext) -> bool:
    """Whether chunks that are given up could be made again later; to mix entries takes all of them."""
    foreign = any(":" in friend for friend in context.spec.friends)
    return context.mixing is None and not foreign and all(_tells_its_state(source) for source in context.sources)


def _tells_its_state(source: SourceFile) -> bool:
    return bool(source.version or source.checksum)
