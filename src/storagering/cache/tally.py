"""Counting what somebody reads of a dataset chunk by chunk, to be noted when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType

from storagering.cache.access import ChunkAccess
from storagering.cache.accesses import Taken, note_access
from storagering.cache.layout import Cache
from storagering.cache.store import ChunkReader
from storagering.types import Manifest


class Tally:
    """What is read in a ``with`` block, noted in the journal at its end, whatever ends it. Safe to share by threads.

    Args:
        access: of this block alone.
        purpose: see `Access`.
        columns: that are read.
    """

    def __init__(
        self, cache: Cache, manifest: Manifest, access: ChunkAccess, purpose: str, columns: Sequence[str]
    ) -> None:
        self._cache, self._manifest, self._access = cache, manifest, access
        self._purpose, self._columns = purpose, columns
        self._lock = threading.Lock()
        self._chunks = self._entries = self._nbytes = 0
        self._begin = time.monotonic()

    def add(self, reader: ChunkReader, entries: int) -> None:
        """So many entries come from that chunk."""
        nbytes = reader.stored_bytes(self._columns)
        with self._lock:
            self._chunks += 1
            self._entries += entries
            self._nbytes += nbytes

    def __enter__(self) -> Tally:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        misses = min(self._access.fetched, self._chunks)
        taken = Taken(self._entries, self._nbytes, self._chunks - misses, misses, self._access.tier)
        seconds = time.monotonic() - self._begin
        note_access(self._cache, self._manifest, self._purpose, self._columns, taken, seconds=seconds)
