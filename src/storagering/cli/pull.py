"""``storagering pull``."""

from __future__ import annotations

import argparse
import time

from storagering.cli.console import say, show_facts, show_json
from storagering.cli.convert import describe, summarise
from storagering.cli.parsing import Verbs, add_verb

_TEXT = """\
The nodes are those of the setting peers, or the one named. What the dataset is, is taken from a node
on this machine, from one that is reached by https:// with a token, or from any if its digest is given
('storagering info NAME --json' shows it there). Every chunk is compared with it. A pull that was
interrupted goes on where it was."""
_EXAMPLES = """\
storagering pull jets --from http://127.0.0.1:8760
STORAGERING_PEER_TOKEN=... storagering pull jets --from https://node1.site.org:8760 --lazy"""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(verbs, "pull", run, summary="take a dataset from another node", examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("name", metavar="NAME", help="the dataset")
    parser.add_argument("--from", dest="peer", metavar="URL", help="the node (default: those of the setting peers)")
    parser.add_argument("--digest", metavar="HEX", help="the digest that the dataset's manifest must have")
    parser.add_argument("--lazy", action="store_true", help="fetch chunks when they are needed, not now")
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Pull, and say what came."""
    from storagering.api import pull
    from storagering.cli.progress import ConversionBar

    begin = time.perf_counter()
    with ConversionBar("pulling") as bar:
        dataset = pull(args.name, peer=args.peer, digest=args.digest, lazy=args.lazy, progress=bar)
    summary = summarise(dataset) | {"seconds": round(time.perf_counter() - begin, 3), "pulled": bar.started}
    if args.json:
        show_json(summary)
        return 0
    if not bar.started and not args.lazy:
        say(f"dataset {args.name!r} is there already: nothing to do")
    show_facts(describe(summary))
    return 0
