"""Cutting selected entries into chunks and writing these into the staging folder."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from storagering.cache.statistics import Statistics, describe_batch
from storagering.cache.store import chunk_store
from storagering.files import write_new
from storagering.formats.forms import to_batch
from storagering.types import Chunk, ConversionSpec, Schema, Span, sha256_hex

#: A chunk is closed when it holds this share of its target, so that none is much larger than it.
_FULL = 0.75


@dataclass(frozen=True)
class BuiltChunk:
    """A chunk in the staging folder, numbered from entry 0, and its statistics."""

    chunk: Chunk
    statistics: Statistics


class ChunkWriter:
    """Gathers selected pieces and cuts them into chunks of about the size asked for."""

    def __init__(self, spec: ConversionSpec, schema: Schema, staging: Path, prefix: str) -> None:
        self._spec, self._schema, self._staging, self._prefix = spec, schema, staging, prefix
        self._store = chunk_store(spec.format)
        self._waiting: list[tuple[dict[str, Any], int]] = []
        self._bytes = 0
        self._spans: list[Span] = []
        self.built: list[BuiltChunk] = []

    def add(self, columns: dict[str, Any], entries: int, span: Span) -> None:
        target = self._spec.chunk_bytes
        size = sum(int(a.nbytes) for a in columns.values())
        if size <= target * (2 - _FULL):
            self._gather(columns, entries, size, span)
            return
        self.flush()
        cuts = np.linspace(0, entries, max(2, round(size / target)) + 1).astype(int)
        for start, stop in pairwise(cuts):
            if stop > start:
                part = {n: a[start:stop] for n, a in columns.items()}
                whole = entries == span.stop - span.start  # without a selection it is known which entries these are
                own = Span(span.source, span.start + int(start), span.start + int(stop)) if whole else span
                self._gather(part, int(stop - start), target, own)
                self.flush()

    def _gather(self, columns: dict[str, Any], entries: int, size: int, span: Span) -> None:
        self._waiting.append((columns, entries))
        self._spans.append(span)
        self._bytes += size
        if self._bytes >= self._spec.chunk_bytes * _FULL:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered as one chunk; pieces without survivors leave none."""
        waiting, spans = [w for w in self._waiting if w[1]], tuple(self._spans)
        self._waiting, self._spans, self._bytes = [], [], 0
        if not waiting:
            return
        entries = sum(n for _, n in waiting)
        names = self._schema.names
        joined = waiting[0][0] if len(waiting) == 1 else {n: ak.concatenate([w[0][n] for w in waiting]) for n in names}
        batch = to_batch(self._schema, joined, entries)
        encoded = self._store.encode(batch, self._spec.profile)
        file = f"{self._prefix}-{len(self.built):04d}{self._store.suffix}"
        write_new(self._staging / file, encoded.data)
        raw = sum(a.nbytes for arrays in batch.arrays.values() for a in arrays)
        chunk = Chunk(
            0,
            entries,
            file,
            len(encoded.data),
            raw,
            sha256_hex(encoded.data),
            encoded.trusted_from,
            encoded.checksum,
            spans,
        )
        self.built.append(BuiltChunk(chunk, describe_batch(batch)))
