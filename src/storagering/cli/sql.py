"""``storagering sql``."""

from __future__ import annotations

import argparse

from storagering.cli.console import say
from storagering.cli.parsing import Verbs, add_verb
from storagering.cli.sql_output import ROWS, write_parquet, write_result
from storagering.errors import InputError

_TEXT = """\
Tables: every dataset by its name, and those of the catalog: datasets, versions, lineage, columns,
chunks, residents (where chunks lie), source_files, replicas, skipped_columns, skipped_sources,
accesses, trainings, and those of imported logs; '.tables' lists all. The dialect is DuckDB's; jagged
columns are lists. In JSON, NaN and infinities are null.

Without a query it asks for statements at a prompt, with completion, or reads them from a pipe. Each
ends with a semicolon and runs in a sandbox of its own; '.help' tells what else can be said."""
_EXAMPLES = """\
storagering sql "SELECT label, count(*), avg(jet_mass) FROM jets GROUP BY label"
storagering sql "SELECT name, unit, mean FROM columns WHERE dataset = 'jets'" --csv
storagering sql "SELECT jet_pt, jet_mass FROM jets WHERE jet_pt > 600" --parquet hard.parquet
storagering sql"""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    summary = "query datasets and catalog with SQL"
    parser = add_verb(verbs, "sql", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("query", metavar="QUERY", nargs="?", help="one SELECT (default: ask, or read from a pipe)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="write rows as JSON objects")
    how.add_argument("--csv", action="store_true", help="write comma-separated values")
    how.add_argument("--parquet", metavar="FILE", help="write a Parquet file")
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    parser.add_argument("--explain-reads", action="store_true", help="tell how many chunks were read")
    text = f"rows that the table shows at most, 0 for all (default: {ROWS:,})"
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=text)


def run(args: argparse.Namespace) -> int:
    """Run the query and write the rows, or run the shell."""
    from storagering.cli.shell import run_query, run_shell

    how = "json" if args.json else "csv" if args.csv else "table"
    if args.query is None:
        if args.parquet is not None:
            raise InputError("--parquet writes the result of one query: give it as an argument")
        return run_shell(how, args.rows)
    if args.parquet is not None:
        from storagering.formats.writers.output import check_output

        check_output(args.parquet, force=args.force)  # before the query, which may take long
    result = run_query(args.query)
    table = result.table
    if args.explain_reads:
        for one in result.reads:
            say(f"{one.dataset}: read {one.chunks:,} of {one.of:,} chunks")
    if args.parquet is None:
        write_result(table, how, args.rows)
    else:
        path = write_parquet(table, args.parquet, force=args.force)
        say(f"{path}: {table.num_rows:,} rows")
    return 0
