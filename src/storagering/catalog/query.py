"""SQL over the catalog and over the data, in a sandbox.

A query runs in memory, on a copy of the catalog's tables; datasets are streams that only the query's own
columns are read from. It cannot touch files, the network, the caller's variables or the settings.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.layout import Cache, open_cache
from storagering.catalog.index import read_catalog, table_names
from storagering.catalog.streams import DatasetStream, empty_table, sql_columns
from storagering.config import Settings, load_settings
from storagering.errors import LimitExceededError, SpecError, StorageringError
from storagering.types import Column

_ROWS_PER_BATCH = 100_000


def sql(query: str, *, settings: Settings | None = None) -> pa.Table:
    """Run a query over the catalog (``datasets``, ``columns``, ``chunks``, ``source_files``,
    ``skipped_columns``, ``skipped_sources``) and over datasets by their names.

    Raises:
        SpecError: the query is wrong, forbidden, or takes too long.
        LimitExceededError: the result has more rows than ``sql_max_rows``.
        CorruptDataError: a chunk that it reads is damaged.
    """
    settings = settings or load_settings()
    cache = open_cache(settings)
    with _sandbox(cache, settings) as connection, _stopped_after(settings.sql_timeout_seconds, connection) as stopped:
        streams = _bind_datasets(connection, query, cache, settings)
        try:
            return _fetch(connection, query, settings)
        except (duckdb.Error, pa.ArrowException, OSError) as error:  # Arrow's while rows are fetched
            for stream in streams:
                if stream.error is not None:
                    raise stream.error from None
            if stopped.is_set():
                raise SpecError(f"the query was stopped after {settings.sql_timeout_seconds:g} s") from None
            raise _explain(error, cache) from None


@contextmanager
def _stopped_after(seconds: float, connection: duckdb.DuckDBPyConnection) -> Iterator[threading.Event]:
    """Interrupts whatever runs once the time is up, and says so."""
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        connection.interrupt()

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield stopped
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
        for name, table in read_catalog(cache).items():
            connection.register("incoming", table.drop_columns(["stamp"]) if name == "datasets" else table)
            connection.execute(f"CREATE TABLE {name} AS SELECT * FROM incoming")  # noqa: S608  (fixed names)
            connection.unregister("incoming")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    finally:
        connection.close()


def _bind_datasets(
    connection: duckdb.DuckDBPyConnection, query: str, cache: Cache, settings: Settings
) -> list[DatasetStream]:
    """Register the datasets that the query may name, with the columns that it needs."""
    datasets = list(_named_datasets(query, cache))
    columns = {d.name: sql_columns(d) for d in datasets}
    plan = _plan(connection, query, columns) if datasets else None
    if plan is not None:
        needed = {name for scan in _scans(plan) for name in scan}
        fewer = {
            d.name: [c for c in columns[d.name] if c.name in needed] or _cheapest(d, columns[d.name]) for d in datasets
        }
        if _plan(connection, query, fewer) == plan:  # else a * or #2 of it would mean something else
            columns = fewer
    streams = [DatasetStream(d, columns[d.name], settings.threads) for d in datasets]
    for dataset, stream in zip(datasets, streams, strict=True):
        connection.register(dataset.name, stream)
    return streams


def _named_datasets(query: str, cache: Cache) -> Iterator[Dataset]:
    """Datasets whose names occur in the query, but for damaged ones of which that may be mere chance."""
    text = query.lower()
    for name in cache.names():
        if name.lower() in text:
            try:
                yield open_dataset(name, cache=cache)
            except StorageringError:
                if re.search(rf"(?<![\w.-]){re.escape(name.lower())}(?![\w.-])", text):
                    raise


def _cheapest(dataset: Dataset, visible: list[Any]) -> list[Any]:
    """One column to count entries by."""
    order = {"flat": 0, "string": 1, "sparse": 3}
    if not visible:
        raise SpecError(f"no column of {dataset.name!r} has a type that SQL knows")
    return [min(visible, key=lambda c: (order.get(c.kind, 2), c.dtype))]


def _plan(
    connection: duckdb.DuckDBPyConnection, query: str, columns: dict[str, list[Column]]
) -> list[dict[str, Any]] | None:
    """DuckDB's plan of the query over datasets with those columns; None if it has none."""
    for name, some in columns.items():
        connection.register(name, empty_table(some))
    try:
        if [s.type for s in connection.extract_statements(query)] != [duckdb.StatementType.SELECT]:
            return None
        rows = connection.execute(f"EXPLAIN (FORMAT json) {query}").fetchall()
        return [root for row in rows for root in json.loads(row[1])]
    except (duckdb.Error, LookupError, ValueError):
        return None  # wrong, which running it will tell, or of a kind that has no plan
    finally:
        for name in columns:
            connection.unregister(name)


def _scans(plan: list[dict[str, Any]]) -> Iterator[list[str]]:
    """The column names of every scan of ours in a plan."""
    for node in plan:
        if "ARROW_SCAN" in node.get("name", ""):
            names = node.get("extra_info", {}).get("Projections", [])
            yield [names] if isinstance(names, str) else names
        yield from _scans(node.get("children", []))


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


def _explain(error: Exception, cache: Cache) -> SpecError:
    text = str(error).strip()
    known = ", ".join(cache.names()[:20])
    hint = f"\ndatasets: {known or 'none yet'}; tables: {', '.join(table_names())}" if "does not exist" in text else ""
    return SpecError(text + hint)
