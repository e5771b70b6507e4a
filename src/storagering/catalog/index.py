"""The catalog file: a DuckDB index of other files, which may be lost at any time.

DuckDB 2.0 loses acknowledged commits when processes open, insert and close one file at the same time
(measured), and admits one writer or many readers. So every use is short, under a lock of our own, and
writers CHECKPOINT before they close. Loaders never come here.

Its tables come in domains, each in a module of its own, which brings them in line with the files that they tell of.
"""

from __future__ import annotations

import re
import secrets
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa

from storagering.cache.layout import Cache
from storagering.cache.root import make_folder
from storagering.catalog import accesses, logs, manifests, residency, trainings
from storagering.errors import CacheError, StorageringError
from storagering.files import (
    FileLock,
    disk_errors,
    list_directory,
    map_file,
    remove_file,
    rename_file,
    safe_join,
    write_new,
)
from storagering.modes import settle_mode
from storagering.types import sha256_hex

_Result = TypeVar("_Result")
_Work = Callable[[duckdb.DuckDBPyConnection], _Result]
_LOCK_SECONDS = 60.0
#: What says nothing about the catalog's contents.
_ENVIRONMENT = re.compile(r"no space left|quota|could not set lock|permission denied|read-only file system", re.I)
_NAME = "catalog.duckdb"
_BESIDE = ("", ".wal", ".wal.checkpoint", ".wal.recovery")
_COPY = "catalog-{}.duckdb"


@dataclass(frozen=True)
class Domain:
    """Some tables and what keeps them in line with their files.

    Attributes:
        tables: name -> columns with DuckDB's types; a name that begins with ``_`` is hidden from queries.
        enter: brings the tables in line, inside the caller's transaction; returns how many things changed.
        views: name -> SELECT.
    """

    name: str
    tables: Mapping[str, str]
    enter: Callable[[duckdb.DuckDBPyConnection, Cache], int]
    views: Mapping[str, str] = field(default_factory=dict)


#: In this order: a domain may read the tables of those before it.
DOMAINS = (
    Domain("manifests", manifests.TABLES, manifests.enter, manifests.VIEWS),
    Domain("residency", residency.TABLES, residency.enter),
    Domain("accesses", accesses.TABLES, accesses.enter),
    Domain("trainings", trainings.TABLES, trainings.enter),
    Domain("logs", logs.TABLES, logs.enter, logs.VIEWS),
)


class _OtherReleaseError(duckdb.CatalogException):
    """The tables are those of another release: nothing is wrong with them."""


def index_dataset(cache: Cache, name: str) -> None:
    """Enter one dataset into the catalog as it is now, replacing what it said of that name.

    Raises:
        CacheError: the catalog cannot be written (it enters the dataset when it next can).
    """
    _under_lock(cache, lambda connection: manifests.enter_dataset(connection, cache, name))


def sync_catalog(cache: Cache) -> dict[str, int]:
    """Bring the catalog in line with the files that it tells of.

    Returns:
        Domain -> how many things changed: ``manifests`` counts datasets entered or dropped.
    """
    return _under_lock(cache, lambda connection: _sync(cache, connection))


def rebuild_catalog(cache: Cache) -> dict[str, int]:
    """Make the catalog anew.

    Returns:
        As `sync_catalog`.
    """
    with FileLock(cache.root / "catalog.lock").held(_LOCK_SECONDS):
        _drop(cache)
        return _with_repair(cache, lambda connection: _sync(cache, connection))


def use_catalog(cache: Cache, work: _Work[_Result]) -> _Result:
    """Do something with the catalog, in line with all files, while nobody else uses it.

    Where it cannot be written (the disk is full or read-only, another program holds it) it is made in memory.
    """

    def synced(connection: duckdb.DuckDBPyConnection) -> _Result:
        _sync(cache, connection)
        return work(connection)

    try:
        return _under_lock(cache, synced)
    except CacheError:
        with closing(_in_memory(cache)) as connection:
            return work(connection)


def open_snapshot(cache: Cache) -> duckdb.DuckDBPyConnection:
    """The catalog as it is now, in line with all files: a copy without a name, which nobody has to wait for."""
    try:
        with FileLock(cache.root / "catalog.lock").held(_LOCK_SECONDS):
            _with_repair(cache, lambda connection: _sync(cache, connection))
            return _open_copy(cache)
    except (StorageringError, OSError, duckdb.Error):
        return _in_memory(cache)


def _open_copy(cache: Cache) -> duckdb.DuckDBPyConnection:
    for left in list_directory(cache.root, _COPY.format("*")):  # by a process that died just here
        remove_file(left)
    path = catalog_path(cache)
    copy = safe_join(cache.root, _COPY.format(secrets.token_hex(8)))
    try:
        write_new(copy, map_file(path, path.stat().st_size), durable=False)
        return _connect(str(copy), read_only=True)
    finally:
        with suppress(CacheError):
            remove_file(copy)


def catalog_path(cache: Cache) -> Path:
    """The DuckDB file."""
    return cache.root / _NAME


