"""The catalog file: a DuckDB index of the manifests, which may be lost at any time.

DuckDB 2.0 loses acknowledged commits when processes open, insert and close one file at the same time
(measured), and admits one writer or many readers. So every use is short, under a lock of our own, and
writers CHECKPOINT before they close. Loaders never come here.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from storagering.cache.layout import Cache
from storagering.cache.manifest import MANIFEST_NAME
from storagering.errors import CacheError, StorageringError
from storagering.files import FileLock, rename_file
from storagering.types import Manifest

_LOCK_SECONDS = 60.0
_STATISTICS = ("count", "min", "max", "mean", "std", "nan_count", "inf_count", "zero_count")

_TABLES = {
    "datasets": """name VARCHAR, num_entries BIGINT, num_columns BIGINT, num_chunks BIGINT, nbytes BIGINT,
        raw_bytes BIGINT, format VARCHAR, profile VARCHAR, classes VARCHAR[], selection VARCHAR, digest VARCHAR,
        spec_key VARCHAR, created TIMESTAMP WITH TIME ZONE, software VARCHAR, stamp VARCHAR""",
    "columns": """dataset VARCHAR, position BIGINT, name VARCHAR, dtype VARCHAR, kind VARCHAR, unit VARCHAR,
        doc VARCHAR, count BIGINT, min DOUBLE, max DOUBLE, mean DOUBLE, std DOUBLE, nan_count BIGINT,
        inf_count BIGINT, zero_count BIGINT""",
    "chunks": """dataset VARCHAR, chunk BIGINT, start BIGINT, stop BIGINT, file VARCHAR, nbytes BIGINT,
        raw_bytes BIGINT, digest VARCHAR""",
    "source_files": """dataset VARCHAR, source BIGINT, url VARCHAR, label VARCHAR, tree VARCHAR, entries BIGINT,
        nbytes BIGINT, version VARCHAR""",
    "skipped_columns": "dataset VARCHAR, name VARCHAR, typename VARCHAR, reason VARCHAR, source VARCHAR",
}


def index_dataset(cache: Cache, manifest: Manifest) -> None:
    """Enter one dataset into the catalog, replacing what it said of that name."""
    with _writing(cache) as connection:
        _forget(connection, manifest.name)
        _insert(connection, manifest, _stat(cache, manifest.name))


def sync_catalog(cache: Cache) -> int:
    """Bring the catalog in line with the published manifests: those of crashed processes, those removed.

    Returns:
        Number of datasets entered or dropped.
    """
    with _writing(cache) as connection:
        return _sync(cache, connection)


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


@contextmanager
def reading(cache: Cache) -> Iterator[Path]:
    """The catalog's path, in line with the manifests, while no other process writes it."""
    sync_catalog(cache)
    with _locked(cache):
        yield catalog_path(cache)


def table_names() -> tuple[str, ...]:
    """Names of the catalog's tables."""
    return tuple(_TABLES)


@contextmanager
def _locked(cache: Cache) -> Iterator[None]:
    with FileLock(cache.root / "catalog.lock").held(_LOCK_SECONDS):
        yield


@contextmanager
def _writing(cache: Cache) -> Iterator[duckdb.DuckDBPyConnection]:
    with _locked(cache):
        connection = _open(cache)
        try:
            connection.begin()
            yield connection
            connection.commit()
            connection.execute("CHECKPOINT")
        except duckdb.Error as error:
            raise CacheError(f"{catalog_path(cache)}: {error}; 'storagering catalog rebuild' makes it anew") from error
        finally:
            connection.close()


def _open(cache: Cache) -> duckdb.DuckDBPyConnection:
    """The catalog, writable; one that DuckDB refuses is put aside and rebuilt from the manifests."""
    try:
        return _connect(catalog_path(cache))
    except duckdb.Error as error:
        aside = f".corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
        for path in (catalog_path(cache), _wal(cache)):
            if path.exists():
                rename_file(path, path.with_name(path.name + aside))
        warnings.warn(
            f"the catalog could not be opened ({str(error).splitlines()[0]}): "
            f"put aside as *{aside}, rebuilt from the manifests",
            stacklevel=2,
        )
        connection = _connect(catalog_path(cache))
        _sync(cache, connection)
        return connection


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(path), config={"autoinstall_known_extensions": False, "threads": 1})
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
        with suppress(FileNotFoundError):  # removed since it was listed
            present[name] = _stat(cache, name)
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
        "digest": manifest.digest,
        "spec_key": manifest.spec_key,
        "created": datetime.fromtimestamp(found.st_mtime, UTC),
        "software": manifest.software,
        "stamp": _stamp(found),
    }
    columns = []
    for position, (column, numbers) in enumerate(zip(manifest.schema.columns, manifest.statistics, strict=True)):
        row: dict[str, Any] = {"dataset": name, "position": position, "name": column.name, "dtype": column.dtype}
        row |= {"kind": column.kind, "unit": column.unit, "doc": column.doc}
        row |= {key: getattr(numbers, key) if numbers else None for key in _STATISTICS}
        columns.append(row)
    fields = ("start", "stop", "file", "nbytes", "raw_bytes", "digest")
    chunks = [
        {"dataset": name, "chunk": n, **{f: getattr(c, f) for f in fields}} for n, c in enumerate(manifest.chunks)
    ]
    sources = [{"dataset": name, "source": n, **asdict(s)} for n, s in enumerate(manifest.sources)]
    skipped = [{"dataset": name, **asdict(s)} for s in manifest.skipped]
    return {
        "datasets": [dataset],
        "columns": columns,
        "chunks": chunks,
        "source_files": sources,
        "skipped_columns": skipped,
    }
