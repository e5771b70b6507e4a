"""``storagering bench``."""

from __future__ import annotations

import argparse
from pathlib import Path

from storagering.cli.console import say, show_json
from storagering.cli.parsing import Verbs, add_verb
from storagering.errors import InputError

_EXAMPLES = """\
storagering bench loader
storagering bench loader --peers parquet,zarr --workload w2 --environments ~/venvs
storagering bench convert --entries 200000 --output convert.json"""
_TEXT = """\
Measures on this machine, with data made for the purpose, and writes the figures as JSON to stdout.

loader: shuffled batches of flat events (w1), jets (w2) and images (w3), one class a file, against data in memory
and what uproot can do. With --peers also what other loaders do that are installed here or in other environments.
With --output it goes on where it was interrupted."""
_OF_LOADER = ("peers", "workload", "only", "cores", "epochs", "environments", "data")


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in _words(text)]


def add_to(verbs: Verbs) -> None:
    """Add the family."""
    summary = "measure conversion and loading on this machine"
    parser = add_verb(verbs, "bench", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("what", choices=("loader", "convert"), help="what to measure")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--entries", type=int, metavar="N", help="size of the data")
    group = parser.add_argument_group("loader")
    text = "other loaders too: all, or those whose names have one of these parts"
    group.add_argument("--peers", type=_words, nargs="?", const=[], metavar="NAMES", help=text)
    text = "folder of Python environments with further peers (benchmarks/loaders/ makes them)"
    group.add_argument("--environments", type=Path, metavar="DIR", help=text)
    group.add_argument("--workload", type=_words, metavar="NAMES", help="of w1, w2, w3")
    group.add_argument("--only", metavar="REGEX", help="only runs that have this in 'PEER, WORKLOAD, N cores'")
    group.add_argument("--cores", type=_numbers, metavar="N,N", help="numbers of cores (2)")
    text = "epochs of which the median counts (5); 0 to prepare only"
    group.add_argument("--epochs", type=int, metavar="N", help=text)
    group.add_argument("--data", type=Path, metavar="DIR", help="where the data is made, and stays")


def run(args: argparse.Namespace) -> int:
    """Measure."""
    options = {name: value for name in _OF_LOADER if (value := getattr(args, name)) is not None}
    size = {} if args.entries is None else {"entries": args.entries}
    if args.what == "loader":
        from storagering.testing.loading.bench import Request, bench_loader

        if "workload" in options:
            options["workloads"] = options.pop("workload")
        figures = bench_loader(Request(**options, **size), output=args.output, say=say)
    else:
        from storagering.testing.bench import bench_convert

        if options:
            raise InputError(f"--{next(iter(options))} is for 'bench loader'")
        figures = bench_convert(output=args.output, **size)
    show_json(figures)
    if args.output is not None:
        say(f"written to {args.output}")
    return 0
