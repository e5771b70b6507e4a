"""``storagering convert``."""

from __future__ import annotations

import argparse
import math
import time
from typing import TYPE_CHECKING, Any

from storagering.cli.console import clean, format_bytes, say, show_facts, show_json, show_table
from storagering.cli.parsing import (
    QUOTA,
    Parser,
    Verbs,
    add_verb,
    parse_definitions,
    parse_labels,
    parse_precision,
    parse_size,
)
from storagering.errors import InputError

if TYPE_CHECKING:
    from storagering.cache.dataset import Dataset
    from storagering.formats.weaver import WeaverConfig

_SHOWN = 20
#: Columns of at least so many numbers an entry, with at least that share of zeros, are worth a hint.
_LARGE, _WORTH_SPARSE = 64, 0.75
_TEXT = """\
SOURCE is a file (ROOT, Parquet, HDF5, Zarr, Arrow, Avro, NumPy, CSV, JSON lines, LHE, HepMC; packed
or not), a pattern, a URL (root://, http://, https://, s3://) or @list.txt with one source a line.
Conversion happens once: where a dataset of that name was made in the same way, nothing is done; one
that was interrupted goes on where it was. Columns that cannot be read are skipped and listed; the
dataset appears when it is complete, or not at all."""
_EXAMPLES = """\
storagering convert 'root://server//store/*.root' --name jets --columns 'Jet_*' MET_pt
storagering convert --name tops --label top=top-*.root --label qcd=qcd-*.root --where 'jet_pt > 550'
storagering convert --name mixed --label top=top-*.root --label qcd=qcd-*.root --mix 1"""


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs, "convert", run, summary="convert files into a dataset of the cache", examples=_EXAMPLES, text=_TEXT
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="what to read")
    parser.add_argument("--name", required=True, help="what the dataset will be called")
    _add_contents(parser)
    _add_storage(parser)
    add_work(parser)
    parser.add_json()


def _add_contents(parser: Parser) -> None:
    group = parser.add_argument_group("contents")
    group.add_argument("--tree", help="the tree, table or group, where a file has several")
    text = "columns to take, by name or pattern (default: all)"
    group.add_argument("--columns", nargs="+", action="extend", metavar="GLOB", help=text)
    group.add_argument("--exclude", nargs="+", action="extend", metavar="GLOB", default=[], help="columns to leave out")
    group.add_argument("--where", metavar="EXPR", help="keep the entries for which this is true")
    text = "compute a column (repeatable), e.g. 'ht=sum(Jet_pt)'"
    group.add_argument("--define", action="append", metavar="NAME=EXPR", default=[], help=text)
    text = "another tree with the same entries, whose columns are added (repeatable): TREE, or SOURCES:TREE"
    group.add_argument("--friend", action="append", metavar="TREE", default=[], help=text)
    text = "mantissa bits of floats to keep (repeatable), e.g. 'Jet_*=10': relative error at most 2^-11"
    group.add_argument("--precision", action="append", metavar="GLOB=BITS", default=[], help=text)
    text = "columns of fixed shape that are mostly zeros, of which only the rest is stored (repeatable)"
    group.add_argument("--sparse", action="append", metavar="GLOB", default=[], help=text)
    text = "data configuration of weaver-core's: selection, new variables, inputs, labels and weights"
    group.add_argument("--weaver", metavar="YAML", help=text)
    text = "take its test_time_selection, and no weights"
    group.add_argument("--weaver-test", action="store_true", help=text)
    text = "the sources of one class (repeatable): makes the column 'label', 0 for the first class"
    group.add_argument("--label", action="append", nargs="+", metavar="CLASS=SOURCE", default=[], help=text)


