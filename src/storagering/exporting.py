"""The way back: a dataset of the cache, or any file that can be read, written as a file of another format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import awkward as ak
import numpy as np

from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.layout import open_cache
from storagering.cache.progress import BuildProgress
from storagering.config import Settings, load_settings
from storagering.errors import NoColumnsError, SchemaError, SpecError, nearest_names
from storagering.formats.expressions import Expression, evaluate_mask, parse_expression
from storagering.formats.forms import assign_keys, to_awkward, to_batch
from storagering.formats.readers import open_source
from storagering.formats.source import Location, Source, UnreadableColumnsError
from storagering.formats.sources import resolve_sources
from storagering.formats.sparse import dense_schema
from storagering.formats.streaming import Piece, SourceStream
from storagering.formats.writers import ExportFormat, writer_class
from storagering.formats.writers.output import check_output, nbytes_of, write_output
from storagering.formats.writers.writer import WriteOptions
from storagering.types import Batch, Column, OnBadColumn, Schema, SkippedColumn

_USUAL_TREE = "events"
_Pieces = Callable[[Sequence[str]], Iterator[Piece]]


@dataclass(frozen=True, slots=True)
class _Options:
    """What to write of a table, and how: see `export`."""

    columns: Sequence[str] | None
    exclude: Sequence[str]
    where: str | None
    start: int
    stop: int | None
    compression: str | None
    on_bad_column: OnBadColumn
    force: bool

    def choose(self, names: Iterable[str]) -> list[str]:
        """The names that the patterns take, in order.

        Raises:
            SchemaError: a pattern matches nothing.
        """
        known = list(names)
        for pattern in self.columns or ():
            if not any(fnmatchcase(name, pattern) for name in known):
                raise SchemaError(f"--columns {pattern!r} matches no column{nearest_names(pattern, known)}")
        kept = [n for n in known if self.columns is None or any(fnmatchcase(n, p) for p in self.columns)]
        return [n for n in kept if not any(fnmatchcase(n, p) for p in self.exclude)]

    def range_of(self, entries: int) -> tuple[int, int]:
        """First and last entry of so many.

        Raises:
            SpecError: a negative number.
        """
        stop = entries if self.stop is None else min(self.stop, entries)
        if self.start < 0 or stop < 0:
            raise SpecError(f"entries {self.start} to {stop}: count from the start, there are {entries:,}")
        return min(self.start, stop), stop


@dataclass(frozen=True, slots=True)
class Exported:
    """What `export` and `copy` have written.

    Attributes:
        out: absolute path of the file or folder.
        nbytes: its size on disk.
        raw_bytes: size of the arrays in memory.
        skipped: columns that are not in it, and why.
    """

    out: Path
    format: ExportFormat
    entries: int
    columns: int
    nbytes: int
    raw_bytes: int
    skipped: tuple[SkippedColumn, ...]

    @property
    def ratio(self) -> float | None:
        """Bytes in memory for one on disk, None without any."""
        return self.raw_bytes / self.nbytes if self.nbytes else None


def export(
    name: str,
    out: str | Path,
    *,
    to: ExportFormat,
    tree: str | None = None,
    columns: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    where: str | None = None,
    start: int = 0,
    stop: int | None = None,
    compression: str | None = None,
    on_bad_column: OnBadColumn = "skip",
    force: bool = False,
    settings: Settings | None = None,
    progress: BuildProgress | None = None,
) -> Exported:
    """Write a dataset of the cache as a file of another format, chunk by chunk.

    Values and types are those of the dataset, bit for bit; the file appears complete or not at all. (RNTuple,
    Parquet and Arrow do not keep the names of record classes, nor that a list was a set or map.)

    Args:
        out: local path; a folder for Zarr, unless it ends with ``.zip``.
        to: ``root`` (a TTree), ``rntuple``, ``parquet``, ``hdf5``, ``zarr``, ``arrow`` or ``npz``.
        tree: what to call the tree or group, where the format has one; as in the first source without it.
        columns: patterns of columns to write (all without it); ``exclude`` to leave out.
        where: expression that is true for entries to write.
        start: first entry; ``stop`` the one after the last.
        compression: a codec of the format, with a level if it has any: ``zstd:3``, ``none``.
        on_bad_column: whether to skip columns that the format cannot hold (they are listed) or to fail.
        force: replace what is there.

    Raises:
        NotFoundError: no such dataset, or no folder to write into.
        SpecError, SchemaError: an option, pattern or expression is wrong.
        OutputError: ``out`` is there already, or cannot be written.
        CorruptDataError: the cache is damaged.
    """
    progress = progress or BuildProgress()
    options = _Options(columns, exclude, where, start, stop, compression, on_bad_column, force)
    path = check_output(out, force=options.force)
    dataset = open_dataset(name, cache=open_cache(settings or load_settings()))
    first, last = options.range_of(dataset.num_entries)
    sources = dataset.manifest.sources
    tree = tree or (sources[0].tree if sources else "") or _USUAL_TREE

    def pieces(names: Sequence[str]) -> Iterator[Piece]:
        progress.start(last - first)
        return _dataset_pieces(dataset, names, first, last)

    job = _Job(path, to, tree, options, progress)
    wanted = dense_schema(dataset.schema).select(options.choose(dataset.schema.names))
    return job.run(wanted, dataset.schema.names, pieces, ())


def copy(
    source: str | Path,
    out: str | Path,
    *,
    to: ExportFormat,
    tree: str | None = None,
    columns: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    where: str | None = None,
    start: int = 0,
    stop: int | None = None,
    compression: str | None = None,
    on_bad_column: OnBadColumn = "skip",
    force: bool = False,
    settings: Settings | None = None,
    progress: BuildProgress | None = None,
) -> Exported:
    """Write any file that can be read as one of another format, block by block, without making a dataset.

    Args:
        source: path or URL of one file.
        tree: the table to read where a file has several; the one written is called the same.

    The other arguments and errors are those of `export`, and those of reading (`SourceError`,
    `CorruptDataError`).
    """
    settings, progress = settings or load_settings(), progress or BuildProgress()
    options = _Options(columns, exclude, where, start, stop, compression, on_bad_column, force)
    found = resolve_sources(source, settings)
    if len(found) != 1:
        raise SpecError(f"copy takes one file, not {len(found)}; 'storagering convert' and 'export' join many")
    path = check_output(out, force=options.force)
    with closing(open_source(Location(found[0][0]), tree, settings)) as opened:
        return _copy_source(opened, _Job(path, to, opened.tree or _USUAL_TREE, options, progress))


def _copy_source(source: Source, job: _Job) -> Exported:
    """Starts over without columns that turn out to be unreadable further on."""
    options, progress = job.options, job.progress
    first, last = options.range_of(source.entries)
    chosen = options.choose(source.columns)
    stream = SourceStream(source, chosen, options.on_bad_column)
    for name in source.repeated:
        if name in chosen:
            stream.skip(name, "another column of this name comes before it")
    schema = stream.schema

    def pieces(names: Sequence[str]) -> Iterator[Piece]:
        return stream.pieces(names, first, last, progress.start)

    while True:
        try:
            return job.run(schema, tuple(source.columns), pieces, stream.skipped)
        except UnreadableColumnsError as error:
            for name, reason in error.reasons.items():
                if name not in schema.names:
                    raise SchemaError(
                        f"column {name!r}, which the selection needs, cannot be read: {reason}"
                    ) from error
                stream.skip(name, reason)
            progress.tell(f"starting over without {', '.join(error.reasons)}: unreadable further on")
            schema = schema.select(n for n in schema.names if n not in error.reasons)


def _dataset_pieces(dataset: Dataset, names: Sequence[str], first: int, last: int) -> Iterator[Piece]:
    at = next((c.start for c in dataset.manifest.chunks if c.stop > first), 0)
    for batch in dataset.batches(names, first, last, purpose="export"):
        start, stop = max(0, first - at), min(len(batch), last - at)
        record = to_awkward(batch)[start:stop]
        yield {name: record[name] for name in names}, stop - start
        at += len(batch)


@dataclass(frozen=True, slots=True)
class _Job:
    """One file to write."""

    path: Path
    to: ExportFormat
    tree: str
    options: _Options
    progress: BuildProgress

    def run(
        self, wanted: Schema, known: Sequence[str], pieces: _Pieces, skipped: tuple[SkippedColumn, ...]
    ) -> Exported:
        """Write what the format holds of the wanted columns; ``known`` are names that expressions may use."""
        kind, options = writer_class(self.to), self.options
        refusals = kind.refusals(wanted)
        for name, reason in refusals.items():
            if options.on_bad_column == "fail":
                raise SchemaError(
                    f"column {name!r} cannot be written --to {self.to}: {reason}; leave it out with --exclude"
                )
        refused = [c for c in wanted.columns if c.name in refusals]
        skipped += tuple(SkippedColumn(c.name, _type_text(c), refusals[c.name], "") for c in refused)
        held = assign_keys(c for c in wanted.columns if c.name not in refusals)
        if not held.columns:
            raise NoColumnsError(f"no column is left to write --to {self.to} ({len(skipped)} skipped)")
        where = None if options.where is None else parse_expression(options.where, list(known))
        names = tuple(dict.fromkeys([*held.names, *(where.names if where else ())]))

        def batches() -> Iterator[Batch]:
            for piece in pieces(names):
                batch = _select(held, piece, where)
                yield batch
                self.progress.advance(piece[1], nbytes_of(batch))

        written = write_output(
            kind, self.path, held, batches, WriteOptions(self.tree, options.compression), force=options.force
        )
        return Exported(
            self.path, self.to, written.entries, len(held.columns), written.nbytes, written.raw_bytes, skipped
        )


def _select(schema: Schema, piece: Piece, where: Expression | None) -> Batch:
    arrays, entries = piece
    if where is None:
        return to_batch(schema, arrays, entries)
    keep = evaluate_mask(where, dict(arrays))
    return to_batch(schema, {n: arrays[n][keep] for n in schema.names}, int(np.count_nonzero(keep)))


def _type_text(column: Column) -> str:
    return str(ak.forms.from_json(column.form).type)
