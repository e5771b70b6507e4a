"""Reading chunks of a dataset, wherever they are: on the disk, or to be fetched; pinned while they are needed."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal

from storagering.cache.fetch import ChunkFetcher
from storagering.cache.layout import Cache
from storagering.cache.leases import Lease
from storagering.cache.ledger import drop_lease, pin_files, touch_chunks, unpin_files
from storagering.cache.ram import RamTier
from storagering.cache.residency import is_partial, resident_files
from storagering.cache.space import disk_ledger, disk_room
from storagering.cache.store import ChunkReader, chunk_store
from storagering.cache.verify import chunk_fault
from storagering.errors import (
    CacheError,
    CacheFullError,
    CorruptDataError,
    StorageringError,
    TruncatedError,
)
from storagering.files import safe_join
from storagering.types import Chunk, Manifest

#: What a forked child must neither use nor close.
_OF_PARENTS: list[tuple[ExitStack, ChunkFetcher | None]] = []

OnCorrupt = Literal["fail", "rebuild"]


def _is_cut(path: Path, chunk: Chunk) -> bool:
    try:
        return path.stat().st_size != chunk.nbytes
    except FileNotFoundError:
        return False


class ChunkAccess:
    """The chunks of one dataset, for one reader; safe to use from several threads. Close it.

    Args:
        purpose: what the chunks are needed for, shown to those who wait for room.

    Attributes:
        fetched: chunks that were not there when they were needed, so far.
    """

    def __init__(self, cache: Cache, manifest: Manifest, purpose: str = "reading") -> None:
        self._cache, self._manifest, self._purpose = cache, manifest, purpose
        self._folder, self._owner = cache.path(manifest.name), os.getpid()
        self._store = chunk_store(manifest.spec.format)
        self._numbers = {chunk.file: number for number, chunk in enumerate(manifest.chunks)}
        self._stack = ExitStack()
        self._lock, self._pinning = threading.Lock(), threading.Lock()
        self._pins: Counter[str] = Counter()
        self._lease: Lease | None = None
        self._fetcher: ChunkFetcher | None = None
        self._rolling = False
        self.fetched = self._opened = self._copies = 0
        self._ram = RamTier(cache.settings) if cache.settings.ram_tier else None

    @property
    def holds_all(self) -> bool:
        """Whether all chunks are there, and stay until it is closed."""
        return self._lease is not None and not self._rolling and not is_partial(self._folder)

    @property
    def tier(self) -> str:
        """Where most chunks were opened so far: on ``disk``, or in ``ram``."""
        return "ram" if 2 * self._copies > self._opened else "disk"

    def open(self, chunk: Chunk) -> ChunkReader:
        """A reader of a chunk, which is fetched if the dataset is partial and the chunk not there.

        Raises:
            TruncatedError, ChecksumError: the file is not what the manifest says.
            StorageringError: see `ChunkFetcher.ensure`.
        """
        found = self._open_copy(chunk)
        with self._lock:
            self._opened += 1
            self._copies += found is not None
        if found is not None:
            return found
        path = safe_join(self._folder, chunk.file)
        try:
            reader = self._store.open(path, chunk, self._manifest.schema)
        except TruncatedError:  # evicted, unless it may not be absent, or is cut
            if not is_partial(self._folder) or _is_cut(path, chunk):
                raise
            reader = self._open_absent(chunk, path)
        self._keep_copy(chunk, path)
        return reader

    def _open_absent(self, chunk: Chunk, path: Path) -> ChunkReader:
        """Fetch a chunk and open it, before it is evicted again."""
        self._pin([chunk.file])
        try:
            self._fetch([chunk])
            return self._store.open(path, chunk, self._manifest.schema)
        finally:
            self._unpin([chunk.file])

    def _keep_copy(self, chunk: Chunk, path: Path) -> None:
        if self._ram is not None:
            with suppress(CacheError, TruncatedError):  # it was evicted meanwhile; the reader has it still
                self._ram.admit(chunk, path)

    def _open_copy(self, chunk: Chunk) -> ChunkReader | None:
        """A reader of a chunk's copy in memory, None if there is none; a damaged one goes."""
        if self._ram is None or (path := self._ram.find(chunk)) is None:
            return None
        try:
            return self._store.open(path, chunk, self._manifest.schema)
        except CorruptDataError:
            self._ram.drop(chunk)
            return None

    def hold(self, windows: Iterable[Sequence[Chunk]]) -> None:
        """Pin what an epoch needs: the whole dataset where it fits, else what is at work (see `held`).

        Raises:
            CacheFullError: not even the largest window of chunks fits at once.
        """
        nbytes = sum(chunk.nbytes for chunk in self._manifest.chunks)
        try:
            room = disk_room(self._cache)
            lease = self._hold_lease()
            self._rolling = not room.pin_whole(lease.id, self._manifest.name, nbytes)
            if self._rolling:
                largest = max((sum(chunk.nbytes for chunk in window) for window in windows), default=0)
                room.check_possible(lease.id, self._manifest.name, largest)
                room.keep_to_quota()
            else:
                self._touch(self._numbers)
        except CacheFullError:
            raise
        except CacheError:  # what cannot be written cannot be evicted from here either
            self._rolling = False

    @contextmanager
    def held(self, chunks: Sequence[Chunk]) -> Iterator[None]:
        """The chunks on the disk, pinned, for the length of a ``with`` block."""
        files = [chunk.file for chunk in chunks]
        if self._ram is not None:
            self._ram.touch(chunks)
        if self._rolling:
            self._pin(files)
        try:
            if is_partial(self._folder):
                self._fetch(chunks)
            yield
        finally:
            if self._rolling:
                self._unpin(files)

    def mend(self, chunks: Sequence[Chunk]) -> bool:
        """Fetch those of the chunks again that are damaged; whether there were any.

        Raises:
            StorageringError: see `ChunkFetcher.ensure`.
        """
        bad = [self._numbers[chunk.file] for chunk in chunks if chunk_fault(self._folder, chunk)]
        if bad:
            self._open_fetcher().renew(bad)
        return self._drop_copies(chunks) or bool(bad)

    def _drop_copies(self, chunks: Sequence[Chunk]) -> bool:
        if self._ram is None:
            return False
        copies = [chunk for chunk in chunks if self._ram.find(chunk) is not None]
        for chunk in copies:
            self._ram.drop(chunk)
        return bool(copies)

    def _pin(self, files: Collection[str]) -> None:
        name = self._manifest.name
        with self._pinning:
            self._pins.update(files)
            with disk_ledger(self._cache).transaction() as database:
                pin_files(database, self._hold_lease().id, name, files)
                touch_chunks(database, name, files)

    def _unpin(self, files: Collection[str]) -> None:
        """Let go of files, but for those that somebody else of this process needs still."""
        with self._pinning:
            self._pins.subtract(files)
            free = [file for file in files if not self._pins[file]]
            with disk_ledger(self._cache).transaction() as database:
                unpin_files(database, self._hold_lease().id, self._manifest.name, free)

    def _touch(self, files: Collection[str]) -> None:
        with disk_ledger(self._cache).transaction() as database:
            touch_chunks(database, self._manifest.name, files)

    def _fetch(self, chunks: Sequence[Chunk]) -> None:
        there = resident_files(self._folder, self._manifest)
        wanted = [self._numbers[chunk.file] for chunk in chunks if chunk.file not in there]
        if wanted:
            self._open_fetcher().ensure(wanted)
            with self._lock:
                self.fetched += len(wanted)

    def _open_fetcher(self) -> ChunkFetcher:
        with self._lock:
            if self._fetcher is None:
                self._fetcher = ChunkFetcher(self._cache, self._manifest, self._lease)
                self._stack.callback(self._fetcher.close)
            return self._fetcher

    def _hold_lease(self) -> Lease:
        with self._lock:
            if self._lease is None:
                self._lease = Lease(self._cache.root, f"{self._purpose} {self._manifest.name}")
            return self._lease

    def close(self) -> None:
        """Let go of pins, sources and connections; what is open stays readable. In a forked child, nothing is done."""
        if self._owner != os.getpid():
            _OF_PARENTS.append((self._stack.pop_all(), self._fetcher))
            self._fetcher = self._lease = None
            return
        self._stack.close()
        self._fetcher = None
        lease, self._lease = self._lease, None
        if lease is not None:
            with suppress(StorageringError), disk_ledger(self._cache).transaction() as database:
                drop_lease(database, lease.id)
            lease.release()

    def __del__(self) -> None:
        if hasattr(self, "_lease"):
            self.close()

    def __enter__(self) -> ChunkAccess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