def read_tables(connection: duckdb.DuckDBPyConnection, names: Iterable[str]) -> dict[str, pa.Table]:
    """Whole tables of the catalog."""
    return {name: connection.sql(f"SELECT * FROM {name}").to_arrow_table() for name in names}  # noqa: S608  (ours)


def catalog_tables() -> dict[str, str]:
    """The tables that queries see, and their columns."""
    return {name: columns for d in DOMAINS for name, columns in d.tables.items() if not name.startswith("_")}


def catalog_views() -> dict[str, str]:
    """The views, and their queries."""
    return {name: query for domain in DOMAINS for name, query in domain.views.items()}


def make_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Add the views to a database that has the tables."""
    for name, query in catalog_views().items():
        connection.execute(f"CREATE VIEW {name} AS {query}")


def make_tables(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, str]) -> None:
    """Add tables without rows."""
    for name, columns in tables.items():
        connection.execute(f"CREATE TABLE {name} ({columns})")


def _sync(cache: Cache, connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    return {domain.name: domain.enter(connection, cache) for domain in DOMAINS}


def _in_memory(cache: Cache) -> duckdb.DuckDBPyConnection:
    connection = _connect(":memory:")
    try:
        _prepare(connection)
        _sync(cache, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _under_lock(cache: Cache, work: _Work[_Result]) -> _Result:
    with FileLock(cache.root / "catalog.lock").held(_LOCK_SECONDS):
        return _with_repair(cache, work)


def _with_repair(cache: Cache, work: _Work[_Result]) -> _Result:
    """Do something in one transaction; a catalog that DuckDB refuses is put aside and made anew first."""
    try:
        return _transact(cache, work)
    except duckdb.Error as error:
        if not _ENVIRONMENT.search(str(error)):
            _put_aside(cache, error)
            with suppress(duckdb.Error):
                _transact(cache, lambda connection: _sync(cache, connection))
                return _transact(cache, work)
        raise CacheError(f"cannot write {catalog_path(cache)}: {error}") from error


def _transact(cache: Cache, work: _Work[_Result]) -> _Result:
    path, wal = catalog_path(cache), catalog_path(cache).with_name(f"{_NAME}.wal")
    for file in _files(cache):
        if file.is_symlink():  # to a database from elsewhere, or a file that must stay as it is
            raise CacheError(f"{file} is a link, and none is followed inside a cache: remove it with 'rm {file}'")
    with closing(_connect(str(path))) as connection:
        with disk_errors(path):
            settle_mode(path)  # by name: closing a descriptor of it would free DuckDB's lock
        connection.begin()
        _prepare(connection)
        result = work(connection)
        connection.commit()
        written = wal.exists()  # just now, or by a writer that died
        if written:
            connection.execute("CHECKPOINT")
    if written:  # what DuckDB could not read in it would stay there
        remove_file(wal)
    return result


def _prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables in a new database; see that those of an old one are this release's."""
    shape = sha256_hex(repr([(sorted(d.tables.items()), sorted(d.views.items())) for d in DOMAINS]).encode())
    found = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not found:
        connection.execute("CREATE TABLE _catalog (shape VARCHAR)")
        connection.execute("INSERT INTO _catalog VALUES (?)", [shape])
        make_tables(connection, {name: columns for d in DOMAINS for name, columns in d.tables.items()})
        make_views(connection)
    elif "_catalog" not in found:
        raise duckdb.CatalogException("its tables are not the catalog's")
    elif connection.execute("SELECT shape FROM _catalog").fetchall() != [(shape,)]:
        raise _OtherReleaseError("its tables are of another release")


def _drop(cache: Cache) -> None:
    for path in _files(cache):
        if path.is_dir() and not path.is_symlink():
            _move(cache, path, f"-{secrets.token_hex(4)}")
        else:
            remove_file(path)


def _put_aside(cache: Cache, error: duckdb.Error) -> None:
    if isinstance(error, _OtherReleaseError):
        _drop(cache)
        return
    aside = f".corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    for path in _files(cache):
        if path.exists():
            _move(cache, path, aside)
    warnings.warn(
        f"the catalog could not be read ({str(error).splitlines()[0]}): "
        f"put aside as *{aside}, rebuilt from the manifests",
        stacklevel=5,
    )


def _move(cache: Cache, path: Path, suffix: str) -> None:
    """Out of the way; a folder into quarantine, as it cannot be ours."""
    folder = cache.root
    if path.is_dir():
        folder = cache.root / "quarantine"
        make_folder(folder, shared=cache.settings.shared)
    rename_file(path, safe_join(folder, f"{path.name}{suffix}"))


def _files(cache: Cache) -> list[Path]:
    """The catalog and what DuckDB puts beside it."""
    return [catalog_path(cache).with_name(f"{_NAME}{suffix}") for suffix in _BESIDE]


def _connect(path: str, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "threads": 1,
        "temp_directory": "",
    }
    connection = duckdb.connect(path, read_only=read_only, config=config)
    connection.execute("SET enable_progress_bar = false")  # it would go to stdout, from 'python -c' and prompts
    return connection