def _add_storage(parser: Parser) -> None:
    group = parser.add_argument_group("storage")
    group.add_argument("--format", choices=("zarr", "parquet"), default="zarr", help="default: zarr")
    text = "small on disk, or fast to decode (default: small)"
    group.add_argument("--profile", choices=("small", "fast"), default="small", help=text)
    text = (
        "store the entries of all sources in one random order, drawn from this seed. For sources of one class or "
        "process each: any few chunks then hold all of them in their shares, so training mixes well however it "
        "reads. The column 'entry_id' keeps the way back. Takes room for all entries, decoded, while it works; chunks "
        "are not evicted, and cannot be made again one by one"
    )
    group.add_argument("--mix", type=int, metavar="SEED", help=text)
    text = "columns by themselves, or flat ones packed by entry, so that any entry is read alone (default: columns)"
    group.add_argument("--layout", choices=("columns", "rows"), default="columns", help=text)
    text = "decoded size of one chunk (default: 16MiB)"
    group.add_argument("--chunk-bytes", type=parse_size, metavar="SIZE", default=16 << 20, help=text)
    text = "what to do with columns that cannot be read (default: skip them)"
    group.add_argument("--on-bad-column", choices=("skip", "fail"), default="skip", help=text)


def add_work(parser: Parser) -> None:
    """Add how sources are read and where the work is done."""
    group = parser.add_argument_group("work")
    group.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    group.add_argument("--quota", metavar="SIZE", help=QUOTA)
    text = "where to work: 'processes' of this machine (default), or a dask scheduler, tcp://HOST:PORT"
    group.add_argument("--scheduler", metavar="ADDRESS", default="processes", help=text)
    text = (
        "copies of the sources, tried in order when reading fails (repeatable): a server with the same paths, "
        "e.g. root://other.site/, or OLD=NEW for the beginnings of URLs, or a whole URL for one source"
    )
    group.add_argument("--replica", action="append", metavar="WHERE", default=[], help=text)
    text = (
        "what a whole file must add up to (repeatable): ALGORITHM:HEX for one source, SOURCE=ALGORITHM:HEX, "
        "or @FILE with lines of ALGORITHM:HEX SOURCE; adler32, crc32c, crc32, md5, sha256 or xxh3"
    )
    group.add_argument("--checksum", action="append", metavar="CHECKSUM", default=[], help=text)
    text = "what to do with sources that cannot be read or differ from the others (default: fail)"
    group.add_argument("--on-bad-source", choices=("skip", "fail"), default="fail", help=text)


def run(args: argparse.Namespace) -> int:
    """Convert, and say what came of it."""
    labels, define = parse_labels(args.label), parse_definitions(args.define)
    from storagering.api import convert
    from storagering.cli.progress import ConversionBar
    from storagering.config import load_settings

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
            friends=args.friend,
            precision=parse_precision(args.precision),
            sparse=args.sparse,
            weaver=_read_weaver(args),
            mix=args.mix,
            labels=labels or None,
            replicas=args.replica,
            checksums=args.checksum,
            format=args.format,
            profile=args.profile,
            layout=args.layout,
            chunk_bytes=args.chunk_bytes,
            on_bad_column=args.on_bad_column,
            on_bad_source=args.on_bad_source,
            scheduler=args.scheduler,
            workers=args.workers,
            settings=load_settings(quota=args.quota),
            progress=bar,
        )
    seconds = time.perf_counter() - started
    _tell_outcome(dataset, built=bar.started)
    summary = summarise(dataset) | {"seconds": round(seconds, 3), "built": bar.started}
    if args.json:
        show_json(summary | what_was_skipped(dataset))
    else:
        show_facts(describe(summary))
    return 0


def _read_weaver(args: argparse.Namespace) -> WeaverConfig | None:
    from storagering.formats.weaver import read_weaver

    if args.weaver is None and args.weaver_test:
        raise InputError("--weaver-test needs --weaver YAML")
    return None if args.weaver is None else read_weaver(args.weaver, test=args.weaver_test)


