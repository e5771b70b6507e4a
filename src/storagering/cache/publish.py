"""From finished chunks to a dataset that everybody sees, whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from storagering.cache.chunks import BuiltChunk
from storagering.cache.finished import BuiltChunks, renumber
from storagering.cache.manifest import (
    MANIFEST_NAME,
    earlier_manifest_name,
    encode_manifest,
    read_manifest,
    seal_manifest,
    software,
    spec_key,
)
from storagering.cache.messages import BuildContext
from storagering.cache.quantiles import find_distributions
from storagering.cache.residency import mark_partial
from storagering.cache.sketches import Sketches, merge_sketches
from storagering.cache.statistics import extend_statistics_table, merge_statistics, sketches_in, statistics_table
from storagering.cache.store import chunk_store
from storagering.errors import CacheError, ChecksumError
from storagering.files import (
    link_file,
    list_directory,
    make_directory,
    read_file,
    remove_file,
    replace_file,
    safe_join,
    sync_directory,
    write_new,
)
from storagering.formats.sources import identify
from storagering.types import Chunk, ConversionSpec, Manifest, SkippedColumn, SkippedSource, sha256_hex

_OF_AN_APPEND = re.compile(r"(chunk|statistics|manifest)-\d{6}|\.manifest\.json\.")
_STATISTICS_LIMIT_BYTES = 1 << 32
_MANIFEST_LIMIT_BYTES = 1 << 32


@dataclass(frozen=True)
class Outcome:
    """What a build came to.

    Attributes:
        built: the chunks in order, still in the staging folder.
        bad: numbers of the context's sources that were left out -> why.
        skipped_sources: further ones that could not even be opened.
        sketches: of all chunks together.
    """

    context: BuildContext
    built: BuiltChunks
    bad: Mapping[int, str]
    skipped: tuple[SkippedColumn, ...]
    skipped_sources: tuple[SkippedSource, ...]
    sketches: Sketches

    def all_skipped_sources(self) -> tuple[SkippedSource, ...]:
        """Sources left out, in the order in which they were given."""
        files = self.context.sources
        late = tuple(SkippedSource(files[n].url, files[n].label, why) for n, why in self.bad.items())
        order = [url for url, _ in self.context.spec.sources]
        return tuple(sorted(late + self.skipped_sources, key=lambda s: order.index(s.url)))

    def numbers(self, first: int = 0) -> dict[int, int]:
        """Number among the context's sources -> number in the manifest, of the good ones, counted from ``first``."""
        kept = [number for number in range(len(self.context.sources)) if number not in self.bad]
        return {old: first + new for new, old in enumerate(kept)}

    def good(self, first: int = 0) -> tuple[BuildContext, BuiltChunks]:
        """The context and chunks without the bad sources, the others counted from ``first``."""
        numbers = self.numbers(first)
        sources = tuple(self.context.sources[number] for number in numbers)
        return replace(self.context, sources=sources), renumber(self.built, numbers)


def assemble_dataset(name: str, outcome: Outcome, folder: Path) -> Manifest:
    """Make the folder of a new dataset, complete with its manifest."""
    context, built = outcome.good()
    make_directory(folder)
    chunks = _place_chunks(context, built, folder, 0, 0)
    per_chunk = [b.statistics for b in built]
    statistics = merge_statistics(per_chunk, len(context.schema.columns))
    table = statistics_table(context.schema, per_chunk, statistics, outcome.sketches)
    file = _statistics_name(1)
    write_new(folder / file, table)
    manifest = seal_manifest(
        Manifest(
            name=name,
            software=software(),
            spec=context.spec,
            spec_key=spec_key(context.spec),
            schema=context.schema,
            sources=context.sources,
            chunks=chunks,
            statistics=statistics,
            chunk_statistics=(file, sha256_hex(table)),
            skipped=outcome.skipped,
            skipped_sources=outcome.all_skipped_sources(),
            distributions=find_distributions(context.schema, statistics, outcome.sketches),
        )
    )
    write_new(folder / MANIFEST_NAME, encode_manifest(manifest))
    return manifest


