"""Which tables, views and datasets there are to ask, and what columns they have: without reading any of them."""

from __future__ import annotations

from contextlib import closing

import duckdb

from storagering.cache.dataset import Dataset
from storagering.catalog.index import catalog_tables, catalog_views, make_tables, make_views
from storagering.catalog.streams import empty_table, sql_columns


def catalog_schemas() -> dict[str, dict[str, str]]:
    """Tables, then views of the catalog: name -> column -> SQL type."""
    query = """SELECT column_name, data_type FROM duckdb_columns() WHERE NOT internal AND table_name = ?
        ORDER BY column_index"""
    with closing(duckdb.connect(":memory:")) as connection:
        make_tables(connection, catalog_tables())
        make_views(connection)
        names = (*sorted(catalog_tables()), *sorted(catalog_views()))
        return {name: dict(connection.execute(query, [name]).fetchall()) for name in names}


def dataset_schema(dataset: Dataset) -> dict[str, str]:
    """The columns of a dataset that SQL can see: column -> SQL type."""
    with closing(duckdb.connect(":memory:")) as connection:
        connection.register("dataset", empty_table(sql_columns(dataset)))
        found = connection.execute("DESCRIBE dataset").fetchall()
        return {name: kind for name, kind, *_ in found}
