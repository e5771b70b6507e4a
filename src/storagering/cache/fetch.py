"""Chunks that are not on the disk: from peers, or from the sources; whoever asks for the same one waits for it.

Every chunk is compared with the manifest's digest before it gets its name in the dataset's folder.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from storagering.cache.layout import FETCH_KEY, Cache
from storagering.cache.leases import Lease
from storagering.cache.ledger import drop_lease
from storagering.cache.manifest import MANIFEST_NAME
from storagering.cache.peers.client import known_peers
from storagering.cache.rebuild import Rebuilder, runs_of
from storagering.cache.residency import missing_chunks
from storagering.cache.room import Room
from storagering.cache.root import make_folder
from storagering.cache.space import disk_ledger, disk_room, residents_of
from storagering.cache.verify import chunk_fault
from storagering.errors import CacheError, NotFoundError
from storagering.files import (
    FileLock,
    link_file,
    remove_file,
    rename_file,
    safe_join,
    sync_directory,
)
from storagering.types import Chunk, Manifest

FromPeers = Callable[[Chunk, Path], bool]
"""Puts a chunk's file at a path, verified; False if no peer has it."""
#: What a forked child must neither use nor close.
_OF_PARENTS: list[ExitStack] = []
_NOT_LOOKED_AT = (0, 0)
_Lacking = Callable[[Collection[int]], list[int]]


def no_peers(_chunk: Chunk, _target: Path) -> bool:
    """For a node without peers."""
    return False


def _from_known_peers(cache: Cache) -> FromPeers:
    peers = known_peers(cache.settings)
    return peers.bring() if peers else no_peers


