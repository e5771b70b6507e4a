"""Where an epoch's chunks come from: unit by unit, as its plan counts them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Protocol

from storagering.cache.access import OnCorrupt
from storagering.cache.dataset import Dataset
from storagering.cache.store import ChunkReader
from storagering.types import Chunk, Manifest, Schema

#: A window holds a part of a chunk of each.
_MAX_STRATA = 16
#: Files that stay mapped from epoch to epoch.
_KEPT_READERS = 128


class ChunkSupply(Protocol):
    """The chunks of an epoch; safe to use from several threads.

    Attributes:
        schema: the columns in them.
        entries: of each unit: a plan permutes units, not knowing what chunks they are made of.
        strata: units of each class or source, which should come in proportion.
        where: where they are, for messages.
        fetched: chunks that were not there when they were needed, so far.
        tier: of the cache that most of them are read from.
    """

    schema: Schema
    entries: Sequence[int]
    strata: Sequence[Sequence[int]]
    where: str

    @property
    def fetched(self) -> int: ...

    @property
    def tier(self) -> str: ...

    @property
    def is_settled(self) -> bool:
        """Whether all chunks are there, and stay: they may be read before they are needed."""

    def is_ready(self, unit: int) -> bool:
        """Whether the chunks of a unit are there; if not, they are coming.

        Raises:
            StorageringError: they are not.
        """

    def chunks(self, unit: int) -> Sequence[Chunk]:
        """The chunks of a unit that is ready, in order."""

    def open(self, chunk: Chunk) -> ChunkReader:
        """A reader of one of them.

        Raises:
            CorruptDataError: the file is not what it should be.
        """

    def hold(self, windows: Iterable[Sequence[int]]) -> None:
        """An epoch is planned, which needs these units together.

        Raises:
            CacheFullError: the cache cannot hold the largest window.
        """

    def held(self, chunks: Sequence[Chunk]) -> AbstractContextManager[None]:
        """Keep these chunks within reach for the length of a ``with`` block."""

    def mend(self, chunks: Sequence[Chunk]) -> bool:
        """Replace those of the chunks that are damaged; False if none was, or they are not to be replaced."""

    def renewed(self) -> ChunkSupply:
        """The same for a forked process: nothing in it is shared with the one that it was forked from."""

    def close(self) -> None:
        """Let go of everything; it can be used again."""


class PublishedChunks:
    """The chunks of a dataset that is there: every chunk is a unit."""

    def __init__(self, dataset: Dataset, on_corrupt: OnCorrupt = "fail") -> None:
        self._dataset, self._chunks = dataset, dataset.manifest.chunks
        self._access = dataset.access("training on")
        self._on_corrupt = on_corrupt
        self._readers: dict[str, ChunkReader] = {}
        self.schema = dataset.schema
        self.entries: Sequence[int] = [chunk.num_entries for chunk in self._chunks]
        self.strata: Sequence[Sequence[int]] = strata_of(dataset.manifest)
        self.where = str(dataset.path)

    @property
    def fetched(self) -> int:
        """See `ChunkSupply.fetched`."""
        return self._access.fetched

    @property
    def tier(self) -> str:
        """See `ChunkSupply.tier`."""
        return self._access.tier

    @property
    def is_settled(self) -> bool:
        """See `ChunkSupply.is_settled`."""
        return self._access.holds_all

    def is_ready(self, unit: int) -> bool:
        """See `ChunkSupply.is_ready`."""
        return unit < len(self.entries)

    def chunks(self, unit: int) -> Sequence[Chunk]:
        """See `ChunkSupply.chunks`."""
        return (self._chunks[unit],)

    def open(self, chunk: Chunk) -> ChunkReader:
        """See `ChunkSupply.open`: readers are kept, as mapping a file anew costs more than what is read from it."""
        reader = self._readers.get(chunk.file)
        if reader is None:
            reader = self._access.open(chunk)
            if self.is_settled and len(self._readers) < _KEPT_READERS:
                self._readers[chunk.file] = reader
        return reader

    def hold(self, windows: Iterable[Sequence[int]]) -> None:
        """See `ChunkSupply.hold`: all chunks are pinned if they fit, else one window after the other."""
        self._access.hold([chunk for unit in window for chunk in self.chunks(unit)] for window in windows)

    def held(self, chunks: Sequence[Chunk]) -> AbstractContextManager[None]:
        """See `ChunkSupply.held`."""
        return self._access.held(chunks)

    def mend(self, chunks: Sequence[Chunk]) -> bool:
        """See `ChunkSupply.mend`."""
        self._readers.clear()
        return self._on_corrupt == "rebuild" and self._access.mend(chunks)

    def renewed(self) -> PublishedChunks:
        """See `ChunkSupply.renewed`."""
        return PublishedChunks(self._dataset, self._on_corrupt)

    def close(self) -> None:
        """See `ChunkSupply.close`."""
        self._readers.clear()
        self._access.close()


def strata_of(manifest: Manifest) -> list[list[int]]:
    """The chunks of each class, or of each source file where classes were not named, at most `_MAX_STRATA` of them.

    A chunk of several counts where it begins. A mixed dataset is one stratum: each of its chunks is like the others.
    """
    if manifest.spec.mix is not None:
        return [list(range(len(manifest.chunks)))]
    labels = [source.label for source in manifest.sources]
    kinds: list[object] = list(labels) if any(labels) else list(range(len(labels)))
    found: dict[object, list[int]] = {}
    for number, chunk in enumerate(manifest.chunks):
        found.setdefault(kinds[chunk.spans[0].source] if chunk.spans else None, []).append(number)
    parts = list(found.values())
    if len(parts) <= _MAX_STRATA:
        return parts
    joined = [unit for part in parts for unit in part]  # neighbours together: they are more alike than others
    cuts = [len(joined) * n // _MAX_STRATA for n in range(_MAX_STRATA + 1)]
    return [joined[a:b] for a, b in pairwise(cuts)]
