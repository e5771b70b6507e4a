"""What is in a file: its tables and columns, their types and sizes, from metadata alone."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

from storagering.config import Settings, load_settings
from storagering.formats.readers import open_source
from storagering.formats.source import Location, SeveralTablesError, Source, Storage


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """One column of a file.

    Attributes:
        typename: its type in the file's own words.
        doc: its title, '' if it says nothing.
        storage: how it is stored; unknown sizes are None.
    """

    name: str
    typename: str
    doc: str
    storage: Storage


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table of a file: a tree, an RNTuple, a dataset, or the file itself.

    Attributes:
        name: '' where the file is one table.
        format: ``ttree``, ``rntuple``, ``parquet``, ...
        bounds: entries from 0 to ``entries`` at which clusters (or row groups, chunks) of all columns begin.
        self_checked: whether all that is read carries checksums, which are compared.
    """

    name: str
    title: str
    format: str
    entries: int
    bounds: tuple[int, ...]
    self_checked: bool
    columns: tuple[ColumnReport, ...]

    @property
    def stored_bytes(self) -> int | None:
        """Size of all columns in the file, None if unknown."""
        return _sum(c.storage.stored_bytes for c in self.columns)

    @property
    def decoded_bytes(self) -> int | None:
        """Size of all columns unpacked, None if unknown."""
        return _sum(c.storage.decoded_bytes for c in self.columns)

    @property
    def clusters(self) -> tuple[int, ...]:
        """Entries in each cluster."""
        return tuple(stop - start for start, stop in pairwise(self.bounds))


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file.

    Attributes:
        url: where it is, without secrets.
        version: token of its state (etag or modification time), '' if unknown.
        checksum: whole-file checksum that was found right, '' if none was compared.
    """

    url: str
    nbytes: int
    version: str
    checksum: str
    tables: tuple[TableReport, ...]


def inspect(source: Location | str, *, tree: str | None = None, settings: Settings | None = None) -> FileReport:
    """Tell what a file holds without reading its data.

    Args:
        source: path or URL.
        tree: only this table; all of them without it.

    Raises:
        NotFoundError: no such file or table.
        FormatError: a format that nothing here reads, or a file without tables.
        SourceError: the server failed.
    """
    location = Location(source) if isinstance(source, str) else source
    settings = settings or load_settings()
    try:
        opened = open_source(location, tree, settings)
    except SeveralTablesError as error:
        names = list(error.tables)
    else:
        with closing(opened):
            return _report_file(location, opened, (_report_table(opened),))
    tables = []
    for name in names:
        with closing(open_source(location, name, settings)) as opened:
            tables.append(_report_table(opened))
    return _report_file(location, opened, tuple(tables))


def _report_file(location: Location, source: Source, tables: tuple[TableReport, ...]) -> FileReport:
    return FileReport(location.shown, source.nbytes, source.version, source.checksum, tables)


def _report_table(source: Source) -> TableReport:
    storage = source.storage()
    columns = tuple(
        ColumnReport(name, typename, source.doc(name), storage.get(name, Storage()))
        for name, typename in source.columns.items()
    )
    bounds = tuple(source.boundaries(source.columns))
    return TableReport(source.tree, source.title, source.format, source.entries, bounds, source.self_checked, columns)


def _sum(sizes: Iterable[int | None]) -> int | None:
    """None if one is unknown: a part of the whole would be taken for it."""
    known = list(sizes)
    return None if None in known or not known else sum(size or 0 for size in known)
