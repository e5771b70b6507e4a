"""The catalog file: a DuckDB index of the manifests, which may be lost at any time.

DuckDB 2.0 loses acknowledged commits when processes open, insert and close one file at the same time
(measured), and admits one writer or many readers. So every use is short, under a lock of our own, and
writers CHECKPOINT before they close. Loaders never come here.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from storagering.cache.layout import Cache
from storagering.cache.manifest import MANIFEST_NAME
from storagering.errors import CacheError, NotFoundError, StorageringError
from storagering.files import FileLock, disk_errors, rename_file
from storagering.modes import settle_mode
from storagering.types import Manifest

_Result = TypeVar("_Result")
_LOCK_SECONDS = 60.0
#: What says nothing about the catalog's contents.
_ENVIRONMENT = re.compile(r"no space left|quota|could not set lock|permission denied|read-only file system", re.I)
_STATISTICS = ("count", "min", "max", "mean", "std", "nan_count", "inf_count", "zero_count")

_TABLES = {
    "datasets": """name VARCHAR, num_entries BIGINT, num_columns BIGINT, num_chunks BIGINT, nbytes BIGINT,
        raw_bytes BIGINT, format VARCHAR, profile VARCHAR, classes VARCHAR[], selection VARCHAR, mix BIGINT,
        digest VARCHAR, version BIGINT, parent VARCHAR, spec_key VARCHAR, created TIMESTAMP WITH TIME ZONE,
        software VARCHAR, stamp VARCHAR""",
    "columns": """dataset VARCHAR, position BIGINT, name VARCHAR, dtype VARCHAR, kind VARCHAR, unit VARCHAR,
        doc VARCHAR, mantissa_bits BIGINT, count BIGINT, min DOUBLE, max DOUBLE, mean DOUBLE, std DOUBLE,
        nan_count BIGINT, inf_count BIGINT, zero_count BIGINT""",
    "chunks": """dataset VARCHAR, chunk BIGINT, start BIGINT, stop BIGINT, file VARCHAR, nbytes BIGINT,
        raw_bytes BIGINT, digest VARCHAR""",
    "source_files": """dataset VARCHAR, source BIGINT, url VARCHAR, label VARCHAR, tree VARCHAR, entries BIGINT,
        nbytes BIGINT, version VARCHAR, format VARCHAR, checksum VARCHAR, verified BOOLEAN""",
    "skipped_sources": "dataset VARCHAR, url VARCHAR, label VARCHAR, reason VARCHAR",
    "skipped_columns": "dataset VARCHAR, name VARCHAR, typename VARCHAR, reason VARCHAR, source VARCHAR",
}


def index_dataset(cache: Cache, name: str) -> None:
    """Enter one dataset into the catalog as it is now, replacing what it said of that name.

    Raises:
        CacheError: the catalog cannot be written (it enters the dataset when it next can).
    """

    def enter(connection: duckdb.DuckDBPyConnection) -> None:
        _forget(connection, name)
        with suppress(FileNotFoundError, NotFoundError):  # removed since it was published
            found = _stat(cache, name)  # first: should a newer manifest follow, the next sync sees it
            _insert(connection, cache.manifest(name), found)

    _write(cache, enter)


def sync_catalog(cache: Cache) -> int:
    """Bring the catalog in line with the published manifests: those of crashed processes, those removed.

    Returns:
        Number of datasets entered or dropped.
    """
    return _write(cache, lambda connection: _sync(cache, connection))


def rebuild_catalog(cache: Cache) -> int:
    """Make the catalog anew from the manifests.

    Returns:
        Number of datasets entered.
    """
    with _locked(cache):
        for path in (catalog_path(cache), _wal(cache)):
            path.unlink(missing_ok=True)
    return sync_catalog(cache)


def catalog_path(cache: Cache) -> Path:
    """The DuckDB file."""
    return cache.root / "catalog.duckdb"


def read_catalog(cache: Cache) -> dict[str, pa.Table]:
    """All tables of the catalog, in line with the manifests."""

    def read(connection: duckdb.DuckDBPyConnection) -> dict[str, pa.Table]:
        _sync(cache, connection)
        return {
            t: connection.sql(f"SELECT * FROM {t}").to_arrow_table()  # noqa: S608  (fixed names)
            for t in _TABLES
        }

    try:
        return _write(cache, read)
    except CacheError:  # the disk is full or read-only: the manifests alone will do
        with closing(_connect(":memory:")) as connection:
            return read(connection)


def table_names() -> tuple[str, ...]:
    """Names of the catalog's tables."""
    return tuple(_TABLES)


@contextmanager
def _locked(cache: Cache) -> Iterator[None]:
    with FileLock(cache.root / "catalog.lock").held(_LOCK_SECONDS):
        yield


def _write(cache: Cache, work: Callable[[duckdb.DuckDBPyConnection], _Result]) -> _Result:
    """Do something in one transaction; a catalog that DuckDB refuses is put aside and made anew first."""
    with _locked(cache):
        try:
            return _transact(cache, work)
        except duckdb.Error as error:
            if not _ENVIRONMENT.search(str(error)):
                _put_aside(cache, error)
                with suppress(duckdb.Error):
                    _transact(cache, lambda connection: _sync(cache, connection))
                    return _transact(cache, work)
            raise CacheError(f"cannot write {catalog_path(cache)}: {error}") from error


