"""``storagering demo``."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storagering.cli.console import say, show_facts, show_table
from storagering.cli.parsing import Verbs, add_verb, parse_labels

if TYPE_CHECKING:
    from storagering.demo.run import DemoOptions, DemoResult, DemoTalk

_EXAMPLES = """\
storagering demo
storagering demo --source 'root://server//store/user/me/*.root'
storagering demo --label signal=signal.root --label background=background.root"""
_TEXT = """\
The whole chain: ROOT files behind an XRootD server are converted, queried with SQL, trained on, and
read epoch by epoch next to a plain loop over the ROOT files. Without SOURCE it simulates jets (a
few minutes). Everything lies below the output folder; a second run uses what the first has made."""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    summary = "show everything at work, on simulated jets or on your files"
    parser = add_verb(verbs, "demo", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("--source", nargs="+", action="extend", metavar="SOURCE", default=[], help="your own files")
    text = "your own files of one class (repeatable); two classes can be trained on"
    parser.add_argument("--label", action="append", nargs="+", metavar="CLASS=SOURCE", default=[], help=text)
    parser.add_argument("--tree", metavar="NAME", help="the TTree or RNTuple of your files, if they hold several")
    parser.add_argument("--output", type=Path, metavar="DIR", default=Path("demo-output"), help="default: demo-output")
    parser.add_argument("--jets", type=int, default=6000, metavar="N", help="jets to simulate (default: 6000)")


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    labels = parse_labels(args.label)
    from storagering.demo.run import DemoOptions, run_demo
    from storagering.errors import SpecError

    if labels and args.source:
        raise SpecError("give --source or --label: with labels, every source needs its class")
    options = DemoOptions(
        sources=args.source,
        labels=labels,
        tree=args.tree,
        output=args.output,
        jets=args.jets,
        training_progress=sys.stderr.isatty(),
    )
    with ExitStack() as stack:
        result = run_demo(options, _make_talk(stack))
    _show(result, options)
    return 0


def _make_talk(stack: ExitStack) -> DemoTalk:
    from storagering.cache.progress import BuildProgress
    from storagering.cli.progress import ConversionBar, counting_bar
    from storagering.cli.sql_output import show_result
    from storagering.demo.run import DemoTalk

    class Talk(DemoTalk):
        """On the terminal."""

        def step(self, title: str) -> None:
            stack.close()  # the bar of the step before
            print(f"\n== {title}", flush=True)

        def say(self, message: str) -> None:
            say(message)

        def table(self, query: str, table: Any) -> None:
            print(f"{query}\n")
            show_result(table)

        def generated(self, jets: int, total: int) -> None:
            if not hasattr(self, "_jets"):
                self._jets = stack.enter_context(counting_bar("simulating jets", total))
            self._jets(jets)

        def converting(self) -> BuildProgress:
            return stack.enter_context(ConversionBar())

    return Talk()


def _show(result: DemoResult, options: DemoOptions) -> None:
    from storagering.cli.train import describe_report
    from storagering.demo.run import training_folder

    if result.epochs:
        first = result.epochs[0]
        headers = ("one epoch", "seconds", "entries/s", "times faster")
        rows = [(e.what, f"{e.total:.2f}", f"{e.rate:,.0f}", f"{first.total / e.total:.1f}") for e in result.epochs]
        show_table(headers, rows, (False, True, True, True))
        if first.total > first.seconds * 1.01:
            say(f"the loop over ROOT was stopped after {first.entries:,} entries: its time is extrapolated")
    if result.report is not None:
        print("\n== Result")
        show_facts(describe_report(result.report, training_folder(options.output, result.dataset)))
