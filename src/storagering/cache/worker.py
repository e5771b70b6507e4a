"""What one worker of a conversion does: read pieces, select, define, write chunks.

Run as ``python -m storagering.cache.worker`` it takes tasks as JSON lines on stdin and answers on stdout.
It ends when stdin does, so it never outlives the process that started it.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import awkward as ak
import msgspec
import numpy as np

from storagering import errors
from storagering.cache.selection import Selection
from storagering.cache.statistics import Statistics, describe_batch
from storagering.cache.store import chunk_store
from storagering.config import Settings
from storagering.errors import InternalError, SourceChangedError, StorageringError
from storagering.files import redact_text, write_new
from storagering.formats.forms import to_batch
from storagering.formats.root import Source, UnreadableColumnsError, open_source
from storagering.types import Chunk, ConversionSpec, Schema, SourceFile, Span, sha256_hex

#: A chunk is closed when it holds this share of its target, so that none is much larger than it.
_FULL = 0.75


@dataclass(frozen=True)
class BuildContext:
    """What all tasks of one build share; ``urls`` keep their secrets and never reach a file."""

    spec: ConversionSpec
    schema: Schema
    sources: tuple[SourceFile, ...]
    urls: tuple[str, ...]
    read_names: tuple[str, ...]
    staging: str
    settings: Settings


@dataclass(frozen=True)
class Task:
    """A run of pieces that become chunks of their own; each piece is read at once."""

    number: int
    pieces: tuple[Span, ...]


@dataclass(frozen=True)
class BuiltChunk:
    """A chunk in the staging folder, numbered from entry 0, and its statistics."""

    chunk: Chunk
    statistics: Statistics


@dataclass(frozen=True)
class _Failure:
    error: str
    message: str
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Reply:
    chunks: tuple[BuiltChunk, ...] = ()
    failure: _Failure | None = None


Report = Callable[[int, int], None]
"""Called with the entries and decoded bytes read since the last call."""


def run_task(
    context: BuildContext, task: Task, report: Report, known: Mapping[str, Any] | None = None
) -> tuple[BuiltChunk, ...]:
    """Read the task's pieces and write their chunks into the staging folder.

    Args:
        known: the arrays of the only piece, if they were read already.

    Raises:
        UnreadableColumnsError: columns that cannot be read in one of the pieces.
        SourceChangedError: a file is not what it was when the build was planned.
        StorageringError: whatever reading or writing raises.
    """
    writer = _ChunkWriter(context, task.number)
    selection = Selection(context.spec, list(context.read_names))
    for span, source in _opened(context, task.pieces):
        arrays = dict(known or source.read(context.read_names, span.start, span.stop))
        size = sum(int(a.nbytes) for a in arrays.values())
        columns, entries = selection.apply(arrays, span.stop - span.start, _label_of(context, span))
        writer.add({name: columns[name] for name in context.schema.names}, entries, span)
        report(span.stop - span.start, size)
    writer.flush()
    return tuple(writer.built)


def _opened(context: BuildContext, pieces: tuple[Span, ...]) -> Iterator[tuple[Span, Source]]:
    """Every piece with its open source; one file is open at a time."""
    source, number = None, -1
    try:
        for span in pieces:
            if span.source != number:
                if source is not None:
                    source.close()
                number = span.source
                source = open_source(context.urls[number], context.sources[number].tree, context.settings)
                _check_unchanged(source, context.sources[number])
            assert source is not None  # noqa: S101  (for the type checker)
            yield span, source
    finally:
        if source is not None:
            source.close()


def _check_unchanged(source: Source, planned: SourceFile) -> None:
    if (source.entries, source.nbytes, source.version) != (planned.entries, planned.nbytes, planned.version):
        raise SourceChangedError(f"{planned.url} changed while it was being converted; run the command again")


def _label_of(context: BuildContext, span: Span) -> int | None:
    label = context.sources[span.source].label
    return None if label is None else context.spec.classes.index(label)


class _ChunkWriter:
    """Gathers selected pieces and cuts them into chunks of about the size asked for."""

    def __init__(self, context: BuildContext, task: int) -> None:
        self._context, self._task = context, task
        self._store = chunk_store(context.spec.format)
        self._waiting: list[tuple[dict[str, Any], int]] = []
        self._bytes = 0
        self._spans: list[Span] = []
        self.built: list[BuiltChunk] = []

    def add(self, columns: dict[str, Any], entries: int, span: Span) -> None:
        target = self._context.spec.chunk_bytes
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
        if self._bytes >= self._context.spec.chunk_bytes * _FULL:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered as one chunk; pieces without survivors leave none."""
        waiting, spans = [w for w in self._waiting if w[1]], tuple(self._spans)
        self._waiting, self._spans, self._bytes = [], [], 0
        if not waiting:
            return
        entries = sum(n for _, n in waiting)
        names = self._context.schema.names
        joined = waiting[0][0] if len(waiting) == 1 else {n: ak.concatenate([w[0][n] for w in waiting]) for n in names}
        batch = to_batch(self._context.schema, joined, entries)
        encoded = self._store.encode(batch, self._context.spec.profile)
        file = f"task-{self._task:06d}-{len(self.built):04d}{self._store.suffix}"
        write_new(Path(self._context.staging) / file, encoded.data)
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


def encode_reply(run: Callable[[], tuple[BuiltChunk, ...]], urls: Sequence[str] = ()) -> bytes:
    """The outcome of a task as one JSON line; errors travel by name, without the secrets of ``urls``."""
    try:
        reply = _Reply(run())
    except UnreadableColumnsError as error:
        reply = _Reply(failure=_Failure("UnreadableColumnsError", "", error.reasons))
    except StorageringError as error:
        reply = _Reply(failure=_Failure(type(error).__name__, str(error)))
    except Exception as error:  # noqa: BLE001  (the parent reports it as a bug of ours)
        trace = redact_text("".join(traceback.format_exception(error))[-4000:], *urls)
        reply = _Reply(failure=_Failure("InternalError", trace))
    return msgspec.json.encode(reply) + b"\n"


def decode_reply(line: bytes) -> tuple[BuiltChunk, ...]:
    """The chunks of a task, or the error that it ended with, raised."""
    reply = msgspec.json.decode(line, type=_Reply)
    if reply.failure is None:
        return reply.chunks
    if reply.failure.reasons:
        raise UnreadableColumnsError(reply.failure.reasons, "")
    kind = getattr(errors, reply.failure.error, InternalError)
    raise kind(reply.failure.message)


def encode_message(message: BuildContext | Task) -> bytes:
    """A context or task as one JSON line."""
    return msgspec.json.encode(message, enc_hook=str) + b"\n"  # paths are the only foreign type


def _decode_path(kind: type, text: str) -> Any:
    return kind(text)


def _report_nothing(_entries: int, _bytes: int) -> None:
    """The parent counts by task."""


def main() -> None:
    """Serve tasks from stdin until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print must not mix with replies
    lines = iter(sys.stdin.buffer.readline, b"")
    context = msgspec.json.decode(next(lines), type=BuildContext, dec_hook=_decode_path)
    for line in lines:
        task = msgspec.json.decode(line, type=Task)
        replies.write(encode_reply(partial(run_task, context, task, _report_nothing), context.urls))
        replies.flush()


if __name__ == "__main__":
    main()
