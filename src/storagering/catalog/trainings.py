"""The domain of trainings: which model was trained on which dataset, with which result.

As `storagering.catalog.accesses`, whose table ``journals`` it needs.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from storagering.cache.accesses import TRAININGS, Training
from storagering.cache.layout import Cache
from storagering.catalog.journals import Kind, take_in

#: What the columns mean: `storagering.cache.accesses.Training`. A row came from that line of that journal.
TABLES = {
    "trainings": """time TIMESTAMP WITH TIME ZONE, id VARCHAR, recipe VARCHAR, model VARCHAR, dataset VARCHAR,
        version BIGINT, digest VARCHAR, run VARCHAR, epochs BIGINT, seconds DOUBLE, metrics MAP(VARCHAR, DOUBLE),
        seed BIGINT, "user" VARCHAR, host VARCHAR, software VARCHAR, finished BOOLEAN, journal VARCHAR, line BIGINT""",
}

_KIND = Kind(
    TRAININGS,
    Training,
    (
        ("time", pa.timestamp("us", "UTC")),
        ("id", pa.string()),
        ("recipe", pa.string()),
        ("model", pa.string()),
        ("dataset", pa.string()),
        ("version", pa.int64()),
        ("digest", pa.string()),
        ("run", pa.string()),
        ("epochs", pa.int64()),
        ("seconds", pa.float64()),
        ("metrics", pa.map_(pa.string(), pa.float64())),
        ("seed", pa.int64()),
        ("user", pa.string()),
        ("host", pa.string()),
        ("software", pa.string()),
        ("finished", pa.bool_()),
    ),
)


def enter(connection: duckdb.DuckDBPyConnection, cache: Cache) -> int:
    """Take in what journals and archives of trainings have new, in the caller's transaction; how many rows that was."""
    return take_in(connection, cache, _KIND)
