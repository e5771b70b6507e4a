"""``storagering copy``."""

from __future__ import annotations

import argparse
import time

from storagering.cli.export import add_output_options, output_options, tell_outcome
from storagering.cli.parsing import Verbs, add_verb

_TEXT = """\
SOURCE is one file or URL of any format that can be read, OUT a local path; for zarr a folder, or a zip
file if it ends with .zip. Nothing is kept in the cache. Columns that cannot be read or that the new
format cannot hold are skipped and listed; OUT appears when it is complete, or not at all."""
_EXAMPLES = """\
storagering copy events.root --to parquet events.parquet
storagering copy 'root://server//store/nano.root' --tree Events --to rntuple jets.root --columns 'Jet_*'"""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs, "copy", run, summary="write a file as one of another format", examples=_EXAMPLES, text=_TEXT
    )
    parser.add_argument("source", metavar="SOURCE", help="what to read")
    parser.add_argument("out", metavar="OUT", help="the file to write")
    add_output_options(parser, tree_help="the table to read, where a file has several")


def run(args: argparse.Namespace) -> int:
    """Copy, and say what came of it."""
    from storagering.cli.progress import ConversionBar
    from storagering.exporting import copy

    started = time.perf_counter()
    with ConversionBar("writing") as bar:
        exported = copy(args.source, args.out, **output_options(args), progress=bar)
    tell_outcome(exported, time.perf_counter() - started, as_json=args.json)
    return 0