class ChunkFetcher:
    """Brings chunks of one dataset to the disk; safe to use from several threads.

    Args:
        lease: of whoever needs the chunks; one of its own without it.
        from_peers: asked before the sources; those of the settings without it.
        replicas: where else the sources are, as for a conversion.
    """

    def __init__(
        self,
        cache: Cache,
        manifest: Manifest,
        lease: Lease | None = None,
        from_peers: FromPeers | None = None,
        replicas: Sequence[str] = (),
    ) -> None:
        self._cache, self._manifest, self._replicas = cache, manifest, replicas
        self._from_peers = _from_known_peers(cache) if from_peers is None else from_peers
        self._folder, self._owner = cache.path(manifest.name), os.getpid()
        self._state, self._digests = _NOT_LOOKED_AT, dict[str, str]()
        self._lease, self._own_lease = lease, lease is None
        self._stack = ExitStack()
        self._one_at_a_time = threading.Lock()
        self._staging: Path | None = None
        self._rebuilder: Rebuilder | None = None
        self._room: Room | None = None

    def ensure(self, numbers: Collection[int]) -> None:
        """Bring the chunks of these numbers to the disk, unless they are there.

        Raises:
            CacheFullError: there is no room for one of them.
            SourceError, NotFoundError: neither a peer nor a source can be reached.
            SourceChangedError: a source is not what the dataset was made from.
        """
        self._bring_all(numbers, lambda some: missing_chunks(self._folder, self._manifest, some))

    def renew(self, numbers: Collection[int]) -> None:
        """The same for chunks that are there but damaged; the damaged files go into quarantine."""
        chunks, folder = self._manifest.chunks, self._folder
        self._bring_all(numbers, lambda some: [n for n in sorted(some) if chunk_fault(folder, chunks[n])])

    def _bring_all(self, numbers: Collection[int], lacking: _Lacking) -> None:
        with self._one_at_a_time:
            lacked = lacking(numbers)
            for run in runs_of(self._manifest.chunks, lacked):
                self._bring(run, [number for number in run if number in lacked], lacking)

    def _bring(self, run: range, wanted: Sequence[int], lacking: _Lacking) -> None:
        cache, chunks = self._cache, self._manifest.chunks
        lock = FileLock(safe_join(cache.root, "locks", f"{chunks[run[0]].digest[:32]}.fetch"))
        lock.acquire(cache.settings.lock_timeout_seconds)
        try:
            wanted = lacking(wanted)  # whom we waited for may have brought it
            for number in wanted:
                self._check_current(chunks[number])
                self._claim(chunks[number])
            rest = [number for number in wanted if not self._bring_from_peers(chunks[number])]
            if rest:
                self._bring_from_sources(run, rest)
            remove_file(lock.path)
        finally:
            self._let_go([chunks[number] for number in wanted])
            lock.release()

    def _bring_from_peers(self, chunk: Chunk) -> bool:
        if self._from_peers is no_peers:
            return False
        target = self._open_staging() / f"{secrets.token_hex(4)}-{chunk.file}"
        if not self._from_peers(chunk, target):
            remove_file(target)
            return False
        self._place(chunk, target)
        return True

    def _bring_from_sources(self, run: range, wanted: Sequence[int]) -> None:
        if self._rebuilder is None:
            rebuilder = Rebuilder(self._manifest, self._open_staging(), self._cache.settings, self._replicas)
            self._rebuilder = self._stack.enter_context(rebuilder)
        for number, path in self._rebuilder.make(run, wanted):
            self._place(self._manifest.chunks[number], path)

    def _claim(self, chunk: Chunk) -> None:
        room = self._room = self._room or disk_room(self._cache)
        room.claim(self._holder().id, chunk.digest, chunk.nbytes)

    def _place(self, chunk: Chunk, path: Path) -> None:
        assert self._room is not None  # noqa: S101  (it was claimed)
        target = safe_join(self._folder, chunk.file)
        self._check_current(chunk)
        if target.exists():
            aside = self._cache.root / "quarantine"
            make_folder(aside, shared=self._cache.settings.shared)
            link_file(target, safe_join(aside, f"{self._manifest.name}-{secrets.token_hex(4)}-{chunk.file}"))
        rename_file(path, target)
        sync_directory(self._folder)
        self._room.settle(self._holder().id, chunk.digest, residents_of(self._manifest, {chunk.file}))

    def _check_current(self, chunk: Chunk) -> None:
        """Raise NotFoundError if the dataset of that name is another one by now: its chunks are not ours to replace."""
        try:
            found = (self._folder / MANIFEST_NAME).stat()
        except OSError as error:
            raise NotFoundError(f"dataset {self._manifest.name!r} was removed meanwhile") from error
        if (state := (found.st_ino, found.st_mtime_ns)) != self._state:
            manifest = self._cache.manifest(self._manifest.name)  # an append keeps all chunks
            self._state, self._digests = state, {one.file: one.digest for one in manifest.chunks}
        if self._digests.get(chunk.file) != chunk.digest:
            raise NotFoundError(f"dataset {self._manifest.name!r} was made anew meanwhile: open it again")

    def _let_go(self, chunks: Sequence[Chunk]) -> None:
        """Drop the claims for what was not brought."""
        if self._room is not None and self._lease is not None:
            with suppress(CacheError), disk_ledger(self._cache).transaction() as database:
                keys = [(self._lease.id, chunk.digest) for chunk in chunks]
                database.executemany("DELETE FROM claims WHERE lease = ? AND key = ?", keys)

    def _holder(self) -> Lease:
        self._lease = self._lease or Lease(self._cache.root, f"fetching chunks of {self._manifest.name}")
        return self._lease

    def _open_staging(self) -> Path:
        if self._staging is None:
            key = f"{FETCH_KEY}-{secrets.token_hex(6)}"
            self._staging = self._stack.enter_context(self._cache.staging(self._manifest.name, key, keep_others=True))
        return self._staging

    def close(self) -> None:
        """Close sources and connections, and let go of what was claimed; in a forked child, nothing."""
        if self._owner != os.getpid():
            _OF_PARENTS.append(self._stack.pop_all())
            return
        with self._one_at_a_time:
            self._rebuilder = self._staging = None
            self._stack.close()
            if self._own_lease and self._lease is not None:
                lease, self._lease = self._lease, None
                with suppress(CacheError), disk_ledger(self._cache).transaction() as database:
                    drop_lease(database, lease.id)
                lease.release()
