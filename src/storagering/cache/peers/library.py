"""What a node gives to others: chunks, manifests and statistics of the datasets in its cache, by their digests."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from storagering.cache.layout import Cache
from storagering.cache.ledger import touch_chunks
from storagering.cache.manifest import MANIFEST_NAME
from storagering.cache.space import disk_ledger
from storagering.errors import StorageringError
from storagering.files import read_file, safe_join
from storagering.types import Chunk, Manifest, sha256_hex

_STATISTICS_LIMIT_BYTES = 1 << 30


class Library(Protocol):
    """What is given away; every method answers None for what is not there, and may be called from any thread."""

    def chunk(self, digest: str) -> Path | None:
        """The chunk file with that BLAKE3."""

    def manifest(self, name: str) -> bytes | None:
        """The manifest of the dataset of that name, as it is stored."""

    def manifest_of_spec(self, key: str) -> bytes | None:
        """The manifest of a dataset that was made to the specification with that key."""

    def statistics(self, digest: str) -> bytes | None:
        """The table of statistics with that sha256."""


class Place(NamedTuple):
    """A chunk of a dataset, which lies in its folder, or would.

    Attributes:
        name: of the dataset here.
        number: of the chunk in it.
    """

    name: str
    manifest: Manifest
    number: int

    @property
    def chunk(self) -> Chunk:
        """What the manifest says of it."""
        return self.manifest.chunks[self.number]


@dataclass(frozen=True)
class _Known:
    """One published dataset, as it was when its manifest was read."""

    stamp: tuple[int, int, int]
    manifest: Manifest | None = None
    numbers: Mapping[str, int] = field(default_factory=dict)


class CacheLibrary:
    """The datasets of a cache. Names in requests are looked up, they never become paths.

    Manifests are read once, and again when they have changed; what no valid manifest names is not given away.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._chunks: dict[str, list[str]] = {}

    def chunk(self, digest: str) -> Path | None:
        """See `Library.chunk`."""
        for place in self.places(digest):
            path = safe_join(self._folder(place.name), place.chunk.file)
            with suppress(OSError):
                if path.lstat().st_size == place.chunk.nbytes:
                    self._note_use(place)
                    return path
        return None

    def _note_use(self, place: Place) -> None:
        """What others ask for is in use, too, when it is told what may be evicted."""
        if self._cache.settings.quota:
            with suppress(StorageringError), disk_ledger(self._cache).transaction() as database:
                touch_chunks(database, place.name, [place.chunk.file])

    def places(self, digest: str) -> Sequence[Place]:
        """Where the chunk with that digest belongs, resident or not; nowhere if no dataset has it."""
        found = self._places(digest)
        if not found:
            self._renew()
            found = self._places(digest)
        return found

    def manifest(self, name: str) -> bytes | None:
        """See `Library.manifest`."""
        self._renew()
        with self._lock:
            known = self._known.get(name)
        return self._read_manifest(name, known) if known else None

    def manifest_of_spec(self, key: str) -> bytes | None:
        """See `Library.manifest_of_spec`."""
        self._renew()
        with self._lock:
            found = [
                (n, known) for n, known in self._known.items() if known.manifest and known.manifest.spec_key == key
            ]
        return next((data for name, known in found if (data := self._read_manifest(name, known))), None)

    def statistics(self, digest: str) -> bytes | None:
        """See `Library.statistics`."""
        self._renew()
        with self._lock:
            tables = [(name, known.manifest.chunk_statistics) for name, known in self._known.items() if known.manifest]
        for name, (file, expected) in tables:
            if expected != digest:
                continue
            with suppress(StorageringError):
                data = read_file(safe_join(self._folder(name), file), _STATISTICS_LIMIT_BYTES)
                if sha256_hex(data) == digest:
                    return data
        return None

    def _places(self, digest: str) -> list[Place]:
        with self._lock:
            found = [(name, self._known[name]) for name in self._chunks.get(digest, ())]
        return [
            Place(name, known.manifest, known.numbers[digest])
            for name, known in found
            if known.manifest and self._stamp(name) == known.stamp
        ]

    def _read_manifest(self, name: str, known: _Known) -> bytes | None:
        with suppress(StorageringError):
            data = read_file(self._folder(name) / MANIFEST_NAME, self._cache.settings.max_manifest_bytes)
            if self._stamp(name) == known.stamp and known.manifest:
                return data
        return None

    def _renew(self) -> None:
        """Read the manifests that are new or have changed, and forget those that are gone."""
        with self._lock:
            stamps = {name: stamp for name in self._cache.names() if (stamp := self._stamp(name))}
            changed = [name for name, stamp in stamps.items() if self._stamp_known(name) != stamp]
            gone = self._known.keys() - stamps.keys()
            for name in (*changed, *gone):
                self._known.pop(name, None)
            for name in changed:
                self._known[name] = self._load(name, stamps[name])
            if changed or gone:
                self._chunks = {}
                for name, known in self._known.items():
                    for digest in known.numbers:
                        self._chunks.setdefault(digest, []).append(name)

    def _load(self, name: str, stamp: tuple[int, int, int]) -> _Known:
        """A damaged manifest vouches for nothing."""
        try:
            manifest = self._cache.manifest(name)
        except StorageringError:
            return _Known(stamp)
        return _Known(stamp, manifest, {chunk.digest: number for number, chunk in enumerate(manifest.chunks)})

    def _stamp_known(self, name: str) -> tuple[int, int, int] | None:
        return self._known[name].stamp if name in self._known else None

    def _stamp(self, name: str) -> tuple[int, int, int] | None:
        """Changes whenever another manifest is published under the name; None if there is none, or a link."""
        folder = self._folder(name)
        try:
            if folder.is_symlink():
                return None
            found = (folder / MANIFEST_NAME).lstat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _folder(self, name: str) -> Path:
        return self._cache.path(name)
