"""Rows into the catalog's tables, many at once through Arrow, and out of them again.

Names of tables come from the domains' own lists, never from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import duckdb
import pyarrow as pa


def insert_rows(connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Append rows, each with the values of all columns in the table's order."""
    if not rows:
        return
    schema = connection.sql(f"SELECT * FROM {table} LIMIT 0").to_arrow_table().schema  # noqa: S608  (fixed names)
    values = zip(zip(*rows, strict=True), schema, strict=True)
    incoming = pa.Table.from_arrays([pa.array(some, field.type) for some, field in values], schema=schema)
    insert_table(connection, f"INSERT INTO {table} SELECT * FROM incoming", incoming)  # noqa: S608  (as above)


def insert_table(
    connection: duckdb.DuckDBPyConnection, statement: str, incoming: pa.Table, parameters: Sequence[Any] = ()
) -> None:
    """Run an INSERT that reads the table ``incoming``."""
    connection.register("incoming", incoming)
    try:
        connection.execute(statement, list(parameters))
    finally:
        connection.unregister("incoming")


def delete_datasets(connection: duckdb.DuckDBPyConnection, tables: Iterable[str], names: Sequence[str]) -> None:
    """Forget what tables with a column ``dataset`` say of those datasets."""
    if names:
        for table in tables:
            statement = f"DELETE FROM {table} WHERE dataset IN (SELECT unnest(?))"  # noqa: S608  (fixed names)
            connection.execute(statement, [list(names)])
