"""``storagering bench``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from storagering.cli.console import say, show_json
from storagering.cli.parsing import Verbs, add_verb

_EXAMPLES = """\
storagering bench loader
storagering bench convert --entries 200000 --output convert.json"""
_TEXT = """\
Measures on this machine, with data made for the purpose, and writes the figures as JSON to stdout."""


def add_to(verbs: Verbs) -> None:
    """Add the family."""
    summary = "measure conversion and loading on this machine"
    parser = add_verb(verbs, "bench", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("what", choices=("loader", "convert"), help="what to measure")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--entries", type=int, metavar="N", help="size of the data")


def run(args: argparse.Namespace) -> int:
    """Measure."""
    from storagering.testing.bench import bench_convert, bench_loader

    measure = {"loader": bench_loader, "convert": bench_convert}[args.what]
    size: dict[str, Any] = {} if args.entries is None else {"entries": args.entries}
    figures = measure(output=args.output, **size)
    show_json(figures)
    if args.output is not None:
        say(f"written to {args.output}")
    return 0
