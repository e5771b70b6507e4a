"""Traces from files, and from what the catalog knows of accesses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from storagering.catalog.query import sql
from storagering.config import Settings
from storagering.errors import FormatError, NotFoundError, SchemaError, SpecError, nearest_names
from storagering.simulation.generated import KINDS, make_trace
from storagering.simulation.trace import Trace
from storagering.types import Array

_NEEDED = ("time", "item", "size")
_MOST = 2.0**62
#: Each access as reads of all chunks of its dataset.
ACCESSES = """
SELECT epoch(a.time) AS time, a.host AS site, a.dataset, c.dataset || '/' || c.file AS item, c.nbytes AS size
FROM accesses a JOIN chunks c ON c.dataset = a.dataset ORDER BY a.time, a.journal, a.line, c.chunk"""


def load_traces(what: str, *, seeds: int = 5, accesses: int = 200_000, items: int = 10_000) -> tuple[Trace, ...]:
    """The traces that a word stands for.

    Args:
        what: a kind of `generated.KINDS` for one trace each of the seeds 0, 1, ...; ``accesses`` for what the catalog
            knows; else a CSV or Parquet file.
        seeds, accesses, items: of made-up traces: how many traces, and how long and wide they are.

    Raises:
        SpecError, NotFoundError, FormatError, SchemaError: as `make_trace`, `read_accesses` and `read_trace` do.
    """
    if what == "accesses":
        return (read_accesses(),)
    if what in KINDS:
        if seeds < 1:
            raise SpecError(f"{seeds} seeds: give at least 1")
        return tuple(make_trace(what, seed=seed, accesses=accesses, items=items) for seed in range(seeds))
    if not Path(what).suffix:
        raise SpecError(f"trace {what!r} is neither a file nor a kind{nearest_names(what, (*KINDS, 'accesses'))}")
    return (read_trace(Path(what)),)


def read_trace(path: Path) -> Trace:
    """A trace from a CSV or Parquet file with the columns ``time`` (seconds, or a timestamp), ``item`` and ``size``
    (bytes), and, where there are any, ``dataset`` and ``site``; rows in any order.

    Raises:
        NotFoundError: there is no such file.
        FormatError: it cannot be read.
        SchemaError: a column is absent, or of another type.
        SpecError: an item has several sizes, or values are absent or out of range.
    """
    if not path.is_file():
        raise NotFoundError(f"no file {path}")
    is_csv = path.suffix.lower() == ".csv"
    try:
        table = pa.csv.read_csv(path) if is_csv else pa.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{path} cannot be read as {'CSV' if is_csv else 'Parquet'}: {error}") from error
    return make_trace_of(table, str(path))


def read_accesses(*, settings: Settings | None = None) -> Trace:
    """A trace of the accesses that the catalog knows: each is taken to have read all chunks of its dataset, in order.

    The chunks are those that the dataset has now; accesses to datasets that are gone are left out.

    Raises:
        SpecError: there are none, or their chunks are more than a query may give.
    """
    table = sql(ACCESSES, settings=settings)
    if not table.num_rows:
        raise SpecError("the catalog knows no accesses to datasets that are here; give a file or a made-up trace")
    return make_trace_of(table, "the catalog")


def make_trace_of(table: pa.Table, source: str) -> Trace:
    """A trace of a table's rows, as `read_trace` describes them.

    Args:
        source: named in errors.
    """
    for name in _NEEDED:
        if name not in table.column_names:
            raise SchemaError(f"{source}: no column {name!r}{nearest_names(name, table.column_names)}")
    times = _numbers(table, "time", source)
    order = np.argsort(times, kind="stable")
    items, first = _codes(table, "item", source)
    sizes = _numbers(table, "size", source).astype(np.int64)
    if (bad := np.flatnonzero(sizes != sizes[first][items])).size:
        at = int(bad[0])
        raise SpecError(
            f"{source}: item {table['item'][at].as_py()!r} has {sizes[at]:,} bytes in row {at + 1}, and "
            f"{sizes[first][items][at]:,} before: an item has one size"
        )
    groups = _codes(table, "dataset", source)[0][first] if "dataset" in table.column_names else np.arange(len(first))
    sites = _codes(table, "site", source)[0] if "site" in table.column_names else np.zeros(len(times))
    return Trace(times[order], items[order], sizes[first], groups, sites[order])


def _numbers(table: pa.Table, name: str, source: str) -> Array:
    column = _whole(table, name, source)
    try:
        if pa.types.is_timestamp(column.type):
            column = pc.divide(pc.cast(pc.cast(column, pa.timestamp("us")), pa.int64()), 1e6)
        values = np.asarray(pc.cast(column, pa.float64()).to_numpy())
    except pa.ArrowException as error:
        raise SchemaError(f"{source}: column {name!r} is {column.type}, not numbers") from error
    if not (np.abs(values) < _MOST).all():
        raise SpecError(f"{source}: column {name!r} has values that are no numbers, or too large")
    return values


def _codes(table: pa.Table, name: str, source: str) -> tuple[Array, Array]:
    """A number for each row's value, in the order of their first rows, and those rows."""
    encoded: Any = _whole(table, name, source).combine_chunks().dictionary_encode()
    codes = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    return codes, np.unique(codes, return_index=True)[1]


def _whole(table: pa.Table, name: str, source: str) -> Any:
    column = table[name]
    if column.null_count:
        raise SpecError(f"{source}: column {name!r} lacks {column.null_count:,} values")
    return column
