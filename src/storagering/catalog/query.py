"""SQL over the catalog and over the data, in a sandbox.

A query runs in memory, on a copy of those tables of the catalog that it names; datasets are streams that only
the query's own columns are read from. It cannot touch files, the network, the caller's variables or the settings.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import compress
from typing import Any

import duckdb
import pyarrow as pa

from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.layout import Cache, check_name, open_cache
from storagering.cache.zones import chunks_that_may_match
from storagering.catalog.index import (
    catalog_tables,
    catalog_views,
    make_tables,
    make_views,
    read_tables,
    use_catalog,
)
from storagering.catalog.pushdown import find_demands
from storagering.catalog.rows import insert_table
from storagering.catalog.streams import DatasetStream, empty_table, sql_columns
from storagering.config import Settings, load_settings
from storagering.errors import CacheError, InputError, LimitExceededError, SpecError, StorageringError
from storagering.files import list_directory
from storagering.types import Chunk, Column

_ROWS_PER_BATCH = 100_000
_WATCH_SECONDS = 0.02
_SELECT = duckdb.StatementType.SELECT
_ABSENT = re.compile(r"Table with name (\w+) does not exist")
#: In queries for which tables there are.
_LISTING = re.compile(r"duckdb_|information_schema|pg_|pragma|sqlite_|\b(show|describe)\b", re.I)

_ReadTables = Callable[[Collection[str]], Mapping[str, pa.Table]]


@dataclass(frozen=True)
class ChunkReads:
    """What a query read of one dataset.

    Attributes:
        chunks: how many of its chunks were opened.
        of: how many it has.
    """

    dataset: str
    chunks: int
    of: int


@dataclass(frozen=True)
class QueryResult:
    """The rows of a query, and what was read for them."""

    table: pa.Table
    reads: tuple[ChunkReads, ...]


class _AbsentTableError(Exception):
    """The query needs a table that it was not seen to name."""


def sql(query: str, *, settings: Settings | None = None, cancelled: threading.Event | None = None) -> pa.Table:
    """Run a query over the catalog (``datasets``, ``columns``, ``chunks``, ``source_files`` and what else it has)
    and over datasets by their names.

    Args:
        cancelled: set by another thread to stop the query.

    Raises:
        SpecError: the query is wrong, forbidden, takes too long or was cancelled.
        LimitExceededError: the result has more rows than ``sql_max_rows``.
        CorruptDataError: a chunk that it reads is damaged.
    """
    return run_query(query, settings=settings, cancelled=cancelled).table


def run_query(query: str, *, settings: Settings | None = None, cancelled: threading.Event | None = None) -> QueryResult:
    """`sql`, telling also how many chunks were read; raises as that does."""
    cache = open_cache(settings or load_settings())

    def read(names: Collection[str]) -> Mapping[str, pa.Table]:
        return use_catalog(cache, lambda catalog: read_tables(catalog, names))

    return query_tables(query, cache, read, cancelled)


def query_tables(query: str, cache: Cache, read: _ReadTables, cancelled: threading.Event | None = None) -> QueryResult:
    """Run a query as `run_query`, over those tables of a catalog that it names."""
    stop = cancelled or threading.Event()
    try:
        return _run(query, cache, read, stop, every=False)
    except _AbsentTableError:
        return _run(query, cache, read, stop, every=True)


def _run(query: str, cache: Cache, read: _ReadTables, cancelled: threading.Event, *, every: bool) -> QueryResult:
    settings = cache.settings
    streams: list[DatasetStream] = []
    with closing(_sandbox(settings)) as connection:
        tables = catalog_tables()
        wanted = tables.keys() if every else _named_tables(connection, query)
        with _stopped(connection, settings.sql_timeout_seconds, cancelled) as stopped:
            try:
                _fill(connection, read(wanted) if wanted else {})
                streams += _bind_datasets(connection, query, cache, settings)
                table = _fetch(connection, query, settings)
                return QueryResult(table, tuple(map(_reads_of, streams)))
            except (duckdb.Error, pa.ArrowException, OSError) as error:  # Arrow's while rows are fetched
                for stream in streams:
                    if stream.error is not None:
                        raise stream.error from None
                if stopped.is_set():
                    why = "cancelled" if cancelled.is_set() else f"stopped after {settings.sql_timeout_seconds:g} s"
                    raise SpecError(f"the query was {why}") from None
                absent = _ABSENT.search(str(error))
                if absent and absent[1].lower() in tables.keys() - wanted:
                    raise _AbsentTableError from None
                raise _explain(error, cache) from None


def _reads_of(stream: DatasetStream) -> ChunkReads:
    return ChunkReads(stream.dataset.name, len(stream.read), len(stream.dataset.manifest.chunks))


@contextmanager
def _stopped(
    connection: duckdb.DuckDBPyConnection, seconds: float, cancelled: threading.Event
) -> Iterator[threading.Event]:
    """Interrupts whatever runs once the time is up or somebody cancels it, and says so."""
    stopped, ended = threading.Event(), threading.Event()
    deadline = time.monotonic() + seconds

    def watch() -> None:
        while not ended.wait(_WATCH_SECONDS):
            if cancelled.is_set() or time.monotonic() > deadline:
                stopped.set()
                connection.interrupt()  # again and again: what begins after one goes on

    watcher = threading.Thread(target=watch, name="storagering-sql-watch", daemon=True)
    watcher.start()
    try:
        yield stopped
    finally:
        ended.set()
        watcher.join()


def _sandbox(settings: Settings) -> duckdb.DuckDBPyConnection:
    """A database in memory with the catalog's tables, still without rows, that reaches nothing outside."""
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
        connection.execute("SET enable_progress_bar = false")  # it would go to stdout
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        make_tables(connection, catalog_tables())
        make_views(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _named_tables(connection: duckdb.DuckDBPyConnection, query: str) -> Collection[str]:
    """The tables of the catalog that a query needs, also through views; all where DuckDB cannot tell."""
    tables = catalog_tables().keys()
    try:
        if not _LISTING.search(query) and [s.type for s in connection.extract_statements(query)] == [_SELECT]:
            return tables & {name.lower() for name in connection.get_table_names(query)}
    except duckdb.Error:  # running it will tell, if it is wrong
        pass
    return tables


def _fill(connection: duckdb.DuckDBPyConnection, tables: Mapping[str, pa.Table]) -> None:
    """Copy these into the sandbox, and drop all others: what is not there cannot be taken for empty."""
    for name in catalog_tables():
        if name in tables:
            insert_table(connection, f"INSERT INTO {name} SELECT * FROM incoming", tables[name])  # noqa: S608  (ours)
        else:
            connection.execute(f"DROP TABLE {name}")


def _bind_datasets(
    connection: duckdb.DuckDBPyConnection, query: str, cache: Cache, settings: Settings
) -> list[DatasetStream]:
    """Register the datasets that the query may name, with the columns and chunks that it needs."""
    datasets = list(_named_datasets(query, cache))
    columns = {d.name: sql_columns(d) for d in datasets}
    plan = _plan(connection, query, columns) if datasets else None
    demands = find_demands(connection, query, columns) if plan is not None and _filters(plan) else {}
    if plan is not None:
        needed = {name for scan in _scans(plan) for name in scan}
        fewer = {
            d.name: [c for c in columns[d.name] if c.name in needed] or _cheapest(d, columns[d.name]) for d in datasets
        }
        if _plan(connection, query, fewer) == plan:  # else a * or #2 of it would mean something else
            columns = fewer
    streams = []
    for dataset in datasets:
        chunks: Sequence[Chunk] = dataset.manifest.chunks
        if dataset.name in demands:
            chunks = list(compress(chunks, chunks_that_may_match(dataset, demands[dataset.name])))
        streams.append(DatasetStream(dataset, columns[dataset.name], settings.threads, chunks))
    for dataset, stream in zip(datasets, streams, strict=True):
        connection.register(dataset.name, stream)
    return streams


def _named_datasets(query: str, cache: Cache) -> Iterator[Dataset]:
    """Datasets whose names occur in the query, but for damaged ones of which that may be mere chance."""
    text = query.lower()
    for name in sorted(path.name for path in list_directory(cache.root / "datasets")):
        if name.lower() in text and _is_dataset(cache, name):
            try:
                yield open_dataset(name, cache=cache)
            except StorageringError:
                if re.search(rf"(?<![\w.-]){re.escape(name.lower())}(?![\w.-])", text):
                    raise


def _is_dataset(cache: Cache, name: str) -> bool:
    try:
        return cache.contains(check_name(name))
    except InputError:  # a folder that is none
        return False
    except CacheError:  # opening it tells what is wrong with it
        return True


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


def _filters(plan: list[dict[str, Any]]) -> bool:
    """Whether a plan leaves any rows out: by a filter, or a list of constants that it joins with."""
    names = ("FILTER", "COLUMN_DATA_SCAN")
    return any(node.get("name") in names or _filters(node.get("children", [])) for node in plan)


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
    hint = (
        f"\ndatasets: {known or 'none yet'}; tables: {', '.join((*catalog_tables(), *catalog_views()))}"
        if "does not exist" in text
        else ""
    )
    return SpecError(text + hint)
