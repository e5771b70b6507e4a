"""Making damaged chunks again from the sources, digest for digest; the damaged file goes into quarantine."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from storagering.cache.chunks import BuiltChunk
from storagering.cache.layout import Cache
from storagering.cache.messages import BuildContext, Task
from storagering.cache.progress import BuildProgress
from storagering.cache.selection import LABEL, Selection
from storagering.cache.verify import Fault, verify_dataset
from storagering.cache.worker import run_task
from storagering.errors import SourceChangedError, SpecError
from storagering.files import link_file, make_directory, rename_file, sync_directory
from storagering.formats.locations import with_replicas
from storagering.formats.readers import open_source
from storagering.formats.readers.friends import with_friends
from storagering.formats.source import Location
from storagering.types import Chunk, Manifest, Span

#: Chunk size with which all pieces of a task become one chunk.
_ALL_IN_ONE = 1 << 60
_SPOOL = "spool"


def repair_dataset(
    cache: Cache, name: str, replicas: Sequence[str], progress: BuildProgress
) -> tuple[tuple[Fault, ...], tuple[Fault, ...]]:
    """Find the damaged chunks of a dataset, and make them again. Whoever reads the others is not disturbed.

    Args:
        replicas: where else the sources are, as for a conversion.

    Returns:
        What was damaged, and what of it still is: the statistics, which only a conversion makes.

    Raises:
        NotFoundError: there is no such dataset, or a source is gone.
        SourceChangedError: a source is not what the dataset was made from, so the chunk cannot come back.
        StorageringError: as a conversion; chunks that were mended before stay so.
    """
    lock = cache.build_lock(name)
    lock.acquire(cache.settings.lock_timeout_seconds, progress.tell)
    try:
        faults = verify_dataset(cache, name, progress)
        bad = {fault.chunk for fault in faults if fault.chunk is not None}
        if bad:
            manifest = cache.manifest(name)
            with cache.staging(name, "repair", keep_others=True) as staging:
                context = _context(cache, manifest, replicas, staging)
                for run in _runs(manifest.chunks, bad):
                    _mend(cache, manifest, run, bad, context)
                    progress.tell(f"{', '.join(manifest.chunks[n].file for n in run if n in bad)}: made again")
        return faults, tuple(fault for fault in faults if fault.chunk is None)
    finally:
        lock.release()


def _runs(chunks: Sequence[Chunk], bad: set[int]) -> Iterator[range]:
    """The chunks that must be made together: a selection can leave so much of one piece that it fills several."""
    done = -1
    for number in sorted(bad):
        if number <= done:
            continue
        first = last = number
        while first and chunks[first - 1].spans[-1] == chunks[first].spans[0]:
            first -= 1
        while last + 1 < len(chunks) and chunks[last].spans[-1] == chunks[last + 1].spans[0]:
            last += 1
        done = last
        yield range(first, last + 1)


def _context(cache: Cache, manifest: Manifest, replicas: Sequence[str], staging: Path) -> BuildContext:
    spec = manifest.spec
    if any(":" in friend for friend in spec.friends):
        raise SpecError(f"dataset {manifest.name!r} has friends in files of their own: convert it again")
    places = with_replicas([Location(source.url) for source in manifest.sources], replicas)
    locations, _ = with_friends(places, spec.friends, cache.settings)
    settings = replace(cache.settings, fill_absent_chunks=spec.fill_absent_chunks)
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


def _mend(cache: Cache, manifest: Manifest, run: range, bad: set[int], context: BuildContext) -> None:
    built = _build_again(manifest, run, context)
    for number, item in zip(run, built, strict=True):
        chunk = manifest.chunks[number]
        if number not in bad:
            continue
        if item.chunk.digest != chunk.digest:
            raise _differs(manifest, chunk)
        folder, aside = cache.path(manifest.name), cache.root / "quarantine"
        if (folder / chunk.file).exists():
            make_directory(aside)
            link_file(folder / chunk.file, aside / f"{manifest.name}-{secrets.token_hex(4)}-{chunk.file}")
        rename_file(Path(context.staging) / item.chunk.file, folder / chunk.file)
        sync_directory(folder)


def _build_again(manifest: Manifest, run: range, context: BuildContext) -> Sequence[BuiltChunk]:
    spans = [span for number in run for span in manifest.chunks[number].spans]
    pieces: list[Span] = [span for before, span in zip([None, *spans], spans, strict=False) if span != before]
    if len(run) == 1:
        context = replace(context, spec=replace(context.spec, chunk_bytes=_ALL_IN_ONE))
    built = run_task(context, Task(0, tuple(pieces), key="repair"), lambda _entries, _nbytes: None)
    if len(built) != len(run):
        raise _differs(manifest, manifest.chunks[run[0]])
    return built


def _differs(manifest: Manifest, chunk: Chunk) -> SourceChangedError:
    return SourceChangedError(
        f"{chunk.file} of dataset {manifest.name!r} comes out differently now: it was made by {manifest.software}, or "
        f"from other sources; 'storagering remove {manifest.name}' and convert again"
    )
