"""What the sources of a build hold, and which of their columns are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from storagering.cache.selection import Selection
from storagering.config import Settings
from storagering.errors import FormatError, SchemaError, nearest_names
from storagering.formats.readers import open_source
from storagering.formats.source import Location, Source
from storagering.types import ConversionSpec, SkippedColumn, SourceFile

_INSPECT_THREADS = 8


@dataclass(frozen=True)
class _Found:
    file: SourceFile
    columns: dict[str, str]
    bounds: tuple[int, ...]
    repeated: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """All sources as found, and the columns that can be taken from them.

    Attributes:
        bounds: per file, the entries between which no compressed block is cut.
        names: columns of the source that are wanted, in its order.
    """

    locations: tuple[Location, ...]
    files: tuple[SourceFile, ...]
    bounds: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    typenames: dict[str, str]
    skipped: tuple[SkippedColumn, ...]


def inspect_sources(locations: Sequence[Location], spec: ConversionSpec, settings: Settings, spool: str) -> Inspection:
    """Open every source once and check that all hold the same columns.

    Raises:
        SchemaError: a column is missing or of another type in some file, naming both, or a
            name in ``columns`` matches nothing.
        FormatError: no source holds an entry.
        NotFoundError, SourceError, CorruptDataError: a file cannot be opened.
    """

    def look(location: Location, label: str | None) -> _Found:
        with closing(open_source(location, spec.tree, settings, spool)) as source:
            file = _describe(location, label, source)
            columns = source.columns
            needed = {*_choose(columns, spec), *Selection(spec, list(columns)).source_names}
            return _Found(file, dict(columns), tuple(source.boundaries(needed)), tuple(source.repeated))

    with ThreadPoolExecutor(_INSPECT_THREADS) as threads:
        found = list(threads.map(look, locations, [label for _, label in spec.sources]))
    if not any(f.file.entries for f in found):
        trees = ", ".join(f"{f.file.url} ({f.file.tree})" for f in found[:3])
        raise FormatError(f"there are no entries to convert: {trees} {'is' if len(found) == 1 else 'are'} empty")
    first = found[0].columns
    names = _choose(first, spec)
    skipped = _check_alike(found, names) + _repeated(found[0], names)
    files, bounds = tuple(f.file for f in found), tuple(f.bounds for f in found)
    return Inspection(tuple(locations), files, bounds, names, first, skipped)


def _describe(location: Location, label: str | None, source: Source) -> SourceFile:
    return SourceFile(
        url=location.shown,
        label=label,
        tree=source.tree,
        entries=source.entries,
        nbytes=source.nbytes,
        version=source.version,
        format=source.format,
        checksum=source.checksum,
        verified=bool(source.checksum) or source.self_checked,
    )


def _choose(columns: dict[str, str], spec: ConversionSpec) -> tuple[str, ...]:
    for pattern in spec.columns or ():
        defined = any(fnmatchcase(name, pattern) for name, _ in spec.define)
        if not defined and not any(fnmatchcase(name, pattern) for name in columns):
            raise SchemaError(f"--columns {pattern!r} matches no column{nearest_names(pattern, columns)}")
    kept = [n for n in columns if spec.columns is None or any(fnmatchcase(n, p) for p in spec.columns)]
    return tuple(n for n in kept if not any(fnmatchcase(n, p) for p in spec.exclude))


def _check_alike(found: Sequence[_Found], names: Iterable[str]) -> tuple[SkippedColumn, ...]:
    first = found[0]
    for other in found[1:]:
        for name in names:
            have, want = other.columns.get(name), first.columns[name]
            if have is None:
                near = nearest_names(name, other.columns)
                raise SchemaError(
                    f"{other.file.url} has no column {name!r}, {first.file.url} has{near}; "
                    f"convert without it: --exclude {name!r}"
                )
            if have != want:
                raise SchemaError(f"column {name!r} is {have} in {other.file.url} and {want} in {first.file.url}")
    extra = {n: f for f in reversed(found[1:]) for n in f.columns if n not in first.columns}
    return tuple(SkippedColumn(n, f.columns[n], "it is not in the first file", f.file.url) for n, f in extra.items())


def _repeated(first: _Found, names: Sequence[str]) -> tuple[SkippedColumn, ...]:
    reason = "another column of this name comes before it"
    return tuple(SkippedColumn(n, first.columns[n], reason, first.file.url) for n in first.repeated if n in names)


def without_columns(inspection: Inspection, reasons: dict[str, str], spec: ConversionSpec) -> Inspection:
    """The inspection without columns that turned out to be unreadable in the middle of a build.

    Raises:
        SchemaError: under ``on_bad_column="fail"``, or if an expression needs one of them.
    """
    for name, reason in reasons.items():
        if spec.on_bad_column == "fail" or name not in inspection.names:
            raise SchemaError(f"column {name!r} cannot be converted: {reason}")
    skipped = tuple(SkippedColumn(n, inspection.typenames.get(n, ""), why, "") for n, why in reasons.items())
    names = tuple(n for n in inspection.names if n not in reasons)
    return replace(inspection, names=names, skipped=inspection.skipped + skipped)
