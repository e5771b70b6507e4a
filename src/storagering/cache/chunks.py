"""Cutting selected entries into chunks and writing these into the staging folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from storagering.cache.sketches import Sketches, SketchSum, encode_sketches
from storagering.cache.statistics import Statistics, describe_fully
from storagering.cache.store import chunk_store, digest_of
from storagering.files import write_new
from storagering.formats.batches import cut_batch, join_batches, raw_size_of, size_of
from storagering.formats.precision import round_batch
from storagering.types import Batch, Chunk, ConversionSpec, Schema, Span

#: A chunk is closed when one more piece like the last one would take it beyond this share of its target.
_FULL = 1.25
#: Whoever reads a chunk may need its sparse columns dense: they may then be so much larger than the target.
_DENSE = 4


@dataclass(frozen=True)
class BuiltChunk:
    """A chunk in the staging folder, numbered from entry 0, and its statistics.

    Attributes:
        sketches: those of all chunks of its task, encoded, if it is the first one; b"" once they are added up.
    """

    chunk: Chunk
    statistics: Statistics
    sketches: bytes = b""


class ChunkWriter:
    """Gathers selected pieces and cuts them into chunks of about the size asked for."""

    def __init__(self, spec: ConversionSpec, schema: Schema, staging: Path, prefix: str) -> None:
        self._spec, self._schema, self._staging, self._prefix = spec, schema, staging, prefix
        self._waiting: list[Batch] = []
        self._bytes = 0
        self._spans: list[Span] = []
        self._sketches = SketchSum()
        self.built: list[BuiltChunk] = []

    def finish(self) -> tuple[BuiltChunk, ...]:
        """Write what is left; all chunks."""
        self.flush()
        return with_sketches(self.built, self._sketches)

    def add(self, batch: Batch, span: Span) -> None:
        """Take the selected entries of a piece."""
        target, entries = self._spec.chunk_bytes, batch.num_entries
        size = chunk_size_of(batch)
        if size <= target * _FULL:
            self._gather(batch, size, span)
            return
        self.flush()
        cuts = np.linspace(0, entries, max(2, round(size / target)) + 1).astype(int).tolist()
        for start, stop in pairwise(cuts):
            if stop > start:
                whole = entries == span.stop - span.start  # without a selection it is known which entries these are
                own = Span(span.source, span.start + start, span.start + stop) if whole else span
                self._gather(cut_batch(batch, start, stop), target, own)
                self.flush()

    def _gather(self, batch: Batch, size: int, span: Span) -> None:
        limit = self._spec.chunk_bytes * _FULL
        if self._bytes + size > limit:
            self.flush()
        if batch.num_entries:
            self._waiting.append(batch)
        self._spans.append(span)
        self._bytes += size
        if self._bytes + size > limit:  # as the next one would only find; it need not be in memory, too
            self.flush()

    def flush(self) -> None:
        """Write what has gathered as one chunk; pieces without survivors leave none."""
        waiting, spans = self._waiting, tuple(self._spans)
        self._waiting, self._spans, self._bytes = [], [], 0
        if waiting:
            stem = f"{self._prefix}-{len(self.built):04d}"
            chunk, sketches = write_chunk(join_batches(self._schema, waiting), spans, self._spec, self._staging, stem)
            self.built.append(chunk)
            self._sketches.add(sketches)


def with_sketches(built: Sequence[BuiltChunk], sketches: SketchSum) -> tuple[BuiltChunk, ...]:
    """The chunks of a task, the first of which brings the sketches of all."""
    if not built:
        return ()
    return replace(built[0], sketches=encode_sketches(sketches.total())), *built[1:]


def write_chunk(
    batch: Batch, spans: tuple[Span, ...], spec: ConversionSpec, staging: Path, stem: str
) -> tuple[BuiltChunk, Sketches]:
    """Write one chunk; ``stem`` is its file's name without the suffix."""
    store = chunk_store(spec.format, spec.layout)
    batch = round_batch(batch)
    encoded = store.encode(batch, spec.profile)
    file = f"{stem}{store.suffix}"
    write_new(staging / file, *encoded.pieces)
    chunk = Chunk(
        start=0,
        stop=batch.num_entries,
        file=file,
        nbytes=encoded.nbytes,
        raw_bytes=raw_size_of(batch),
        digest=digest_of(*encoded.pieces),
        trusted_from=encoded.trusted_from,
        checksum=encoded.checksum,
        spans=spans,
    )
    statistics, sketches = describe_fully(batch)
    return BuiltChunk(chunk, statistics), sketches


def chunk_size_of(batch: Batch) -> int:
    """What is compared with the target: bytes in memory, and a share of those that sparse columns stand for."""
    return max(size_of(batch), raw_size_of(batch) // _DENSE)
