"""What one worker of a conversion does: read pieces, select, define, write chunks.

Run as ``python -m storagering.cache.worker`` it takes tasks as JSON lines on stdin and answers on stdout.
It ends when stdin does, so it never outlives the process that started it.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from storagering.cache.chunks import BuiltChunk, ChunkWriter
from storagering.cache.deals import DealWriter
from storagering.cache.entry_keys import ENTRY_ID, entry_ids_of
from storagering.cache.messages import BuildContext, Task, blamed_on, decode_path, encode_reply, urls_of
from storagering.cache.mixing import mix_share
from storagering.cache.opened import OpenSources
from storagering.cache.pruning import PrunedReader
from storagering.cache.selection import Selection, made_names
from storagering.errors import CorruptDataError
from storagering.formats.batches import raw_size_of
from storagering.formats.forms import to_batch
from storagering.formats.remote.plain import leave_untold
from storagering.formats.source import Source
from storagering.formats.sparse import dense_schema, sparse_batch
from storagering.types import Array, Batch, Schema, Span

Report = Callable[[int, int], None]
"""Called with the entries and decoded bytes read since the last call."""


def run_task(
    context: BuildContext,
    task: Task,
    report: Report,
    known: Mapping[str, Any] | None = None,
    sources: OpenSources | None = None,
) -> tuple[BuiltChunk, ...]:
    """Read the task's pieces and write their chunks into the staging folder, or mix its share of what was dealt.

    Args:
        known: the arrays of the only piece, if they were read already.
        sources: those of the context, to be left open for the next task; closed if not given.

    Raises:
        UnreadableColumnsError: columns that cannot be read in one of the pieces.
        SourceChangedError: a file is not what it was when the build was planned.
        StorageringError: whatever reading or writing raises.
    """
    if task.share is not None:
        return mix_share(context, task, report)
    if sources is None:
        with closing(OpenSources(context)) as own:
            return run_task(context, task, report, known, own)
    # A name of its own: the worker of a killed build may still be writing the same task.
    prefix = f"task-{task.key}-{secrets.token_hex(4)}"
    writer = (
        ChunkWriter(context.spec, context.schema, Path(context.staging), prefix)
        if context.mixing is None
        else DealWriter(context, context.mixing.bits, prefix)
    )
    selection = Selection(context.spec, list(context.read_names))
    reader: PrunedReader | None = None
    for span, source in sources.of(task.pieces):
        if selection.selects:
            if reader is None or reader.source is not source:
                reader = PrunedReader(source, selection, context.read_names, context.schema.names)
            with _reading(context, span):
                columns, entries, size = reader.read(span, _make(context, span), known)
                batch = to_batch(context.schema, columns, entries) if entries else Batch(context.schema, 0)
        elif context.spec.define or known:
            with _reading(context, span):
                arrays = dict(known or source.read(context.read_names, span.start, span.stop))
                size = sum(int(a.nbytes) for a in arrays.values())
                columns, entries = selection.apply(arrays, span.stop - span.start, _make(context, span))
                batch = to_batch(context.schema, columns, entries)
        else:
            with _reading(context, span):
                batch = _read_plainly(context, source, span)
            size = raw_size_of(batch)
        with _reading(context, span):  # nobody could read again what does not fit together
            batch = batch.check() if len(batch) else batch
        writer.add(batch, span)
        del batch  # before the next one is read
        report(span.stop - span.start, size)
    return writer.finish()


@contextmanager
def _reading(context: BuildContext, span: Span) -> Iterator[None]:
    """Put the blame for what goes wrong on the file that is read, by number and by name."""
    url = context.sources[span.source].url
    with blamed_on(span.source):
        try:
            yield
        except CorruptDataError as error:
            if url in str(error):
                raise
            raise type(error)(f"{url}: {error}; fetch it again") from error


def _read_plainly(context: BuildContext, source: Source, span: Span) -> Batch:
    """All entries of a piece, without a detour through Awkward Array where the reader can do without."""
    made = _make(context, span)
    dense = dense_schema(context.schema)
    schema = Schema(tuple(c for c in dense.columns if c.name not in made))
    batch = source.read_batch(schema, span.start, span.stop)
    arrays = {**batch.arrays, **{name: (array,) for name, array in made.items()}}
    return sparse_batch(context.schema, Batch(dense, batch.num_entries, arrays))


def _make(context: BuildContext, span: Span) -> dict[str, Array]:
    """The columns that no source has, for all entries of a piece; ids without the source, whose number may change."""
    made: dict[str, Array] = {}
    for name in made_names(context.spec):
        if name == ENTRY_ID:
            made[name] = entry_ids_of(0, span.start, span.stop)
        elif (label := context.sources[span.source].label) is not None:
            made[name] = np.full(span.stop - span.start, context.spec.classes.index(label), np.int64)
    return made


def _report_nothing(_entries: int, _bytes: int) -> None:
    """The parent counts by task."""


def main() -> None:
    """Serve tasks from stdin until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print must not mix with replies
    lines = iter(sys.stdin.buffer.readline, b"")
    context = msgspec.json.decode(next(lines), type=BuildContext, dec_hook=decode_path)
    urls = urls_of(context.locations)
    leave_untold(urls)
    with closing(OpenSources(context)) as sources, suppress(BrokenPipeError):  # whom it worked for is gone
        for line in lines:
            task = msgspec.json.decode(line, type=Task)
            replies.write(encode_reply(partial(run_task, context, task, _report_nothing, None, sources), urls))
            replies.flush()


if __name__ == "__main__":
    main()
