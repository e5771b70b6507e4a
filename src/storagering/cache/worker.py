"""What one worker of a conversion does: read pieces, select, define, write chunks.

Run as ``python -m storagering.cache.worker`` it takes tasks as JSON lines on stdin and answers on stdout.
It ends when stdin does, so it never outlives the process that started it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from storagering.cache.chunks import BuiltChunk, ChunkWriter
from storagering.cache.messages import BuildContext, Task, decode_path, encode_reply
from storagering.cache.selection import Selection
from storagering.errors import SourceChangedError
from storagering.formats.readers import open_source
from storagering.formats.source import Source
from storagering.types import SourceFile, Span

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
    writer = ChunkWriter(context.spec, context.schema, Path(context.staging), f"task-{task.number:06d}")
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
                source = open_source(
                    context.locations[number], context.sources[number].tree, context.settings, context.spool
                )
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


def _report_nothing(_entries: int, _bytes: int) -> None:
    """The parent counts by task."""


def main() -> None:
    """Serve tasks from stdin until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print must not mix with replies
    lines = iter(sys.stdin.buffer.readline, b"")
    context = msgspec.json.decode(next(lines), type=BuildContext, dec_hook=decode_path)
    urls = [location.url for location in context.locations]
    for line in lines:
        task = msgspec.json.decode(line, type=Task)
        replies.write(encode_reply(partial(run_task, context, task, _report_nothing), urls))
        replies.flush()


if __name__ == "__main__":
    main()
