"""What a loader has read, noted in the cache's journal: a line at the end of each epoch, or where it is broken off.

Chunks are counted once a window, what was delivered follows from the steps: nothing is done for a batch.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from weakref import WeakSet

from storagering.cache.accesses import Taken, note_access
from storagering.cache.layout import Cache
from storagering.cache.store import ChunkReader
from storagering.loaders.cursor import Cursor
from storagering.loaders.filling import LoaderData
from storagering.loaders.supply import ChunkSupply
from storagering.types import Chunk


@dataclass(frozen=True, slots=True)
class EpochSize:
    """Batches of an epoch on this rank.

    Attributes:
        missing: entries that the last batch has less than the others.
    """

    num_steps: int
    batch_size: int
    missing: int

    def delivered(self, first: int, step: int, stride: int) -> int:
        """Entries of the steps from ``first`` to before ``step``, every so many of them."""
        last = self.num_steps - 1
        short = first <= last < step and (last - first) % stride == 0
        return len(range(first, step, stride)) * self.batch_size - self.missing * short


class CountedChunks:
    """The chunks of one epoch, see `ChunkSupply`: windows that take them are counted.

    Args:
        names: columns that are read.
        sizes: what these take in chunks that were opened before, by digest.
    """

    def __init__(self, supply: ChunkSupply, names: Sequence[str], sizes: dict[str, int]) -> None:
        self._supply, self._names, self._sizes = supply, names, sizes
        self.schema, self.entries, self.strata = supply.schema, supply.entries, supply.strata
        self.where, self.tier, self._before = supply.where, supply.tier, supply.fetched
        self._uses: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def fetched(self) -> int:
        """See `ChunkSupply.fetched`."""
        return self._supply.fetched - self._before

    @property
    def is_settled(self) -> bool:
        """See `ChunkSupply.is_settled`."""
        return self._supply.is_settled

    def is_ready(self, unit: int) -> bool:
        """See `ChunkSupply.is_ready`."""
        return self._supply.is_ready(unit)

    def chunks(self, unit: int) -> Sequence[Chunk]:
        """See `ChunkSupply.chunks`."""
        return self._supply.chunks(unit)

    def open(self, chunk: Chunk) -> ChunkReader:
        """See `ChunkSupply.open`."""
        reader = self._supply.open(chunk)
        if chunk.digest not in self._sizes:
            self._sizes[chunk.digest] = reader.stored_bytes(self._names)
        return reader

    def hold(self, windows: Iterable[Sequence[int]]) -> None:
        """See `ChunkSupply.hold`."""
        self._supply.hold(windows)

    def held(self, chunks: Sequence[Chunk]) -> AbstractContextManager[None]:
        """See `ChunkSupply.held`; a window takes these chunks."""
        with self._lock:
            for chunk in chunks:
                self._uses[chunk.digest] = self._uses.get(chunk.digest, 0) + 1
        return self._supply.held(chunks)

    def mend(self, chunks: Sequence[Chunk]) -> bool:
        """See `ChunkSupply.mend`."""
        return self._supply.mend(chunks)

    def renewed(self) -> CountedChunks:
        """See `ChunkSupply.renewed`."""
        return CountedChunks(self._supply.renewed(), self._names, {})

    def close(self) -> None:
        """See `ChunkSupply.close`."""
        self._supply.close()

    def taken(self, entries: int) -> Taken | None:
        """What was read so far, None if no window took a chunk."""
        with self._lock:
            uses = dict(self._uses)
        if not uses:
            return None
        nbytes, count = sum(self._sizes.get(digest, 0) * times for digest, times in uses.items()), sum(uses.values())
        misses = min(self.fetched, count)
        return Taken(entries, nbytes, count - misses, misses, self._supply.tier)


@dataclass(frozen=True, slots=True)
class _Page:
    """An epoch that runs."""

    epoch: int
    first: int
    stride: int
    begin: float
    pid: int


class Diary:
    """Notes what the epochs of a loader have read.

    Args:
        names: columns that are read.
        size: of an epoch.
        cursor: of the loader.
    """

    def __init__(self, cache: Cache, data: LoaderData, names: Sequence[str], size: EpochSize, cursor: Cursor) -> None:
        self._cache, self._data, self._names = cache, data, tuple(dict.fromkeys(names))
        self._size, self._cursor = size, cursor
        self._counted: dict[int, CountedChunks] = {}
        self._sizes: dict[str, int] = {}
        self._page: _Page | None = None

    def count(self, supply: ChunkSupply, epoch: int) -> ChunkSupply:
        """The chunks of an epoch that will be read, counted if that is wanted."""
        if not self._cache.settings.journal:
            return supply
        counted = self._counted[epoch] = CountedChunks(supply, self._names, self._sizes)
        return counted

    def begin(self, stride: int) -> None:
        """An epoch runs from where the loader stands."""
        at = self._cursor.reached = self._cursor.position
        self._page = _Page(at.epoch, at.step, stride, time.monotonic(), os.getpid())
        _running.add(self)

    def end(self) -> None:
        """It ran to where it was reached; nothing happens if it has ended, or belongs to the parent of a fork."""
        _running.discard(self)
        page, self._page = self._page, None
        if page is None:
            return
        counted = self._counted.pop(page.epoch, None)
        self._counted = {epoch: kept for epoch, kept in self._counted.items() if epoch == page.epoch + 1}
        entries = self._size.delivered(page.first, self._cursor.reached.step, page.stride)
        if counted is None or page.pid != os.getpid() or entries <= 0:
            return
        label = self._data.label()
        taken = counted.taken(entries)
        if taken is None:  # an exact shuffle takes entries from anywhere
            chunks = () if isinstance(label, str) else label.chunks
            stored, all_entries = sum(chunk.nbytes for chunk in chunks), sum(chunk.num_entries for chunk in chunks)
            taken = Taken(entries, entries * stored // max(1, all_entries), len(chunks), 0, counted.tier)
        seconds = time.monotonic() - page.begin
        note_access(self._cache, label, "loader", self._names, taken, seconds=seconds, epoch=page.epoch)


_running: WeakSet[Diary] = WeakSet()


@atexit.register
def _end_all() -> None:
    """Iterations that are still open end with the program, while what noting them takes is there."""
    for diary in list(_running):
        diary.end()
