"""``storagering verify``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from storagering.cli.console import say, show_json, show_table
from storagering.cli.parsing import Verbs, add_verb

if TYPE_CHECKING:
    from storagering.cache.verify import Fault

_TEXT = """\
Every byte is compared with the digests in the manifest; nothing is changed unless --repair is given,
which makes damaged chunks again from the sources, byte for byte, and keeps the damaged files in the
cache's folder 'quarantine'."""
_EXAMPLES = """\
storagering verify jets
storagering verify jets --repair"""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    summary = "check every byte of datasets, and mend them"
    parser = add_verb(verbs, "verify", run, summary=summary, examples=_EXAMPLES, text=_TEXT)
    parser.add_argument("names", nargs="+", metavar="NAME", help="the datasets")
    parser.add_argument("--repair", action="store_true", help="make damaged chunks again from the sources")
    text = "where else the sources are (repeatable), as in convert"
    parser.add_argument("--replica", action="append", metavar="WHERE", default=[], help=text)
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Check, and say what was found; 1 if something is damaged and stays so."""
    from storagering.api import verify
    from storagering.cli.progress import ConversionBar

    found: dict[str, tuple[Fault, ...]] = {}
    for name in args.names:
        with ConversionBar("verifying") as bar:
            found[name] = verify(name, repair=args.repair, replicas=args.replica, progress=bar)
    if args.json:
        show_json([{"name": name, "faults": faults} for name, faults in found.items()])
    else:
        _show(found, repair=args.repair)
    return 1 if any(found.values()) else 0


def _show(found: dict[str, tuple[Fault, ...]], *, repair: bool) -> None:
    rows = [
        (name, fault.file, "" if fault.chunk is None else f"{fault.start:,} to {fault.stop:,}", fault.why)
        for name, faults in found.items()
        for fault in faults
    ]
    if rows:
        show_table(("dataset", "file", "entries", "what is wrong"), rows, (False,) * 4)
    for name, faults in found.items():
        if not faults:
            print(f"{name}: every byte{_where(name)} is as it was written")
        elif repair or any(fault.chunk is None for fault in faults):
            say(f"{name}: 'storagering remove {name}' and convert it again to mend what --repair cannot")
        else:
            say(f"{name}: 'storagering verify {name} --repair' makes these chunks again from the sources")


def _where(name: str) -> str:
    """Which of its bytes were looked at, if not all."""
    from storagering.cache.dataset import open_dataset
    from storagering.cache.residency import missing_chunks

    dataset = open_dataset(name)
    total, absent = len(dataset.manifest.chunks), len(missing_chunks(dataset.path, dataset.manifest))
    return f" of the {total - absent:,} chunks here ({absent:,} were evicted)" if absent else ""
