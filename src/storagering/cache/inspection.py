"""What the sources of a build hold, and which of their columns are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from storagering.cache.messages import is_bad_source, spool_of
from storagering.cache.opened import KeptSource
from storagering.cache.selection import Selection
from storagering.config import Settings
from storagering.errors import FormatError, SchemaError, StorageringError, nearest_names
from storagering.formats.readers import open_source
from storagering.formats.source import Location, Source
from storagering.formats.whole import settle_location
from storagering.types import ConversionSpec, SkippedColumn, SkippedSource, SourceFile

_INSPECT_THREADS = 8
#: In a file with fewer entries, headers can outweigh them.
_TELLING_ENTRIES = 1000


@dataclass(frozen=True)
class _Found:
    location: Location
    file: SourceFile
    columns: dict[str, str]
    bounds: tuple[int, ...]
    entry_bytes: dict[str, float]
    repeated: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """All sources as found, and the columns that can be taken from them.

    Attributes:
        bounds: per file, the entries between which no compressed block is cut.
        names: columns of the source that are wanted, in its order.
        entry_bytes: what an entry has at most on average in one of the files, by column, as far as they tell.
        skipped_sources: bad ones, left out under ``on_bad_source="skip"``; not among ``files``.
    """

    locations: tuple[Location, ...]
    files: tuple[SourceFile, ...]
    bounds: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    typenames: dict[str, str]
    entry_bytes: dict[str, float]
    skipped: tuple[SkippedColumn, ...]
    skipped_sources: tuple[SkippedSource, ...] = ()


def inspect_sources(
    locations: Sequence[Location], spec: ConversionSpec, settings: Settings, spool: str, kept: KeptSource
) -> Inspection:
    """Open every source once and check that all hold the same columns.

    Under ``on_bad_source="skip"`` sources that cannot be opened are left out, and those that differ from most.

    Args:
        kept: gets a source that is the only one.

    Raises:
        SchemaError: a column is missing or of another type in some file, naming both, or a
            name in ``columns`` matches nothing.
        FormatError: no source holds an entry.
        NotFoundError, SourceError, CorruptDataError: a file cannot be opened.
    """
    skip = spec.on_bad_source == "skip"
    look = _Look(spec, settings, spool, kept if len(locations) == 1 else None)
    labels = [label for _, label in spec.sources]
    with ThreadPoolExecutor(_INSPECT_THREADS) as threads:
        tried = list(threads.map(look.try_at if skip else look.at, locations, labels))
    opened = _opened(tried)
    if not any(f.file.entries for f in opened):
        trees = ", ".join(f"{f.file.url} ({f.file.tree})" for f in opened[:3])
        raise FormatError(f"there are no entries to convert: {trees} {'is' if len(opened) == 1 else 'are'} empty")
    first = _most_common(opened, spec) if skip else opened[0]
    names = _choose(first.columns, spec)
    outcomes = [_check_alike(first, one, names) if isinstance(one, _Found) else str(one) for one in tried]
    if not skip and (reason := next(filter(None, outcomes), None)):
        raise SchemaError(reason)
    good = [one for one, reason in zip(tried, outcomes, strict=True) if isinstance(one, _Found) and not reason]
    bad = tuple(SkippedSource(url, label, r) for (url, label), r in zip(spec.sources, outcomes, strict=True) if r)
    skipped = _further_columns(first, good) + _repeated(first, names)
    return Inspection(
        locations=tuple(f.location for f in good),
        files=tuple(f.file for f in good),
        bounds=tuple(f.bounds for f in good),
        names=names,
        typenames=first.columns,
        entry_bytes=_largest([f.entry_bytes for f in good]),
        skipped=skipped,
        skipped_sources=bad,
    )


@dataclass(frozen=True)
class _Look:
    """One look into each source; ``kept`` gets it where it is the only one."""

    spec: ConversionSpec
    settings: Settings
    spool: str
    kept: KeptSource | None

    def at(self, location: Location, label: str | None) -> _Found:
        spec, spool = self.spec, spool_of(self.spool, location)
        with ExitStack() as stack:
            source = stack.enter_context(closing(open_source(location, spec.tree, self.settings, spool)))
            columns = source.columns
            selection = Selection(spec, list(columns))
            needed = {*_choose(columns, spec, f"{location.shown}: "), *selection.source_names}
            surely = selection.early_names if selection.selects else needed  # it may leave little of the others
            location = settle_location(location, source, surely, self.settings, spool)
            file = _describe(location, label, source)
            bounds, nbytes = tuple(source.boundaries(needed)), _entry_bytes(source, needed)
            if self.kept is not None:
                stack.pop_all()
                self.kept.leave(location, source)
        return _Found(location, file, dict(columns), bounds, nbytes, tuple(source.repeated))

    def try_at(self, location: Location, label: str | None) -> _Found | StorageringError:
        try:
            return self.at(location, label)
        except StorageringError as error:
            if not is_bad_source(error):
                raise
            return error


def _entry_bytes(source: Source, names: Iterable[str]) -> dict[str, float]:
    """Bytes that an entry of each column has on average, decoded where the file tells, else stored."""
    if source.entries < _TELLING_ENTRIES:
        return {}
    found = source.storage()
    sizes = {name: found[name].decoded_bytes or found[name].stored_bytes or 0 for name in names if name in found}
    return {name: size / source.entries for name, size in sizes.items()}


def _largest(found: Sequence[dict[str, float]]) -> dict[str, float]:
    most: dict[str, float] = {}
    for sizes in found:
        most |= {name: size for name, size in sizes.items() if size > most.get(name, 0.0)}
    return most


def _opened(tried: Sequence[_Found | StorageringError]) -> list[_Found]:
    opened = [one for one in tried if isinstance(one, _Found)]
    if not opened and isinstance(tried[0], StorageringError):
        if len(tried) == 1:
            raise tried[0]
        raise type(tried[0])(f"none of the {len(tried):,} sources can be converted; the first: {tried[0]}")
    return opened


def _most_common(found: Sequence[_Found], spec: ConversionSpec) -> _Found:
    """The first file with the columns that most files have."""
    columns = [frozenset((n, f.columns[n]) for n in _choose(f.columns, spec)) for f in found if f.file.entries]
    (most, _), *_ = Counter(columns).most_common(1)
    return next(f for f in found if most <= f.columns.items())


def _describe(location: Location, label: str | None, source: Source) -> SourceFile:
    """The file as the build will read it: what is fetched whole is compared with its checksum then."""
    checksum = location.checksum or source.checksum
    alone = all(not url for url, _ in location.friends)
    return SourceFile(
        url=location.shown,
        label=label,
        tree=source.tree,
        entries=source.entries,
        nbytes=source.nbytes,
        version=source.version,
        format=source.format,
        checksum=checksum,
        verified=(bool(checksum) and alone) or source.self_checked,
    )


def _choose(columns: dict[str, str], spec: ConversionSpec, where: str = "") -> tuple[str, ...]:
    for pattern in spec.columns or ():
        defined = any(fnmatchcase(name, pattern) for name, _ in spec.define)
        if not defined and not any(fnmatchcase(name, pattern) for name in columns):
            raise SchemaError(f"{where}--columns {pattern!r} matches no column{nearest_names(pattern, columns)}")
    kept = [n for n in columns if spec.columns is None or any(fnmatchcase(n, p) for p in spec.columns)]
    return tuple(n for n in kept if not any(fnmatchcase(n, p) for p in spec.exclude))


def _check_alike(first: _Found, other: _Found, names: Iterable[str]) -> str:
    """How the columns of a file differ from those of the first, '' if they do not."""
    for name in names:
        have, want = other.columns.get(name), first.columns[name]
        if have is None:
            near = nearest_names(name, other.columns)
            return (
                f"{other.file.url} has no column {name!r}, {first.file.url} has{near}; "
                f"convert without it: --exclude {name!r}"
            )
        if have != want:
            return f"column {name!r} is {have} in {other.file.url} and {want} in {first.file.url}"
    return ""


def _further_columns(first: _Found, found: Sequence[_Found]) -> tuple[SkippedColumn, ...]:
    extra = {n: f for f in reversed(found) for n in f.columns if n not in first.columns}
    return tuple(SkippedColumn(n, f.columns[n], "it is not in the first file", f.file.url) for n, f in extra.items())


def _repeated(first: _Found, names: Sequence[str]) -> tuple[SkippedColumn, ...]:
    reason = "another column of this name comes before it"
    return tuple(SkippedColumn(n, first.columns[n], reason, first.file.url) for n in first.repeated if n in names)


def without_source(inspection: Inspection, error: StorageringError, spec: ConversionSpec) -> Inspection:
    """The inspection without a source that turned out to be bad before its first entry was written.

    Raises:
        StorageringError: the error itself, if it must not be left out, or no entry would be left.
    """
    number = error.source
    if spec.on_bad_source == "fail" or number is None or not is_bad_source(error):
        raise error
    kept = [i for i in range(len(inspection.files)) if i != number]
    if not any(inspection.files[i].entries for i in kept):
        raise error
    bad = inspection.files[number]
    return replace(
        inspection,
        locations=tuple(inspection.locations[i] for i in kept),
        files=tuple(inspection.files[i] for i in kept),
        bounds=tuple(inspection.bounds[i] for i in kept),
        skipped_sources=(*inspection.skipped_sources, SkippedSource(bad.url, bad.label, str(error))),
    )


def without_columns(inspection: Inspection, reasons: dict[str, str], spec: ConversionSpec) -> Inspection:
    """The inspection without columns that turned out to be unreadable in the middle of a build.

    Raises:
        SchemaError: under ``on_bad_column="fail"``, or if an expression needs one of them.
    """
    for name, reason in reasons.items():
        if spec.on_bad_column == "fail" or name not in inspection.names:
            raise SchemaError(f"column {name!r} cannot be converted: {reason}")
    skipped = tuple(SkippedColumn(n, inspection.typenames.get(n, ""), why, "") for n, why in reasons.items())
    # In the order of the columns, whichever worker came upon one of them first.
    order = {name: number for number, name in enumerate(inspection.typenames)}
    skipped = tuple(sorted(inspection.skipped + skipped, key=lambda s: order.get(s.name, len(order))))
    names = tuple(n for n in inspection.names if n not in reasons)
    return replace(inspection, names=names, skipped=skipped)
