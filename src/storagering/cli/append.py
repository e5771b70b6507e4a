"""``storagering append``."""

from __future__ import annotations

import argparse
import time

from storagering.cli.console import say, show_facts, show_json
from storagering.cli.convert import add_work, describe, summarise, tell_skipped, what_was_skipped
from storagering.cli.parsing import Verbs, add_verb, parse_labels

_TEXT = """\
The sources are converted as those of the dataset were: the same columns, selection and storage. They
make a new version, which shares the chunks that are there; a training that reads the version before
goes on. Sources that the dataset has already are left out, so a pattern may name old and new files."""
_EXAMPLES = """\
storagering append jets 'root://server//store/run2/*.root'
storagering append tops --label top=top-9.root --label qcd=qcd-9.root"""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    summary = "add files to a dataset, as its next version"
    parser = add_verb(verbs, "append", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("name", metavar="NAME", help="the dataset")
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="what to read")
    text = "the sources of one class (repeatable), as in convert"
    parser.add_argument("--label", action="append", nargs="+", metavar="CLASS=SOURCE", default=[], help=text)
    add_work(parser)
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Append, and say what came of it."""
    labels = parse_labels(args.label)
    from storagering.api import append
    from storagering.cache.dataset import open_dataset
    from storagering.cli.progress import ConversionBar
    from storagering.config import load_settings

    started = time.perf_counter()
    with ConversionBar() as bar:
        dataset = append(
            args.name,
            args.sources or None,
            labels=labels or None,
            replicas=args.replica,
            checksums=args.checksum,
            on_bad_source=args.on_bad_source,
            scheduler=args.scheduler,
            workers=args.workers,
            settings=load_settings(quota=args.quota),
            progress=bar,
        )
    summary = summarise(dataset) | {"seconds": round(time.perf_counter() - started, 3), "built": bar.started}
    if bar.started:
        before = open_dataset(args.name, version=dataset.manifest.version - 1)
        summary["appended"] = len(dataset) - len(before)
        tell_skipped(dataset, before)
    else:
        say(f"dataset {args.name!r} has all of these sources already: nothing to do")
    if args.json:
        show_json(summary | what_was_skipped(dataset))
    else:
        new = {"appended": f"{summary['appended']:,} entries in {summary['seconds']:.1f} s"} if bar.started else {}
        show_facts(describe(summary | {"built": False}) | new)
    return 0
