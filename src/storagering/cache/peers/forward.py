"""Getting chunks for this node or another one: from further nodes, or from the sources."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storagering.cache.fetch import ChunkFetcher, FromPeers
from storagering.cache.layout import Cache
from storagering.cache.peers.address import MAX_HOPS
from storagering.cache.peers.client import Peers
from storagering.cache.peers.library import CacheLibrary
from storagering.files import safe_join
from storagering.types import Manifest

_KEPT_OPEN = 8


class FetcherPool:
    """Fetchers of chunks: each brings one chunk at a time, and keeps sources and connections open for the next."""

    def __init__(self, cache: Cache, from_peers: FromPeers) -> None:
        self._cache, self._from_peers = cache, from_peers
        self._lock = threading.Lock()
        self._idle: list[tuple[str, ChunkFetcher]] = []

    @contextmanager
    def fetcher(self, manifest: Manifest) -> Iterator[ChunkFetcher]:
        """One that nobody else uses now."""
        with self._lock:
            at = next((at for at, (digest, _) in enumerate(self._idle) if digest == manifest.digest), None)
            found = None if at is None else self._idle.pop(at)[1]
        fetcher = found or ChunkFetcher(self._cache, manifest, from_peers=self._from_peers)
        try:
            yield fetcher
        except BaseException:
            fetcher.close()
            raise
        with self._lock:
            self._idle.append((manifest.digest, fetcher))
            over = self._idle.pop(0)[1] if len(self._idle) > _KEPT_OPEN else None
        if over is not None:
            over.close()

    def close(self) -> None:
        """Close sources and connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, fetcher in idle:
            fetcher.close()


class ChunkForwarder:
    """Brings chunks of the datasets of this node to it, for those who ask it; see `merging.Resolve`."""

    def __init__(self, cache: Cache, peers: Peers) -> None:
        self._cache, self._library = cache, CacheLibrary(cache)
        self._pool = FetcherPool(cache, peers.bring(hops=MAX_HOPS))

    def __call__(self, digest: str) -> Path | None:
        """The file of the chunk, None if no dataset here has it."""
        for place in self._library.places(digest):
            if place.name == place.manifest.name:
                with self._pool.fetcher(place.manifest) as fetcher:
                    fetcher.ensure([place.number])
                return safe_join(self._cache.path(place.name), place.chunk.file)
        return None

    def close(self) -> None:
        """Close sources and connections."""
        self._pool.close()
