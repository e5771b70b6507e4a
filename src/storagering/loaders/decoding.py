"""Chunks decoded in threads, ahead of their use, once for all windows that need a part of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from storagering.cache.store import ChunkReader
from storagering.errors import CorruptDataError, SchemaError
from storagering.loaders.buffers import BufferPool
from storagering.loaders.feed import Group
from storagering.loaders.supply import ChunkSupply
from storagering.loaders.threads import ThreadCrew
from storagering.types import Array, Chunk

Columns = tuple[Array, ...]
"""A group's columns of one chunk, each an array by itself; of a sparse one, offsets, places and values."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A chunk's columns, group by group, and the offsets of those of lists (int64, one more than entries)."""

    columns: tuple[Columns, ...]
    offsets: tuple[Array | None, ...]


class ChunkDecoder:
    """The chunks of an epoch, decoded: each once for all who claim it at the same time. Safe to share by threads."""

    def __init__(self, supply: ChunkSupply, groups: Sequence[Group], crew: ThreadCrew, pool: BufferPool) -> None:
        self._supply, self._groups, self._crew, self._pool = supply, groups, crew, pool
        self._claims: Counter[str] = Counter()
        self._coming: dict[str, Future[Decoded]] = {}
        self._lock = threading.Lock()

    def claim(self, chunks: Sequence[Chunk]) -> None:
        """Have what is decoded of these chunks kept until they are released as often."""
        with self._lock:
            self._claims.update(chunk.file for chunk in chunks)

    def release(self, chunks: Sequence[Chunk]) -> None:
        """Let go of what nobody claims any more."""
        with self._lock:
            self._claims.subtract(chunk.file for chunk in chunks)
            for chunk in chunks:
                if self._claims[chunk.file] <= 0:
                    del self._claims[chunk.file]
                    self._coming.pop(chunk.file, None)

    def begin(self, chunk: Chunk) -> None:
        """Have a chunk decoded that is claimed."""
        with self._lock:
            if chunk.file not in self._coming:
                self._coming[chunk.file] = self._crew.submit(self._decode, chunk)

    def get(self, chunk: Chunk) -> Decoded:
        """A chunk, decoded.

        Raises:
            CorruptDataError: it is damaged (see `ChunkReader`).
            SchemaError: the jagged columns of a group have different lengths.
        """
        self.begin(chunk)
        with self._lock:
            future = self._coming[chunk.file]
        return future.result()

    def read_offsets(self, chunks: Sequence[Chunk]) -> list[tuple[Array | None, ...]]:
        """The offsets of each chunk's groups of lists; raises as `get`."""
        if not any(group.jagged for group in self._groups):
            return [(None,) * len(self._groups)] * len(chunks)
        return self._crew.map(lambda chunk: self._offsets(self._supply.open(chunk), chunk), chunks)

    def _offsets(self, reader: ChunkReader, chunk: Chunk) -> tuple[Array | None, ...]:
        return tuple(_read_offsets(reader, group, chunk) for group in self._groups)

    def _decode(self, chunk: Chunk) -> Decoded:
        reader = self._supply.open(chunk)
        offsets = self._offsets(reader, chunk)
        columns = tuple(
            self._read(reader, group, chunk.num_entries if own is None else int(own[-1]))
            for group, own in zip(self._groups, offsets, strict=True)
        )
        return Decoded(columns, offsets)

    def _read(self, reader: ChunkReader, group: Group, items: int) -> Columns:
        """A group's columns: where they lie in the file, if they lie there as they are wanted, else decoded."""
        if group.sparse:
            items = int(reader.read_offsets(group.columns[0].name)[-1])
            values = self._pool.array((items,), group.values_dtype)
            places = self._pool.array((items,), group.places_dtype)
            return reader.read_column(group.columns[0].name, values, places)
        found = [reader.view_column(column.name) for column in group.columns]
        absent = sum(values is None for values in found)
        room = iter(self._pool.array((absent, items, *group.columns[0].parts[-1].shape), group.dtype))
        columns = []
        for column, seen in zip(group.columns, found, strict=True):
            same = np.dtype(column.parts[-1].dtype) == group.dtype
            if seen is None:
                out = next(room)
                seen = reader.read_column(column.name, out if same else None)[-1]
            _check(seen, column.name, items)
            columns.append(seen if same else seen.astype(group.dtype))
        return tuple(columns)


def _read_offsets(reader: ChunkReader, group: Group, chunk: Chunk) -> Array | None:
    """The offsets of a group of lists, which all its columns must share."""
    if not group.jagged:
        return None
    first, *others = (reader.read_offsets(column.name) for column in group.columns)
    for column, other in zip(group.columns[1:], others, strict=True):
        if other is not first and not np.array_equal(other, first):
            raise SchemaError(
                f"group {group.key!r}: {column.name!r} and {group.columns[0].name!r} have different lengths "
                f"in {chunk.file}; put them in groups of their own"
            )
    return first


def _check(values: Array, name: str, items: int) -> None:
    if len(values) != items:
        raise CorruptDataError(f"column {name!r} has {len(values)} values where its offsets say {items}")
    if values.dtype == np.uint64 and values.size and int(values.max()) > np.iinfo(np.int64).max:
        raise SchemaError(f"column {name!r} has values above 2^63, which no tensor of integers holds")
