"""The domain of accesses: who read which dataset when, from the journals of all processes.

Each access is in the table once: see `storagering.catalog.journals` for why. The table ``journals`` says how far the
journals of accesses and of trainings were read.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa

from storagering.cache.accesses import ACCESSES, Access
from storagering.cache.layout import Cache
from storagering.catalog.journals import TABLES as _JOURNALS
from storagering.catalog.journals import Kind, take_in

#: What the columns mean: `storagering.cache.accesses.Access`. A row came from that line of that journal.
TABLES = {
    "accesses": """time TIMESTAMP WITH TIME ZONE, dataset VARCHAR, version BIGINT, digest VARCHAR, "user" VARCHAR,
        host VARCHAR, pid BIGINT, job VARCHAR, purpose VARCHAR, columns VARCHAR[], entries BIGINT, nbytes BIGINT,
        tier VARCHAR, hits BIGINT, misses BIGINT, epoch BIGINT, seconds DOUBLE, journal VARCHAR, line BIGINT""",
    **_JOURNALS,
}

_KIND = Kind(
    ACCESSES,
    Access,
    (
        ("time", pa.timestamp("us", "UTC")),
        ("dataset", pa.string()),
        ("version", pa.int64()),
        ("digest", pa.string()),
        ("user", pa.string()),
        ("host", pa.string()),
        ("pid", pa.int64()),
        ("job", pa.string()),
        ("purpose", pa.string()),
        ("columns", pa.list_(pa.string())),
        ("entries", pa.int64()),
        ("nbytes", pa.int64()),
        ("tier", pa.string()),
        ("hits", pa.int64()),
        ("misses", pa.int64()),
        ("epoch", pa.int64()),
        ("seconds", pa.float64()),
    ),
)


def enter(connection: duckdb.DuckDBPyConnection, cache: Cache) -> int:
    """Take in what journals and archives of accesses have new, in the caller's transaction; how many rows that was."""
    return take_in(connection, cache, _KIND)
