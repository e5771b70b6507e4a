"""Building a dataset: plan, run, and publish by one rename."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from storagering.cache.chunks import BuiltChunk
from storagering.cache.inspection import Inspection, inspect_sources, without_columns
from storagering.cache.layout import Cache
from storagering.cache.manifest import MANIFEST_NAME, encode_manifest, seal_manifest, spec_key
from storagering.cache.messages import BuildContext
from storagering.cache.pool import run_tasks
from storagering.cache.statistics import merge_statistics, statistics_table
from storagering.cache.store import chunk_store
from storagering.cache.tasks import plan_build
from storagering.errors import CacheError, SourceChangedError, SpecError
from storagering.files import publish_directory, rename_file, write_new
from storagering.formats.source import Location, UnreadableColumnsError
from storagering.types import Chunk, ConversionSpec, Manifest, SkippedColumn, sha256_hex

_STATISTICS_NAME = "statistics.parquet"
_SPOOL_NAME = "spool"


class BuildProgress:
    """What a build tells while it works; subclass it to show something. The default is silent."""

    def start(self, total_entries: int) -> None:
        """The work is known: so many entries (also called when a build starts over)."""

    def advance(self, entries: int, decoded_bytes: int) -> None:
        """That much more was read and written."""

    def tell(self, message: str) -> None:
        """A sentence for the user."""


def build_dataset(
    cache: Cache, name: str, spec: ConversionSpec, locations: Sequence[Location], progress: BuildProgress
) -> tuple[Manifest, bool]:
    """The dataset of that name and spec: built, or as it is already there.

    Args:
        locations: where ``spec.sources`` are, with whatever secrets that needs.

    Returns:
        The manifest, and whether it was built by this call.

    Raises:
        SpecError: the name is taken by a dataset of another spec (lists the differences).
        SourceChangedError: it is there, but a source has changed since.
        StorageringError: whatever reading or writing raises; nothing is then left behind.
    """
    with suppress(CacheError):  # a cache that cannot be written may still hold the dataset
        cache.reclaim()
    existing = _existing(cache, name, spec, locations)
    if existing is not None:
        return existing, False
    lock = cache.build_lock(name)
    lock.acquire(cache.settings.lock_timeout_seconds, progress.tell)
    try:
        existing = _existing(cache, name, spec, locations)  # the holder we waited for may have built it
        if existing is not None:
            return existing, False
        with cache.staging() as staging:
            inspection = inspect_sources(locations, spec, cache.settings, str(staging / _SPOOL_NAME))
            manifest = _fill(cache, name, spec, inspection, staging, progress)
            if not publish_directory(staging, cache.path(name)):
                return _existing(cache, name, spec, locations) or cache.manifest(name), False
            return manifest, True
    finally:
        lock.release()


def _existing(cache: Cache, name: str, spec: ConversionSpec, locations: Sequence[Location]) -> Manifest | None:
    if not cache.contains(name):
        return None
    manifest = cache.manifest(name)
    if manifest.spec_key != spec_key(spec):
        raise SpecError(
            f"dataset {name!r} is there already, made otherwise ({_differences(manifest.spec, spec)}); "
            f"choose another --name, or 'storagering remove {name}' first"
        )
    for file, location in zip(manifest.sources, locations, strict=True):
        url = location.url
        if "://" not in url and Path(url).exists() and str(Path(url).stat().st_mtime) != file.version:
            raise SourceChangedError(
                f"{file.url} has changed since dataset {name!r} was made from it; "
                f"'storagering remove {name}' and convert again"
            )
    return manifest


def _differences(old: ConversionSpec, new: ConversionSpec) -> str:
    fields = [f for f in ConversionSpec.__dataclass_fields__ if getattr(old, f) != getattr(new, f)]
    shown = [f"{f}: {str(getattr(old, f))[:80]} there, {str(getattr(new, f))[:80]} asked for" for f in fields[:3]]
    return "; ".join(shown)


def _fill(
    cache: Cache, name: str, spec: ConversionSpec, inspection: Inspection, staging: Path, progress: BuildProgress
) -> Manifest:
    """Write everything into the staging folder; starts over without a column that fails half way."""
    while True:
        plan = plan_build(inspection, spec, cache.settings, str(staging), str(staging / _SPOOL_NAME))
        progress.start(sum(f.entries for f in inspection.files))
        try:
            built = run_tasks(plan.context, plan.tasks, cache.settings.workers, progress.advance, plan.known)
            break
        except UnreadableColumnsError as error:
            progress.tell(f"starting over without {', '.join(error.reasons)}: unreadable further on")
            inspection = without_columns(inspection, error.reasons, spec)
            for leftover in staging.iterdir():
                leftover.unlink()
    manifest = _describe(
        name, plan.context, [b for task in built for b in task], inspection.skipped + plan.skipped, staging
    )
    write_new(staging / MANIFEST_NAME, encode_manifest(manifest))
    return manifest


def _describe(
    name: str, context: BuildContext, built: Sequence[BuiltChunk], skipped: tuple[SkippedColumn, ...], staging: Path
) -> Manifest:
    suffix = chunk_store(context.spec.format).suffix
    chunks: list[Chunk] = []
    for number, item in enumerate(built):
        start = chunks[-1].stop if chunks else 0
        file = f"chunk-{number:06d}{suffix}"
        rename_file(staging / item.chunk.file, staging / file)
        chunks.append(replace(item.chunk, start=start, stop=start + item.chunk.stop, file=file))
    table = statistics_table(context.schema, [b.statistics for b in built])
    write_new(staging / _STATISTICS_NAME, table)
    manifest = Manifest(
        name=name,
        software=f"storagering {version('storagering')}",
        spec=context.spec,
        spec_key=spec_key(context.spec),
        schema=context.schema,
        sources=context.sources,
        chunks=tuple(chunks),
        statistics=merge_statistics([b.statistics for b in built], len(context.schema.columns)),
        chunk_statistics=(_STATISTICS_NAME, sha256_hex(table)),
        skipped=skipped,
    )
    return seal_manifest(manifest)
