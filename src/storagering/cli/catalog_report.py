"""``storagering catalog report``."""

from __future__ import annotations

import argparse

from storagering.cli.console import format_bytes, say, show_json
from storagering.cli.parsing import Verbs, add_verb

_DETAILS = 40
_TEXT = """\
Datasets with sizes, compression, columns and their distributions, sources and versions, what was skipped;
accesses over time, what the cache holds, trainings. The page needs no server, no network and no other
file, and follows the light or dark theme of its reader. It names no users, but paths and servers."""
_EXAMPLES = """\
storagering catalog report catalog.html
storagering catalog report ~/public_html/cache.html --details 100"""


def add_to(actions: Verbs) -> None:
    """Add the verb."""
    summary = "write a picture of it all: one HTML page"
    parser = add_verb(actions, "report", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("out", metavar="OUT", help="the file to write; an earlier report there is replaced")
    text = f"datasets to tell of at length: those read most, and the largest (default: {_DETAILS})"
    parser.add_argument("--details", type=int, default=_DETAILS, metavar="N", help=text)
    parser.add_argument("--force", action="store_true", help="replace OUT whatever it is")
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    from storagering.catalog.report import write_report

    report = write_report(args.out, details=max(args.details, 0), force=args.force)
    if args.json:
        show_json(report)
    else:
        say(f"{report.out}: {report.datasets:,} dataset(s), {format_bytes(report.nbytes)}")
    return 0
