"""``storagering du``, ``evict``, ``pin``, ``unpin`` and ``gc``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from storagering.cli.console import format_bytes, say, show_facts, show_json, show_table
from storagering.cli.parsing import QUOTA, Verbs, add_verb

if TYPE_CHECKING:
    from storagering.housekeeping import Usage

_DU = """\
What counts against the quota (--quota, or STORAGERING_QUOTA) is what lies on the disk, what is being
written and what interrupted builds have left."""
_EVICT = """\
Removes chunks that nobody needs and that can be had again: they are fetched from peers or made from
the sources, byte for byte, when somebody reads them. Datasets whose sources are gone stay, and so do
those that are pinned, by hand or by a running loader. With --to, what goes first is told by --policy:
lru (not used for longest), lfu (used least), greedy-dual (cheap to have again for its size), popularity
(what the catalog expects to be used least)."""
_GC = """\
Removes what nobody can use any more: leftovers of processes that died, files in quarantine, indexes that
were put aside. What interrupted builds have finished stays, as the same command goes on from there, unless
--unfinished is given."""


def add_to(verbs: Verbs) -> None:
    """Add the verbs."""
    parser = add_verb(
        verbs, "du", run_du, summary="show what takes room in the cache", examples="storagering du", text=_DU
    )
    parser.add_argument("--quota", metavar="SIZE", help=QUOTA)
    parser.add_json()
    examples = "storagering evict jets\nstoragering evict --to 100GB --policy lfu"
    parser = add_verb(
        verbs,
        "evict",
        run_evict,
        summary="make room: remove chunks that can be had again",
        examples=examples,
        text=_EVICT,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="datasets (default: all, with --to)")
    parser.add_argument("--to", metavar="SIZE", help="come down to this size: 100GB, or 20%% of the disk")
    parser.add_argument("--policy", metavar="POLICY", help="what goes first (default: STORAGERING_EVICTION, lru)")
    parser.add_json()
    summary = "keep what is on the disk of a dataset"
    parser = add_verb(verbs, "pin", run_pin, summary=summary, examples="storagering pin jets --reason 'thesis'")
    parser.add_argument("name", metavar="NAME", help="the dataset")
    parser.add_argument("--reason", default="pinned by hand", help="what for, shown to those who need room")
    parser = add_verb(
        verbs, "unpin", run_unpin, summary="let a dataset be evicted again", examples="storagering unpin jets"
    )
    parser.add_argument("name", metavar="NAME", help="the dataset")
    examples = "storagering gc --dry-run\nstoragering gc"
    parser = add_verb(verbs, "gc", run_gc, summary="remove what dead processes left", examples=examples, text=_GC)
    parser.add_argument("--unfinished", action="store_true", help="also what interrupted builds could go on from")
    parser.add_argument("--dry-run", action="store_true", help="only tell")
    parser.add_json()


def run_du(args: argparse.Namespace) -> int:
    """Show usage."""
    from storagering.config import load_settings
    from storagering.housekeeping import du

    usage = du(settings=load_settings(quota=args.quota))
    if args.json:
        show_json(usage)
        return 0
    _show(usage)
    return 0


def _show(usage: Usage) -> None:
    show_facts(
        {
            "cache": usage.root,
            "used": format_bytes(usage.used) + (f" of {format_bytes(usage.quota)}" if usage.quota else ", no quota"),
            "free on the disk": format_bytes(usage.free),
            "interrupted builds": format_bytes(usage.unfinished),
            "quarantine": format_bytes(usage.quarantine),
        }
    )
    if not usage.datasets:
        return
    print()
    rows = [
        (
            one.name,
            f"{one.chunks[0]:,} of {one.chunks[1]:,}",
            format_bytes(one.nbytes[0]),
            format_bytes(one.nbytes[1]),
            "; ".join(one.pins) or one.must_stay or "can be evicted",
        )
        for one in usage.datasets
    ]
    show_table(("dataset", "chunks here", "size here", "whole", "state"), rows, (False, True, True, True, False))


def run_evict(args: argparse.Namespace) -> int:
    """Evict."""
    from storagering.housekeeping import evict

    gone = evict(args.names, to=args.to, policy=args.policy)
    if args.json:
        show_json(gone)
    else:
        say(f"evicted {len(gone):,} chunks, {format_bytes(sum(chunk.nbytes for chunk in gone))}")
    return 0


def run_pin(args: argparse.Namespace) -> int:
    """Pin one dataset."""
    from storagering.housekeeping import pin

    pin(args.name, reason=args.reason)
    say(f"pinned dataset {args.name!r}")
    return 0


def run_unpin(args: argparse.Namespace) -> int:
    """Unpin one dataset."""
    from storagering.housekeeping import unpin

    unpin(args.name)
    say(f"unpinned dataset {args.name!r}")
    return 0


def run_gc(args: argparse.Namespace) -> int:
    """Sweep up."""
    from storagering.housekeeping import gc

    swept = gc(unfinished=args.unfinished, dry_run=args.dry_run)
    if args.json:
        show_json(swept)
        return 0
    if swept:
        rows = [(one.path, one.what, format_bytes(one.nbytes)) for one in swept]
        show_table(("path", "what it is", "size"), rows, (False, False, True))
    verb = "would free" if args.dry_run else "freed"
    say(f"{verb} {format_bytes(sum(one.nbytes for one in swept))}")
    return 0
