"""SQL over the catalog and over the data, in a sandbox.

A query runs in memory, on a copy of the catalog's tables; datasets are streams that only the query's own
columns are read from. It cannot touch files, the network, the caller's variables or the settings.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.layout import Cache, open_cache
from storagering.catalog.index import reading, table_names
from storagering.catalog.streams import DatasetStream, empty_table, sql_columns
from storagering.config import Settings, load_settings
from storagering.errors import LimitExceededError, SpecError

_ROWS_PER_BATCH = 100_000


def sql(query: str, *, settings: Settings | None = None) -> pa.Table:
    """Run a query over the catalog (``datasets``, ``columns``, ``chunks``, ``source_files``,
    ``skipped_columns``) and over datasets by their names.

    Raises:
        SpecError: the query is wrong, forbidden, or takes too long.
        LimitExceededError: the result has more rows than ``sql_max_rows``.
        CorruptDataError: a chunk that it reads is damaged.
    """
    settings = settings or load_settings()
    cache = open_cache(settings)
    with _sandbox(cache, settings) as connection, _stopped_after(settings.sql_timeout_seconds, connection):
        streams = _bind_datasets(connection, query, cache, settings)
        try:
            return _fetch(connection, query, settings)
        except duckdb.InterruptException:
            raise SpecError(f"the query was stopped after {settings.sql_timeout_seconds:g} s") from None
        except duckdb.Error as error:
            for stream in streams:
                if stream.error is not None:
                    raise stream.error from None
            raise _explain(error, cache) from None


@contextmanager
def _stopped_after(seconds: float, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _sandbox(cache: Cache, settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": settings.threads,
            "memory_limit": f"{settings.sql_memory_bytes}B",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        },
    )
    try:
        with reading(cache) as path:
            quoted = str(path).replace("'", "''")
            connection.execute(f"ATTACH '{quoted}' AS index (READ_ONLY)")
            for table in table_names():
                hidden = " EXCLUDE (stamp)" if table == "datasets" else ""
                connection.execute(f"CREATE TABLE {table} AS SELECT *{hidden} FROM index.{table}")  # noqa: S608  (fixed names)
            connection.execute("DETACH index")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    finally:
        connection.close()


def _bind_datasets(
    connection: duckdb.DuckDBPyConnection, query: str, cache: Cache, settings: Settings
) -> list[DatasetStream]:
    """Register the datasets that the query may name, with the columns that it needs."""
    text = query.lower()
    datasets = [open_dataset(name, cache=cache) for name in cache.names() if name.lower() in text]
    visible = {d.name: sql_columns(d) for d in datasets}
    for dataset in datasets:
        connection.register(dataset.name, empty_table(visible[dataset.name]))
    needed = _projected(connection, query) if datasets else set()
    streams = []
    for dataset in datasets:
        columns = [c for c in visible[dataset.name] if needed is None or c.name in needed]
        streams.append(DatasetStream(dataset, columns or _cheapest(dataset, visible[dataset.name]), settings.threads))
        connection.unregister(dataset.name)
        connection.register(dataset.name, streams[-1])
    return streams


def _cheapest(dataset: Dataset, visible: list[Any]) -> list[Any]:
    """One column to count entries by."""
    order = {"flat": 0, "string": 1}
    if not visible:
        raise SpecError(f"no column of {dataset.name!r} has a type that SQL knows")
    return [min(visible, key=lambda c: (order.get(c.kind, 2), c.dtype))]


def _projected(connection: duckdb.DuckDBPyConnection, query: str) -> set[str] | None:
    """Names of the columns that the query's scans read, as DuckDB's planner sees it; None if it cannot say."""
    try:
        if [s.type for s in connection.extract_statements(query)] != [duckdb.StatementType.SELECT]:
            return None
        plan = connection.execute(f"EXPLAIN (FORMAT json) {query}").fetchall()
        scans = [scan for row in plan for root in json.loads(row[1]) for scan in _scans(root)]
    except (duckdb.Error, LookupError):
        return None  # wrong, which running it will tell, or of a kind that has no plan
    return {name for scan in scans for name in scan} if scans else None


def _scans(node: dict[str, Any]) -> Iterator[list[str]]:
    """The column names of every scan of ours in a plan."""
    if "ARROW_SCAN" in node.get("name", ""):
        names = node.get("extra_info", {}).get("Projections", [])
        yield [names] if isinstance(names, str) else names
    for child in node.get("children", []):
        yield from _scans(child)


def _fetch(connection: duckdb.DuckDBPyConnection, query: str, settings: Settings) -> pa.Table:
    relation: Any = connection.sql(query)
    if relation is None:  # a statement without a result
        return pa.table({})
    reader = relation.to_arrow_reader(_ROWS_PER_BATCH)
    batches, rows = [], 0
    for batch in reader:
        rows += batch.num_rows
        if rows > settings.sql_max_rows:
            raise LimitExceededError(
                f"the result has more than {settings.sql_max_rows:,} rows; "
                "aggregate, add LIMIT, or set STORAGERING_SQL_MAX_ROWS"
            )
        batches.append(batch)
    return pa.Table.from_batches(batches, reader.schema)


def _explain(error: duckdb.Error, cache: Cache) -> SpecError:
    text = str(error).strip()
    known = ", ".join(cache.names()[:20])
    hint = f"\ndatasets: {known or 'none yet'}; tables: {', '.join(table_names())}" if "does not exist" in text else ""
    return SpecError(text + hint)