def extend_dataset(old: Manifest, spec: ConversionSpec, outcome: Outcome, folder: Path) -> Manifest:
    """Add chunks to a published dataset as its next version.

    All new files get names of their own and are there before the manifest is exchanged by one rename: whoever
    reads the version before goes on, and a crash leaves that version whole.
    """
    version = old.version + 1
    context, built = outcome.good(first=len(old.sources))
    remove_strays(old, folder)
    chunks = _place_chunks(context, built, folder, len(old.chunks), old.num_entries)
    before, digest = old.chunk_statistics
    table = read_file(folder / before, _STATISTICS_LIMIT_BYTES)
    if sha256_hex(table) != digest:
        raise ChecksumError(f"{folder / before} is damaged; remove dataset {old.name!r} and convert it again")
    per_chunk = [b.statistics for b in built]
    statistics = merge_statistics([old.statistics] * bool(old.chunks) + per_chunk, len(old.schema.columns))
    sketches = merge_sketches([sketches_in(table, old.schema), outcome.sketches])
    table = extend_statistics_table(table, old.schema, per_chunk, statistics, sketches, len(old.chunks))
    file = _statistics_name(version)
    write_new(folder / file, table)
    tried = {identify(url) for url, _ in context.spec.sources}
    manifest = seal_manifest(
        replace(
            old,
            software=old.software if old.software == software() else f"{old.software}, then {software()}",
            spec=spec,
            spec_key=spec_key(spec),
            sources=old.sources + context.sources,
            chunks=old.chunks + chunks,
            statistics=statistics,
            chunk_statistics=(file, sha256_hex(table)),
            skipped=tuple(dict.fromkeys(old.skipped + outcome.skipped)),
            skipped_sources=(
                *(s for s in old.skipped_sources if identify(s.url) not in tried),
                *outcome.all_skipped_sources(),
            ),
            version=version,
            parent=old.digest,
            distributions=find_distributions(old.schema, statistics, sketches),
        )
    )
    write_new(folder / earlier_manifest_name(old.version), encode_manifest(old))
    sync_directory(folder)
    try:
        replace_file(folder / MANIFEST_NAME, encode_manifest(manifest))
    except CacheError:
        if read_manifest(folder, _MANIFEST_LIMIT_BYTES).digest != manifest.digest:
            raise
    return manifest


def _place_chunks(
    context: BuildContext, built: Sequence[BuiltChunk], folder: Path, number: int, start: int
) -> tuple[Chunk, ...]:
    """Link the chunk files under their final names, the first one as ``number``, from entry ``start``."""
    suffix = chunk_store(context.spec.format).suffix
    chunks: list[Chunk] = []
    for item in built:
        file = f"chunk-{number:06d}{suffix}"
        if (made := safe_join(Path(context.staging), item.chunk.file)).exists():
            link_file(made, folder / file)
        else:  # given up for want of room
            mark_partial(folder)
        chunks.append(replace(item.chunk, start=start, stop=start + item.chunk.stop, file=file))
        number, start = number + 1, chunks[-1].stop
    return tuple(chunks)


def remove_strays(manifest: Manifest, folder: Path) -> None:
    """Remove what an append that was interrupted has put there; no manifest knows of it."""
    known = {chunk.file for chunk in manifest.chunks}
    known |= {earlier_manifest_name(version) for version in range(1, manifest.version)}
    known |= {_statistics_name(version) for version in range(1, manifest.version + 1)}
    for path in list_directory(folder):
        if _OF_AN_APPEND.match(path.name) and path.name not in known:
            remove_file(path)


def _statistics_name(version: int) -> str:
    return "statistics.parquet" if version == 1 else f"statistics-{version:06d}.parquet"
