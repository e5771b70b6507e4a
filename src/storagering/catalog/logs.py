"""The catalog's domain of imported grid logs: a table a kind, and views that join them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import duckdb
import pyarrow as pa

from storagering.cache.layout import Cache
from storagering.catalog.gridlogs.registry import KINDS
from storagering.catalog.gridlogs.store import list_logs, read_log
from storagering.catalog.log_views import INSIGHTS, JOINED
from storagering.errors import CorruptDataError

_FILES = "log_files"

#: ``file`` is the digest of the file that a row came from.
TABLES: Mapping[str, str] = {
    _FILES: "kind VARCHAR, digest VARCHAR, source VARCHAR, imported VARCHAR, software VARCHAR, records BIGINT, "
    "bad BIGINT",
    **{f"log_{kind.name}": ", ".join([*(one.sql for one in kind.fields), "file VARCHAR"]) for kind in KINDS.values()},
}
VIEWS: Mapping[str, str] = {**JOINED, **INSIGHTS}


@contextmanager
def logs_in_memory(cache: Cache) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database of the imported logs alone, in line with their files."""
    with closing(duckdb.connect(":memory:", config={"autoinstall_known_extensions": False})) as connection:
        for name, columns in TABLES.items():
            connection.execute(f"CREATE TABLE {name} ({columns})")
        for name, query in VIEWS.items():
            connection.execute(f"CREATE VIEW {name} AS {query}")
        enter(connection, cache)
        yield connection


def enter(connection: duckdb.DuckDBPyConnection, cache: Cache) -> int:
    """Bring the tables in line with the imported files; in the caller's transaction.

    Returns:
        Number of files entered or dropped. One that is damaged is left out, with a warning.
    """
    rows = connection.execute(f"SELECT kind, digest FROM {_FILES}").fetchall()  # noqa: S608  (fixed names)
    changed = 0
    for kind in KINDS:
        known = {digest for name, digest in rows if name == kind}
        present = list_logs(cache, kind)
        for digest in known - present.keys():
            _forget(connection, kind, digest)
            changed += 1
        for digest in present.keys() - known:
            changed += _enter_file(connection, kind, digest, present[digest])
    return changed


def _enter_file(connection: duckdb.DuckDBPyConnection, kind: str, digest: str, path: Path) -> bool:
    try:
        log, batches = read_log(path)
        for batch in batches:
            marked = batch.append_column("file", pa.array([digest] * len(batch), pa.string()))
            _insert(connection, f"log_{kind}", marked)
    except CorruptDataError as error:
        _forget(connection, kind, digest)
        warnings.warn(f"imported logs are left out of the catalog: {error}", stacklevel=2)
        return False
    _insert(connection, _FILES, pa.Table.from_pylist([asdict(log)]))
    return True


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pa.Table | pa.RecordBatch) -> None:
    """By name: a file written by an earlier release may lack a column, one of a later have more."""
    columns = {name for name, *_ in connection.execute(f"DESCRIBE {table}").fetchall()}
    known = rows.select([name for name in rows.schema.names if name in columns])
    connection.register("incoming", known if isinstance(known, pa.Table) else pa.Table.from_batches([known]))
    connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")  # noqa: S608  (fixed names)
    connection.unregister("incoming")


def _forget(connection: duckdb.DuckDBPyConnection, kind: str, digest: str) -> None:
    connection.execute(f"DELETE FROM log_{kind} WHERE file = ?", [digest])  # noqa: S608  (fixed names)
    connection.execute(f"DELETE FROM {_FILES} WHERE kind = ? AND digest = ?", [kind, digest])  # noqa: S608
