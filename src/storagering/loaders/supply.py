"""Where an epoch's chunks come from: unit by unit, as its plan counts them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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

    def chunks(self, unit: int) -> Sequence[Chunk]:
        """The chunks of a unit, in order; waits until they are there."""

    def open(self, chunk: Chunk) -> ChunkReader:
        """A reader of one of them.

        Raises:
            CorruptDataError: the file is not what it should be.
        """


class PublishedChunks:
    """The chunks of a dataset that is there: every chunk is a unit."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.schema = dataset.schema
        self.entries: Sequence[int] = [chunk.num_entries for chunk in dataset.manifest.chunks]

    def chunks(self, unit: int) -> Sequence[Chunk]:
        """See `ChunkSupply.chunks`."""
        return (self._dataset.manifest.chunks[unit],)

    def open(self, chunk: Chunk) -> ChunkReader:
        """See `ChunkSupply.open`."""
        return self._dataset.open_chunk(chunk)
