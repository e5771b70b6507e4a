"""Where an epoch's chunks come from: unit by unit, as its plan counts them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from storagering.cache.access import OnCorrupt
from storagering.cache.dataset import Dataset
from storagering.cache.store import ChunkReader
from storagering.types import Chunk, Schema


class ChunkSupply(Protocol):
    """The chunks of an epoch; safe to use from several threads.

    Attributes:
        schema: the columns in them.
        entries: of each unit: a plan permutes units, not knowing what chunks they are made of.
    """

    schema: Schema
    entries: Sequence[int]

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

    def hold(self, windows: Sequence[Sequence[int]]) -> None:
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
        self.schema = dataset.schema
        self.entries: Sequence[int] = [chunk.num_entries for chunk in self._chunks]

    def is_ready(self, unit: int) -> bool:
        """See `ChunkSupply.is_ready`."""
        return unit < len(self.entries)

    def chunks(self, unit: int) -> Sequence[Chunk]:
        """See `ChunkSupply.chunks`."""
        return (self._chunks[unit],)

    def open(self, chunk: Chunk) -> ChunkReader:
        """See `ChunkSupply.open`."""
        return self._access.open(chunk)

    def hold(self, windows: Sequence[Sequence[int]]) -> None:
        """See `ChunkSupply.hold`: all chunks are pinned if they fit, else one window after the other."""
        self._access.hold([[chunk for unit in window for chunk in self.chunks(unit)] for window in windows])

    def held(self, chunks: Sequence[Chunk]) -> AbstractContextManager[None]:
        """See `ChunkSupply.held`."""
        return self._access.held(chunks)

    def mend(self, chunks: Sequence[Chunk]) -> bool:
        """See `ChunkSupply.mend`."""
        return self._on_corrupt == "rebuild" and self._access.mend(chunks)

    def renewed(self) -> PublishedChunks:
        """See `ChunkSupply.renewed`."""
        return PublishedChunks(self._dataset, self._on_corrupt)

    def close(self) -> None:
        """See `ChunkSupply.close`."""
        self._access.close()
