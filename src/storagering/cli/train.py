"""``storagering train``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from storagering.cli.console import say, show_facts
from storagering.cli.parsing import Verbs, add_verb

if TYPE_CHECKING:
    from storagering.training import Report

_EXAMPLES = """\
storagering train jet-deepset --data jets
storagering train jet-deepset --data jets --output run-2 --epochs 40 --seed 2"""
_TEXT = """\
Trains on 80% of the dataset and evaluates on the rest, next to boosted trees on the same jets.
Writes roc.png, report.json and checkpoint.safetensors. The same command again goes on where an
interrupted one stopped. Takes the extra storagering[torch]."""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    summary = "train a model of the suite on a dataset"
    parser = add_verb(verbs, "train", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("recipe", metavar="RECIPE", help="what to train, e.g. jet-deepset")
    parser.add_argument("--data", required=True, metavar="NAME", help="dataset of two classes or more")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: NAME-RECIPE in this folder")
    parser.add_argument("--epochs", type=int, metavar="N", help="default: the recipe's")
    parser.add_argument("--batch-size", type=int, metavar="N", help="default: the recipe's")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and order (default: 0)")
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Train, and show how well it went."""
    from storagering.training import TrainingOptions, train

    output = args.output or Path(f"{args.data}-{args.recipe}")
    checkpoint = output / "checkpoint.safetensors"
    if checkpoint.exists():
        say(f"going on from {checkpoint}")
    options = TrainingOptions(
        epochs=args.epochs, batch_size=args.batch_size, seed=args.seed, progress=sys.stderr.isatty()
    )
    report = train(args.recipe, args.data, output=output, options=options)
    if args.json:
        files = {name: str(path) for name, path in _files(output).items()}
        print(json.dumps(json.loads((output / "report.json").read_text()) | {"files": files}, indent=2))
    else:
        show_facts(describe_report(report, output))
    return 0


def describe_report(report: Report, output: Path) -> dict[str, str]:
    """The figures of merit, and where the rest is."""
    from storagering.training.options import WORKING_POINT

    return {
        "jets": f"{report.train_jets:,} to train, {report.test_jets:,} held out",
        "AUC": f"{report.auc:.4f} ± {report.auc_error:.4f} (boosted trees: {report.baseline_auc:.4f})",
        "background rejection": f"{report.rejection.describe()} at {WORKING_POINT:.0%} signal efficiency "
        f"(boosted trees: {report.baseline_rejection.describe()})",
        "speed": f"{report.examples_per_second:,.0f} jets/s over {report.settings.epochs} epochs",
    } | {name: str(path) for name, path in _files(output).items()}


def _files(output: Path) -> dict[str, Path]:
    return {
        "ROC curve": output / "roc.png",
        "report": output / "report.json",
        "checkpoint": output / "checkpoint.safetensors",
    }
