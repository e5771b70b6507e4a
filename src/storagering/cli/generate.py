"""``storagering generate``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from storagering.cli.console import format_bytes, say
from storagering.cli.parsing import Verbs, add_verb

_EXAMPLES = """\
storagering generate jets --jets 3000 --classes top,qcd --out jets.root
storagering generate jets --jets 3000 --classes top --seed 2 --out top.root"""
_TEXT = """\
Jets of 500 to 700 GeV from 13 TeV proton collisions at particle level, with their particles. The
classes are top, qcd and w; 'jet_class' counts them. Takes the extra storagering[generate]: Pythia 8
and FastJet. Some 60 jets a second and core."""


def add_to(verbs: Verbs) -> None:
    """Add the family."""
    summary = "make realistic data to try things on"
    parser = add_verb(verbs, "generate", run_jets, summary=summary, examples=_EXAMPLES)
    kinds = parser.add_subparsers(title="kinds", metavar="KIND", required=True)
    summary = "generate jets with Pythia 8"
    parser = add_verb(kinds, "jets", run_jets, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("--jets", type=int, required=True, metavar="N", help="jets in all, evenly of each class")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="ROOT file to write")
    parser.add_argument("--classes", default="top,qcd", metavar="A,B", help="default: top,qcd")
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="default: 1; the same seed gives the same jets"
    )
    parser.add_argument("--processes", type=int, metavar="N", help="default: one a core")


def run_jets(args: argparse.Namespace) -> int:
    """Generate jets."""
    from storagering.cli.progress import counting_bar
    from storagering.config import usable_cpus
    from storagering.testing.jets import generate_jets

    started = time.perf_counter()
    classes = [name.strip() for name in args.classes.split(",") if name.strip()]
    processes = usable_cpus() if args.processes is None else args.processes
    with counting_bar("generating jets", args.jets) as bar:
        jets = generate_jets(
            args.out, classes=classes, num_jets=args.jets, seed=args.seed, processes=processes, progress=bar
        )
    seconds = time.perf_counter() - started
    say(f"{jets:,} jets in {seconds:.1f} s ({jets / seconds:.0f} jets/s), {format_bytes(args.out.stat().st_size)}")
    print(args.out)
    return 0
