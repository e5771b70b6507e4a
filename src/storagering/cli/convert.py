"""``storagering convert``."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from storagering.cli.console import clean, format_bytes, say, show_facts, show_json, show_table
from storagering.cli.parsing import Parser, Verbs, add_verb, parse_definitions, parse_labels, parse_size

if TYPE_CHECKING:
    from storagering.cache.dataset import Dataset

_SHOWN = 20
_TEXT = """\
SOURCE is a ROOT file, a pattern, a URL (root://, http://, https://) or @list.txt with one source a
line. Conversion happens once: where a dataset of that name was made in the same way, nothing is
done. What cannot be read is skipped and listed; the dataset appears when it is complete, or not
at all."""
_EXAMPLES = """\
storagering convert 'root://server//store/*.root' --name jets --columns 'Jet_*' MET_pt
storagering convert --name tops --label top=top-*.root --label qcd=qcd-*.root --where 'jet_pt > 550'"""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs, "convert", run, summary="convert ROOT files into a dataset of the cache", examples=_EXAMPLES, text=_TEXT
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="what to read")
    parser.add_argument("--name", required=True, help="what the dataset will be called")
    _add_contents(parser)
    _add_storage(parser)
    parser.add_json()


def _add_contents(parser: Parser) -> None:
    group = parser.add_argument_group("contents")
    group.add_argument("--tree", help="the TTree or RNTuple, where a file has several")
    text = "columns to take, by name or pattern (default: all)"
    group.add_argument("--columns", nargs="+", action="extend", metavar="GLOB", help=text)
    group.add_argument("--exclude", nargs="+", action="extend", metavar="GLOB", default=[], help="columns to leave out")
    group.add_argument("--where", metavar="EXPR", help="keep the entries for which this is true")
    text = "compute a column (repeatable), e.g. 'ht=sum(Jet_pt)'"
    group.add_argument("--define", action="append", metavar="NAME=EXPR", default=[], help=text)
    text = "the sources of one class (repeatable): makes the column 'label', 0 for the first class"
    group.add_argument("--label", action="append", nargs="+", metavar="CLASS=SOURCE", default=[], help=text)


def _add_storage(parser: Parser) -> None:
    group = parser.add_argument_group("storage")
    group.add_argument("--format", choices=("zarr", "parquet"), default="zarr", help="default: zarr")
    text = "small on disk, or fast to decode (default: small)"
    group.add_argument("--profile", choices=("small", "fast"), default="small", help=text)
    text = "decoded size of one chunk (default: 16MiB)"
    group.add_argument("--chunk-bytes", type=parse_size, metavar="SIZE", default=16 << 20, help=text)
    group.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    text = "what to do with columns that cannot be read (default: skip them)"
    group.add_argument("--on-bad-column", choices=("skip", "fail"), default="skip", help=text)


def run(args: argparse.Namespace) -> int:
    """Convert, and say what came of it."""
    labels, define = parse_labels(args.label), parse_definitions(args.define)
    from storagering.api import convert
    from storagering.cli.progress import ConversionBar

    started = time.perf_counter()
    with ConversionBar() as bar:
        dataset = convert(
            args.sources or None,
            name=args.name,
            tree=args.tree,
            columns=args.columns,
            exclude=args.exclude,
            where=args.where,
            define=define,
            labels=labels or None,
            format=args.format,
            profile=args.profile,
            chunk_bytes=args.chunk_bytes,
            on_bad_column=args.on_bad_column,
            workers=args.workers,
            progress=bar,
        )
    seconds = time.perf_counter() - started
    _tell_outcome(dataset, built=bar.started)
    summary = summarise(dataset) | {"seconds": round(seconds, 3), "built": bar.started}
    if args.json:
        show_json(summary | {"skipped": dataset.manifest.skipped})
    else:
        show_facts(describe(summary))
    return 0


def summarise(dataset: Dataset) -> dict[str, Any]:
    """The totals of a dataset."""
    manifest = dataset.manifest
    nbytes, raw = sum(c.nbytes for c in manifest.chunks), sum(c.raw_bytes for c in manifest.chunks)
    return {
        "name": manifest.name,
        "path": str(dataset.path),
        "entries": manifest.num_entries,
        "columns": len(manifest.schema.columns),
        "chunks": len(manifest.chunks),
        "format": manifest.spec.format,
        "profile": manifest.spec.profile,
        "classes": manifest.spec.classes,
        "nbytes": nbytes,
        "raw_bytes": raw,
        "ratio": round(raw / nbytes, 3) if nbytes else None,
        "created": dataset.created.isoformat(timespec="seconds"),
    }


def describe(summary: dict[str, Any]) -> dict[str, str]:
    """The totals for people."""
    nbytes, raw = summary["nbytes"], summary["raw_bytes"]
    facts = {
        "dataset": f"{summary['name']} in {summary['path']}",
        "entries": f"{summary['entries']:,}",
        "columns": f"{summary['columns']:,}",
        "chunks": f"{summary['chunks']:,} ({summary['format']}, {summary['profile']})",
        "on disk": f"{format_bytes(nbytes)} for {format_bytes(raw)} decoded: ratio {summary['ratio'] or 0:.2f}",
    }
    if summary["classes"]:
        facts["label"] = ", ".join(f"{number} is {name}" for number, name in enumerate(summary["classes"]))
    if summary.get("built"):
        seconds = max(summary["seconds"], 1e-3)
        facts["time"] = (
            f"{seconds:.1f} s: {summary['entries'] / seconds:,.0f} entries/s, {format_bytes(raw / seconds)}/s"
        )
    return facts


def _tell_outcome(dataset: Dataset, *, built: bool) -> None:
    manifest = dataset.manifest
    if not built:
        when = f"{dataset.created:%Y-%m-%d}"
        say(f"dataset {manifest.name!r} is there already, made in the same way on {when}: nothing to do")
        return
    if manifest.skipped:
        say(f"{len(manifest.skipped)} column(s) could not be read and were skipped:")
        rows = [(s.name, s.typename, s.reason) for s in manifest.skipped[:_SHOWN]]
        show_table(("column", "type", "reason"), rows, (False, False, False), err=True)
    if len(manifest.skipped) > _SHOWN:
        say(f"... and {len(manifest.skipped) - _SHOWN} more: storagering info {clean(manifest.name)}")
