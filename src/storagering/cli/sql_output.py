"""How ``storagering sql`` writes a result: as a table, JSON, CSV or a Parquet file."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storagering.cli.console import say, show_table
from storagering.errors import OutputError

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows that a table shows if not told otherwise.
ROWS = 1000
FORMATS = ("table", "json", "csv")


def write_result(table: pa.Table, how: str, limit: int = ROWS) -> None:
    """Write a result to stdout.

    Args:
        how: one of `FORMATS`.
        limit: rows that a table shows at most, 0 for all.
    """
    if how == "json":
        _write_json(table)
    elif how == "csv":
        _write_csv(table)
    else:
        show_result(table, limit)
    sys.stdout.flush()


def show_result(table: pa.Table, limit: int = ROWS) -> None:
    """A result as a table on stdout, with at most ``limit`` rows (0: all)."""
    import pyarrow as pa

    if not table.num_columns:
        return
    shown = table.slice(0, limit) if limit > 0 else table
    rows = [[_cell(value, "NULL") for value in row] for row in zip(*_columns(shown), strict=True)]
    numeric = [pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t) for t in table.schema.types]
    show_table(table.column_names, rows, numeric)
    if shown.num_rows < table.num_rows:
        rest = table.num_rows - shown.num_rows
        say(f"... and {rest:,} more of {table.num_rows:,} rows: --rows 0 shows all, --json writes all")


def write_parquet(table: pa.Table, out: str, *, force: bool) -> Path:
    """Write a result as a Parquet file (Zstandard), which appears complete or not at all; returns where it is.

    Raises:
        OutputError: something is there and ``force`` is not given, the disk refuses, or Parquet has no such type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from storagering.formats.writers.output import check_output, hidden_output

    path = check_output(out, force=force)
    try:
        with hidden_output(path, force=force) as hidden:
            pq.write_table(table.rename_columns(_unique(table.column_names)), hidden, compression="zstd")
    except pa.ArrowException as error:
        raise OutputError(f"{path}: {error}; cast that column in the query") from error
    return path


def _write_json(table: pa.Table) -> None:
    import msgspec

    names = _unique(table.column_names)
    sys.stdout.write("[")
    separator = "\n"
    for batch in table.to_batches():
        for row in zip(*_columns(batch), strict=True):
            line = msgspec.json.encode(dict(zip(names, row, strict=True)), enc_hook=str)
            sys.stdout.write(separator + line.decode())
            separator = ",\n"
    sys.stdout.write("\n]\n")


def _unique(names: list[str]) -> list[str]:
    return [f"{name}_{n}" if name in names[:n] else name for n, name in enumerate(names)]


def _write_csv(table: pa.Table) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(table.column_names)
    for batch in table.to_batches():
        writer.writerows([_cell(value, "") for value in row] for row in zip(*_columns(batch), strict=True))


def _columns(table: Any) -> list[list[Any]]:
    """Values column by column: two of one name are fine."""
    return [_shortest(column).to_pylist() for column in table.columns]


def _shortest(column: Any) -> Any:
    """Single-precision numbers as the doubles that are written as short: 0.1, not 0.10000000149011612."""
    import pyarrow as pa

    text, double = _without_float32(column.type, pa.string()), _without_float32(column.type, pa.float64())
    return column if double == column.type else column.cast(text).cast(double)


def _without_float32(kind: pa.DataType, instead: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if kind in (pa.float16(), pa.float32()):
        return instead
    if pa.types.is_list(kind):
        return pa.list_(_without_float32(kind.value_type, instead))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_float32(field.type, instead)) for field in kind])
    return kind


def _cell(value: Any, null: str) -> str:
    if value is None:
        return null
    if isinstance(value, list | dict):
        return json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    return str(value)
