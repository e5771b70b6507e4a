"""``storagering catalog index``."""

from __future__ import annotations

import argparse

from storagering.cli.console import format_bytes, say, show_json
from storagering.cli.parsing import Verbs, add_verb

_TEXT = """\
A bitmap index tells for every distinct value of a column which entries hold it: selections by = and IN,
in SQL and in --where, joined by AND and OR, then open only chunks with a match. It is for columns with
few values (runs, triggers, labels, flags; up to 100,000): cuts on others are served by the statistics
that every chunk has. It belongs to one version of a dataset; build it again after an append. It may be
deleted at any time."""
_EXAMPLES = """\
storagering catalog index jets label
storagering catalog index nano run HLT_IsoMu24
storagering catalog index nano run --drop"""


def add_to(actions: Verbs) -> None:
    """Add the verb."""
    summary = "index columns with few values, for fast selections"
    parser = add_verb(actions, "index", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("dataset", metavar="DATASET", help="a dataset")
    parser.add_argument("columns", nargs="+", metavar="COLUMN", help="flat columns, or columns of text")
    parser.add_argument("--drop", action="store_true", help="remove their indexes")
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Build or drop indexes."""
    from storagering.cache.dataset import open_dataset
    from storagering.cache.indexing import drop_indexes, index_columns
    from storagering.cli.progress import counting_bar

    dataset = open_dataset(args.dataset)
    if args.drop:
        drop_indexes(dataset, args.columns)
        say(f"dropped the indexes of {', '.join(args.columns)}")
        return 0
    with counting_bar("indexing", len(dataset) * len(args.columns)) as advance:
        built = index_columns(dataset, args.columns, progress=advance)
    if args.json:
        show_json(built)
        return 0
    for one in built:
        say(f"indexed {one.dataset}.{one.column}: {one.values:,} values, {format_bytes(one.nbytes)}")
    return 0