def summarise(dataset: Dataset) -> dict[str, Any]:
    """The totals of a dataset."""
    manifest = dataset.manifest
    nbytes, raw = sum(c.nbytes for c in manifest.chunks), sum(c.raw_bytes for c in manifest.chunks)
    return {
        "name": manifest.name,
        "path": str(dataset.path),
        "version": manifest.version,
        "entries": manifest.num_entries,
        "bad_sources": len(manifest.skipped_sources),
        "columns": len(manifest.schema.columns),
        "chunks": len(manifest.chunks),
        "format": manifest.spec.format,
        "profile": manifest.spec.profile,
        "layout": manifest.spec.layout,
        "classes": manifest.spec.classes,
        "mix": manifest.spec.mix,
        "nbytes": nbytes,
        "raw_bytes": raw,
        "ratio": round(raw / nbytes, 3) if nbytes else None,
        "created": dataset.created.isoformat(timespec="seconds"),
    }


def describe(summary: dict[str, Any]) -> dict[str, str]:
    """The totals for people."""
    nbytes, raw, bad = summary["nbytes"], summary["raw_bytes"], summary["bad_sources"]
    facts = {
        "dataset": f"{summary['name']} in {summary['path']}",
        "entries": f"{summary['entries']:,}" + (f", without those of {bad:,} bad source(s)" if bad else ""),
        "columns": f"{summary['columns']:,}",
        "chunks": f"{summary['chunks']:,} ({_how_stored(summary)})",
        "on disk": f"{format_bytes(nbytes)} for {format_bytes(raw)} decoded: ratio {summary['ratio'] or 0:.2f}",
    }
    if summary["version"] > 1:
        facts["version"] = f"{summary['version']}"
    if summary["mix"] is not None:
        facts["order"] = f"mixed over all sources, seed {summary['mix']}"
    if summary["classes"]:
        facts["label"] = ", ".join(f"{number} is {name}" for number, name in enumerate(summary["classes"]))
    if summary.get("built"):
        seconds = max(summary["seconds"], 1e-3)
        facts["time"] = (
            f"{seconds:.1f} s: {summary['entries'] / seconds:,.0f} entries/s, {format_bytes(raw / seconds)}/s"
        )
    return facts


def _how_stored(summary: dict[str, Any]) -> str:
    return ", ".join((summary["format"], summary["profile"], *(["rows"] if summary["layout"] == "rows" else [])))


def _tell_outcome(dataset: Dataset, *, built: bool) -> None:
    manifest = dataset.manifest
    if not built:
        when = f"{dataset.created:%Y-%m-%d}"
        say(f"dataset {manifest.name!r} is there already, made in the same way on {when}: nothing to do")
        return
    tell_skipped(dataset)
    if names := _mostly_zero(dataset):
        say(f"mostly zeros: {', '.join(map(clean, names))}; --sparse would store only the rest, and read it faster")


def _mostly_zero(dataset: Dataset) -> list[str]:
    """Columns of fixed shape that could be sparse."""
    pairs = zip(dataset.schema.columns, dataset.manifest.statistics, strict=True)
    told = [(c.name, s) for c, s in pairs if c.kind == "fixed-shape" and s is not None and math.prod(c.shape) >= _LARGE]
    return [name for name, s in told if s.zero_count > _WORTH_SPARSE * s.count]


def what_was_skipped(dataset: Dataset) -> dict[str, Any]:
    """Columns and sources that were left out, for JSON."""
    return {"skipped": dataset.manifest.skipped, "skipped_sources": dataset.manifest.skipped_sources}


def tell_skipped(dataset: Dataset, before: Dataset | None = None) -> None:
    """Say which sources and columns were left out and why, but for those that an earlier version lacks too."""
    manifest, known = dataset.manifest, before.manifest if before else None
    bad = [(s.url, s.reason) for s in manifest.skipped_sources if not known or s not in known.skipped_sources]
    columns = [(s.name, s.typename, s.reason) for s in manifest.skipped if not known or s not in known.skipped]
    if bad:
        say(f"{len(bad)} source(s) could not be read and were left out:")
        show_table(("source", "reason"), bad[:_SHOWN], (False, False), err=True)
    if columns:
        say(f"{len(columns)} column(s) could not be read and were skipped:")
        show_table(("column", "type", "reason"), columns[:_SHOWN], (False, False, False), err=True)
    more = sum(max(0, len(found) - _SHOWN) for found in (bad, columns))
    if more:
        say(f"... and {more} more: storagering info {clean(manifest.name)}")