def _transact(cache: Cache, work: Callable[[duckdb.DuckDBPyConnection], _Result]) -> _Result:
    for path in (catalog_path(cache), _wal(cache)):
        if path.is_symlink():  # to a database from elsewhere, or a file that must stay as it is
            raise CacheError(f"{path} is a link, and none is followed inside a cache: remove it with 'rm {path}'")
    with closing(_connect(str(catalog_path(cache)))) as connection:
        with disk_errors(catalog_path(cache)):
            settle_mode(catalog_path(cache))  # by name: closing a descriptor of it would free DuckDB's lock
        connection.begin()
        result = work(connection)
        connection.commit()
        connection.execute("CHECKPOINT")
        return result


def _put_aside(cache: Cache, error: duckdb.Error) -> None:
    aside = f".corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    for path in (catalog_path(cache), _wal(cache)):
        if path.exists():
            rename_file(path, path.with_name(path.name + aside))
    warnings.warn(
        f"the catalog could not be read ({str(error).splitlines()[0]}): "
        f"put aside as *{aside}, rebuilt from the manifests",
        stacklevel=4,
    )


def _connect(path: str) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(path, config={"autoinstall_known_extensions": False, "threads": 1})
    try:
        for table, columns in _TABLES.items():
            connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
            connection.execute(f"SELECT * FROM {table} LIMIT 0")  # noqa: S608  (fixed names)
        known = connection.execute(
            "SELECT table_name, count(*) FROM duckdb_columns() WHERE NOT internal GROUP BY 1"
        ).fetchall()
        if {(t, len(c.split(","))) for t, c in _TABLES.items()} - set(known):
            raise duckdb.CatalogException("its tables are of another version")
    except BaseException:
        connection.close()
        raise
    return connection


def _wal(cache: Cache) -> Path:
    return catalog_path(cache).with_name("catalog.duckdb.wal")


def _stat(cache: Cache, name: str) -> os.stat_result:
    return (cache.path(name) / MANIFEST_NAME).stat()


def _stamp(found: os.stat_result) -> str:
    """Changes whenever another manifest is published under the name."""
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def _sync(cache: Cache, connection: duckdb.DuckDBPyConnection) -> int:
    known = dict(connection.execute("SELECT name, stamp FROM datasets").fetchall())
    present = {}
    for name in cache.names():
        try:
            present[name] = _stat(cache, name)
        except FileNotFoundError:  # removed since it was listed
            continue
        except OSError as error:
            warnings.warn(f"dataset {name!r} is left out of the catalog: {error.strerror}", stacklevel=2)
    changed = [name for name in {**known, **present} if name not in present or known.get(name) != _stamp(present[name])]
    for name in changed:
        _forget(connection, name)
        if name in present:
            try:
                _insert(connection, cache.manifest(name), present[name])
            except StorageringError as error:
                warnings.warn(f"dataset {name!r} is left out of the catalog: {error}", stacklevel=2)
    return len(changed)


def _forget(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    for table in _TABLES:
        key = "name" if table == "datasets" else "dataset"
        connection.execute(f"DELETE FROM {table} WHERE {key} = ?", [name])  # noqa: S608  (names of _TABLES only)


def _insert(connection: duckdb.DuckDBPyConnection, manifest: Manifest, found: os.stat_result) -> None:
    for table, rows in _rows(manifest, found).items():
        if rows:
            names = list(rows[0])
            incoming = pa.Table.from_pylist(rows, pa.schema([(n, _kind([r[n] for r in rows])) for n in names]))
            connection.register("incoming", incoming)
            connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")  # noqa: S608  (as above)
            connection.unregister("incoming")


def _kind(values: list[Any]) -> pa.DataType:
    known = [v for v in values if v is not None]
    if known and isinstance(known[0], list):
        return pa.list_(pa.string())
    return pa.infer_type(known) if known else pa.string()


def _rows(manifest: Manifest, found: os.stat_result) -> dict[str, list[dict[str, Any]]]:
    name, spec = manifest.name, manifest.spec
    dataset = {
        "name": name,
        "num_entries": manifest.num_entries,
        "num_columns": len(manifest.schema.columns),
        "num_chunks": len(manifest.chunks),
        "nbytes": sum(c.nbytes for c in manifest.chunks),
        "raw_bytes": sum(c.raw_bytes for c in manifest.chunks),
        "format": spec.format,
        "profile": spec.profile,
        "classes": list(spec.classes),
        "selection": spec.where,
        "mix": spec.mix,
        "digest": manifest.digest,
        "version": manifest.version,
        "parent": manifest.parent,
        "spec_key": manifest.spec_key,
        "created": datetime.fromtimestamp(found.st_mtime, UTC),
        "software": manifest.software,
        "stamp": _stamp(found),
    }
    columns = []
    for position, (column, numbers) in enumerate(zip(manifest.schema.columns, manifest.statistics, strict=True)):
        row: dict[str, Any] = {"dataset": name, "position": position, "name": column.name, "dtype": column.dtype}
        row |= {"kind": column.kind, "unit": column.unit, "doc": column.doc, "mantissa_bits": column.mantissa_bits}
        row |= {key: getattr(numbers, key) if numbers else None for key in _STATISTICS}
        columns.append(row)
    fields = ("start", "stop", "file", "nbytes", "raw_bytes", "digest")
    chunks = [
        {"dataset": name, "chunk": n, **{f: getattr(c, f) for f in fields}} for n, c in enumerate(manifest.chunks)
    ]
    sources = [{"dataset": name, "source": n, **asdict(s)} for n, s in enumerate(manifest.sources)]
    skipped = [{"dataset": name, **asdict(s)} for s in manifest.skipped]
    bad = [{"dataset": name, **asdict(s)} for s in manifest.skipped_sources]
    return {
        "datasets": [dataset],
        "columns": columns,
        "chunks": chunks,
        "source_files": sources,
        "skipped_columns": skipped,
        "skipped_sources": bad,
    }
