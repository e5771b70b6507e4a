"""``storagering export``."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from storagering.cli.console import format_bytes, say, show_facts, show_json, show_table
from storagering.cli.parsing import Parser, Verbs, add_verb

if TYPE_CHECKING:
    from storagering.exporting import Exported

#: As `storagering.formats.writers.FORMATS`, without importing it for every ``--help``.
FORMATS = ("root", "rntuple", "parquet", "hdf5", "zarr", "arrow", "npz")
_SHOWN = 20
_TEXT = """\
OUT is a local path; for zarr a folder, or a zip file if it ends with .zip. Values and types are those
of the dataset, bit for bit. Columns that the format cannot hold are skipped and listed; OUT appears
when it is complete, or not at all."""
_EXAMPLES = """\
storagering export jets --to parquet jets.parquet
storagering export jets --to root jets.root --columns 'jet_*' --where 'jet_pt > 550'"""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs, "export", run, summary="write a dataset as a file of another format", examples=_EXAMPLES, text=_TEXT
    )
    parser.add_argument("name", metavar="NAME", help="the dataset")
    parser.add_argument("out", metavar="OUT", help="the file to write")
    text = "what to call the tree or group (default: as in the first source)"
    add_output_options(parser, tree_help=text)


def add_output_options(parser: Parser, *, tree_help: str) -> None:
    """Add what ``export`` and ``copy`` share."""
    parser.add_argument("--to", required=True, choices=FORMATS, help="the format; root is a TTree")
    group = parser.add_argument_group("contents")
    group.add_argument("--tree", help=tree_help)
    text = "columns to write, by name or pattern (default: all)"
    group.add_argument("--columns", nargs="+", action="extend", metavar="GLOB", help=text)
    group.add_argument("--exclude", nargs="+", action="extend", metavar="GLOB", default=[], help="columns to leave out")
    group.add_argument("--where", metavar="EXPR", help="write the entries for which this is true")
    group.add_argument("--start", type=int, metavar="N", default=0, help="first entry (default: 0)")
    group.add_argument("--stop", type=int, metavar="N", help="the entry after the last (default: all)")
    group = parser.add_argument_group("output")
    text = "a codec of the format, with a level if it has any: zstd:3, none (default: the format's usual one)"
    group.add_argument("--compression", metavar="CODEC", help=text)
    text = "what to do with columns that the format cannot hold (default: skip them)"
    group.add_argument("--on-bad-column", choices=("skip", "fail"), default="skip", help=text)
    group.add_argument("--force", action="store_true", help="replace OUT if it is there")
    parser.add_json()


def run(args: argparse.Namespace) -> int:
    """Write the dataset, and say what came of it."""
    from storagering.cli.progress import ConversionBar
    from storagering.exporting import export

    started = time.perf_counter()
    with ConversionBar("writing") as bar:
        exported = export(args.name, args.out, **output_options(args), progress=bar)
    tell_outcome(exported, time.perf_counter() - started, as_json=args.json)
    return 0


def output_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_output_options` as keyword arguments."""
    names = ("to", "tree", "columns", "exclude", "where", "start", "stop", "compression", "on_bad_column", "force")
    return {name: getattr(args, name) for name in names}


def tell_outcome(exported: Exported, seconds: float, *, as_json: bool) -> None:
    """Show what was written and what was not."""
    if exported.skipped:
        say(f"{len(exported.skipped)} column(s) were skipped:")
        rows = [(s.name, s.typename, s.reason) for s in exported.skipped[:_SHOWN]]
        show_table(("column", "type", "reason"), rows, (False, False, False), err=True)
    if len(exported.skipped) > _SHOWN:
        say(f"... and {len(exported.skipped) - _SHOWN} more: --json lists all")
    if as_json:
        show_json(_summary(exported) | {"seconds": round(seconds, 3), "skipped": exported.skipped})
        return
    raw, seconds = exported.raw_bytes, max(seconds, 1e-3)
    on_disk = f"{format_bytes(exported.nbytes)} for {format_bytes(raw)} decoded: ratio {exported.ratio or 0:.2f}"
    show_facts(
        {
            "file": f"{exported.out} ({exported.format})",
            "entries": f"{exported.entries:,}",
            "columns": f"{exported.columns:,}",
            "on disk": on_disk,
            "time": f"{seconds:.1f} s: {exported.entries / seconds:,.0f} entries/s, {format_bytes(raw / seconds)}/s",
        }
    )


def _summary(exported: Exported) -> dict[str, Any]:
    return {
        "out": str(exported.out),
        "format": exported.format,
        "entries": exported.entries,
        "columns": exported.columns,
        "nbytes": exported.nbytes,
        "raw_bytes": exported.raw_bytes,
        "ratio": None if exported.ratio is None else round(exported.ratio, 3),
    }
