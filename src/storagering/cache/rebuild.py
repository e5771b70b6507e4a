"""Making chunks of a published dataset again from its sources, digest for digest."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from storagering.cache.chunks import BuiltChunk
from storagering.cache.messages import BuildContext, Task
from storagering.cache.opened import OpenSources
from storagering.cache.selection import LABEL, Selection
from storagering.cache.worker import run_task
from storagering.config import Settings
from storagering.errors import SourceChangedError, SpecError
from storagering.files import remove_file, safe_join
from storagering.formats.locations import with_replicas
from storagering.formats.readers import open_source
from storagering.formats.readers.friends import with_friends
from storagering.formats.source import Location
from storagering.types import Chunk, Manifest, Span

#: Chunk size with which all pieces of a task become one chunk.
_ALL_IN_ONE = 1 << 60
_SPOOL = "spool"


class Rebuilder:
    """Makes chunks again in a staging folder; sources stay open from one to the next. Not safe to share.

    Args:
        staging: a folder of its own.
        replicas: where else the sources are, as for a conversion.
    """

    def __init__(self, manifest: Manifest, staging: Path, settings: Settings, replicas: Sequence[str] = ()) -> None:
        self._manifest, self._staging = manifest, staging
        self._stack = ExitStack()
        self._context = _context(manifest, replicas, staging, settings)
        self._sources = self._stack.enter_context(closing(OpenSources(self._context)))

    def make(self, run: range, wanted: Collection[int]) -> Iterator[tuple[int, Path]]:
        """The wanted chunks of a run (see `runs_of`): number and file, each one as its manifest says.

        Raises:
            SourceChangedError: a source is not what the dataset was made from.
            StorageringError: as a conversion.
        """
        built = self._build(run)
        for number, item in zip(run, built, strict=True):
            path = safe_join(self._staging, item.chunk.file)
            if number not in wanted:
                remove_file(path)
                continue
            chunk = self._manifest.chunks[number]
            if item.chunk.digest != chunk.digest:
                raise _differs(self._manifest, chunk)
            yield number, path

    def _build(self, run: range) -> Sequence[BuiltChunk]:
        chunks = self._manifest.chunks
        spans = [span for number in run for span in chunks[number].spans]
        pieces: list[Span] = [span for before, span in zip([None, *spans], spans, strict=False) if span != before]
        context = self._context
        if len(run) == 1:
            context = replace(context, spec=replace(context.spec, chunk_bytes=_ALL_IN_ONE))
        built = run_task(context, Task(0, tuple(pieces), key="again"), _report_nothing, None, self._sources)
        if len(built) != len(run):
            raise _differs(self._manifest, chunks[run[0]])
        return built

    def close(self) -> None:
        """Close the sources."""
        self._stack.close()

    def __enter__(self) -> Rebuilder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def runs_of(chunks: Sequence[Chunk], numbers: Collection[int]) -> Iterator[range]:
    """The chunks that must be made together: a selection can leave so much of one piece that it fills several."""
    done = -1
    for number in sorted(numbers):
        if number <= done:
            continue
        first = last = number
        while first and chunks[first - 1].spans[-1:] == chunks[first].spans[:1] != ():
            first -= 1
        while last + 1 < len(chunks) and chunks[last].spans[-1:] == chunks[last + 1].spans[:1] != ():
            last += 1
        done = last
        yield range(first, last + 1)


def _context(manifest: Manifest, replicas: Sequence[str], staging: Path, settings: Settings) -> BuildContext:
    spec = manifest.spec
    if spec.mix is not None:
        raise SpecError(
            f"the entries of dataset {manifest.name!r} are mixed, so each of its chunks is made of all sources: "
            f"'storagering remove {manifest.name}' and convert again, which makes the same one"
        )
    if any(":" in friend for friend in spec.friends):
        raise SpecError(f"dataset {manifest.name!r} has friends in files of their own: convert it again")
    places = with_replicas([Location(source.url) for source in manifest.sources], replicas)
    locations, _ = with_friends(places, spec.friends, settings)
    settings = replace(settings, fill_absent_chunks=spec.fill_absent_chunks)
    with closing(open_source(locations[0], manifest.sources[0].tree, settings, str(staging / _SPOOL))) as source:
        needed = Selection(spec, list(source.columns)).source_names
    own = {LABEL, *(name for name, _ in spec.define)}
    stored = [column.name for column in manifest.schema.columns if column.name not in own]
    return BuildContext(
        spec=spec,
        schema=manifest.schema,
        sources=manifest.sources,
        locations=tuple(locations),
        read_names=tuple(dict.fromkeys((*stored, *needed))),
        staging=str(staging),
        spool=str(staging / _SPOOL),
        settings=settings,
    )


def _report_nothing(_entries: int, _bytes: int) -> None:
    """A chunk is too little to report on."""


def _differs(manifest: Manifest, chunk: Chunk) -> SourceChangedError:
    return SourceChangedError(
        f"{chunk.file} of dataset {manifest.name!r} comes out differently now: it was made by {manifest.software}, or "
        f"from other sources; 'storagering remove {manifest.name}' and convert again"
    )
