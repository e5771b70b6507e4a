"""``storagering sql``."""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from storagering.cli.console import say, show_table
from storagering.cli.parsing import Verbs, add_verb

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 1000
_TEXT = """\
Tables: every dataset by its name, and the catalog's datasets, columns, chunks, source_files and
skipped_columns. The dialect is DuckDB's; jagged columns are lists. In JSON, NaN and infinities
are null."""
_EXAMPLES = """\
storagering sql "SELECT label, count(*), avg(jet_mass) FROM jets GROUP BY label"
storagering sql "SELECT name, unit, mean FROM columns WHERE dataset = 'jets'" --csv"""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    summary = "query datasets and catalog with SQL"
    parser = add_verb(verbs, "sql", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("query", metavar="QUERY", help="one SELECT")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="write rows as JSON objects")
    how.add_argument("--csv", action="store_true", help="write comma-separated values")
    text = f"rows that the table shows at most, 0 for all (default: {_ROWS:,})"
    parser.add_argument("--rows", type=int, default=_ROWS, metavar="N", help=text)


def run(args: argparse.Namespace) -> int:
    """Run the query and write the rows."""
    from storagering.catalog.query import sql

    table = sql(args.query)
    if args.json:
        _write_json(table)
    elif args.csv:
        _write_csv(table)
    else:
        show_result(table, args.rows)
    return 0


def show_result(table: pa.Table, limit: int = _ROWS) -> None:
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
        say(f"... and {rest:,} more of {table.num_rows:,} rows: --rows 0 shows all, --csv and --json write all")


def _write_json(table: pa.Table) -> None:
    import msgspec

    names = [name if name not in table.column_names[:n] else f"{name}_{n}" for n, name in enumerate(table.column_names)]
    sys.stdout.write("[")
    separator = "\n"
    for batch in table.to_batches():
        for row in zip(*_columns(batch), strict=True):
            line = msgspec.json.encode(dict(zip(names, row, strict=True)), enc_hook=str)
            sys.stdout.write(separator + line.decode())
            separator = ",\n"
    sys.stdout.write("\n]\n")


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
