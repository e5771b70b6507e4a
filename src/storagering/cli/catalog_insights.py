"""``storagering catalog insights``."""

from __future__ import annotations

import argparse

from storagering.cli.console import say, show_json
from storagering.cli.parsing import Verbs, add_verb
from storagering.cli.sql_output import show_result

_TEXT = """\
site_traffic          bytes from and to each site, by dataset
failures              what share of jobs and transfers fails at each site, what is sure comes first
cold                  datasets with replicas that nobody has read for 90 days
hot_without_replica   datasets that are read at a site which has no replica of them
cpu_efficiency        CPU efficiency of jobs by the throughput of their reads, at each site

Each is a view of the catalog, insight_NAME, for 'storagering sql', too. "Now" is the latest time in the logs."""
_EXAMPLES = """\
storagering catalog insights failures
storagering sql "SELECT * FROM insight_cold WHERE nbytes > 1e12\""""
_ROWS = 20


def add_to(actions: Verbs) -> None:
    """Add the verb."""
    summary = "answer five questions about the imported logs of the grid"
    parser = add_verb(actions, "insights", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("name", nargs="?", metavar="NAME", help="one of these (default: all)")
    text = f"rows that are shown at most, 0 for all (default: {_ROWS})"
    parser.add_argument("--rows", type=int, default=_ROWS, metavar="N", help=text)
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Ask, and write the answers."""
    from storagering.catalog.insights import ask_insight, insight_names

    names = [args.name] if args.name else insight_names()
    answers = {name: ask_insight(name) for name in names}
    if args.json:
        rows = {name: table.to_pylist() for name, table in answers.items()}
        show_json(rows[args.name] if args.name else rows)
        return 0
    for number, (name, table) in enumerate(answers.items()):
        if args.name is None:
            print("\n" * bool(number) + name)
        if table.num_rows:
            show_result(table, args.rows)
        else:
            say(f"{name}: nothing in the imported logs")
    return 0
