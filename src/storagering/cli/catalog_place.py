"""``storagering catalog place``."""

from __future__ import annotations

import argparse
from pathlib import Path

from storagering.cli.console import format_bytes, say, show_json, show_table
from storagering.cli.parsing import Verbs, add_verb
from storagering.errors import SpecError

_EXAMPLES = """\
storagering catalog place --example > nodes.toml
storagering catalog place nodes.toml
storagering catalog place nodes.toml --popularity scores.csv --json"""
_TEXT = """\
Proposes which replicas to add, drop or move between nodes, so that the fewest bytes are read over the network in
the period to come. Nothing is moved: the list is for those who do. No move takes a node above its capacity or
more than its bandwidth carries, and none drops the last replica of a dataset.

The file names the nodes, and maybe the datasets, their expected uses and where they lie; without any, the datasets
are those of this node's cache. --example prints such a file."""


def add_to(actions: Verbs) -> None:
    """Add the verb."""
    summary = "propose where replicas of datasets should lie"
    parser = add_verb(actions, "place", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="nodes and datasets, in TOML")
    text = "CSV file of expected uses: dataset,score or dataset,node,score"
    parser.add_argument("--popularity", type=Path, metavar="CSV", help=text)
    parser.add_argument("--example", action="store_true", help="print an example of the file")
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Propose moves."""
    from storagering.simulation.inventory import EXAMPLE, read_inventory
    from storagering.simulation.placement import propose_moves

    if args.example:
        print(EXAMPLE, end="")
        return 0
    if args.file is None:
        raise SpecError("place where? give a file of nodes; --example prints one")
    known = read_inventory(args.file, popularity=args.popularity)
    moves = propose_moves(
        known.nodes, known.datasets, known.replicas, period_seconds=known.period_seconds, copy_cost=known.copy_cost
    )
    if args.json:
        show_json(moves)
        return 0
    if moves:
        rows = [
            (m.action, m.dataset, m.source, m.node, format_bytes(m.nbytes), _signed(m.gain), m.reason) for m in moves
        ]
        headers = ("move", "dataset", "from", "node", "size", "saves", "because")
        show_table(headers, rows, (False, False, False, False, True, True, False))
    say(f"{len(moves):,} move(s), which save {_signed(sum(move.gain for move in moves))} of network in the period")
    return 0


def _signed(nbytes: float) -> str:
    return f"-{format_bytes(-nbytes)}" if nbytes < 0 else format_bytes(nbytes)
