"""``storagering ls``, ``info`` and ``remove``."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from storagering.cli.console import format_bytes, format_number, say, show_facts, show_json, show_table
from storagering.cli.convert import describe, summarise, what_was_skipped
from storagering.cli.parsing import Verbs, add_verb
from storagering.errors import StorageringError

if TYPE_CHECKING:
    from storagering.cache.dataset import Dataset
    from storagering.cache.unfinished import UnfinishedBuild
    from storagering.types import Column, ColumnStatistics, Manifest, SourceFile

_STATISTICS = ("min", "max", "mean", "std")
_COUNTS = ("count", "nan_count", "inf_count", "zero_count")
_SOURCES_SHOWN = 20


def add_to(verbs: Verbs) -> None:
    """Add the verbs."""
    parser = add_verb(verbs, "ls", run_ls, summary="list the datasets of the cache", examples="storagering ls")
    parser.add_json()
    parser = add_verb(
        verbs,
        "info",
        run_info,
        summary="show what a dataset holds",
        examples="storagering info jets\nstoragering info jets --json",
        text="Totals, sources, columns with unit and statistics, and what was skipped and why.",
    )
    parser.add_argument("name", metavar="NAME", help="the dataset")
    parser.add_json()
    parser = add_verb(
        verbs, "remove", run_remove, summary="remove a dataset from the cache", examples="storagering remove jets"
    )
    parser.add_argument("name", metavar="NAME", help="the dataset")
    parser.add_argument("--force", action="store_true", help="also if it is pinned, or a loader reads it")


def run_ls(args: argparse.Namespace) -> int:
    """List the datasets."""
    summaries = [summarise(dataset) for dataset in _datasets()]
    if args.json:
        show_json(summaries)
    elif summaries:
        headers = ("name", "entries", "columns", "chunks", "on disk", "ratio", "format", "profile", "created")
        rows = [_row(summary) for summary in summaries]
        show_table(headers, rows, (False, True, True, True, True, True, False, False, False))
    else:
        say("the cache is empty; 'storagering convert SOURCE... --name NAME' fills it")
    for build in _unfinished():
        say(str(build))
    return 0


def _row(summary: dict[str, Any]) -> tuple[str, ...]:
    counts = (f"{summary[key]:,}" for key in ("entries", "columns", "chunks"))
    sizes = (format_bytes(summary["nbytes"]), f"{summary['ratio'] or 0:.2f}")
    return (summary["name"], *counts, *sizes, summary["format"], summary["profile"], summary["created"])


def run_info(args: argparse.Namespace) -> int:
    """Show one dataset."""
    from storagering.cache.dataset import open_dataset

    dataset = open_dataset(args.name)
    if args.json:
        show_json(_document(dataset))
        return 0
    manifest = dataset.manifest
    show_facts(
        describe(summarise(dataset)) | {"created": f"{dataset.created:%Y-%m-%d %H:%M:%S} by {manifest.software}"}
    )
    _show_sources(manifest)
    print()
    _show_columns(manifest)
    if manifest.skipped_sources:
        print(f"\n{len(manifest.skipped_sources)} source(s) left out")
        bad = [(s.url, s.reason) for s in manifest.skipped_sources]
        show_table(("source", "reason"), bad, (False, False))
    if manifest.skipped:
        print(f"\n{len(manifest.skipped)} column(s) skipped")
        rows = [(s.name, s.typename, s.reason) for s in manifest.skipped]
        show_table(("column", "type", "reason"), rows, (False, False, False))
    return 0


def run_remove(args: argparse.Namespace) -> int:
    """Remove one dataset."""
    from storagering.housekeeping import remove

    remove(args.name, force=args.force)
    say(f"removed dataset {args.name!r}")
    return 0


def _datasets() -> Iterator[Dataset]:
    """Every published dataset; a damaged one is told of and left out."""
    from storagering.cache.dataset import open_dataset
    from storagering.cache.layout import open_cache
    from storagering.config import load_settings

    cache = open_cache(load_settings())
    for name in cache.names():
        try:
            yield open_dataset(name, cache=cache)
        except StorageringError as error:
            warnings.warn(f"dataset {name!r} is left out: {error}", stacklevel=2)


def _unfinished() -> list[UnfinishedBuild]:
    from storagering.cache.layout import open_cache
    from storagering.config import load_settings

    return open_cache(load_settings()).unfinished()


def _document(dataset: Dataset) -> dict[str, Any]:
    manifest = dataset.manifest
    pairs = zip(manifest.schema.columns, manifest.statistics, strict=True)
    return summarise(dataset) | {
        "software": manifest.software,
        "digest": manifest.digest,
        "spec": manifest.spec,
        "sources": manifest.sources,
        "columns": [_describe_column(column, statistics) for column, statistics in pairs],
        "parent": manifest.parent,
        **what_was_skipped(dataset),
    }


def _describe_column(column: Column, statistics: ColumnStatistics | None) -> dict[str, Any]:
    about: dict[str, Any] = {
        "name": column.name,
        "kind": column.kind,
        "dtype": column.dtype,
        "unit": column.unit,
        "doc": column.doc,
    }
    about["mantissa_bits"] = column.mantissa_bits
    return about | {key: getattr(statistics, key, None) for key in (*_STATISTICS, *_COUNTS)}


def _show_sources(manifest: Manifest) -> None:
    print(f"\n{len(manifest.sources):,} source file(s)")
    rows = [
        (s.url, s.tree, f"{s.entries:,}", format_bytes(s.nbytes), _verified(s), s.label or "")
        for s in manifest.sources[:_SOURCES_SHOWN]
    ]
    headers = ("file", "tree", "entries", "size", "verified", "class")
    width = 6 if any(s.label for s in manifest.sources) else 5
    show_table(headers[:width], [row[:width] for row in rows], (False, False, True, True, False, False)[:width])
    if len(manifest.sources) > _SOURCES_SHOWN:
        print(f"... and {len(manifest.sources) - _SOURCES_SHOWN:,} more: --json lists all")


def _verified(source: SourceFile) -> str:
    """What says that the file was read as it was written."""
    if not source.verified:
        return "no"
    return source.checksum.partition(":")[0] or "in itself"


def _show_columns(manifest: Manifest) -> None:
    found = [_describe_column(c, s) for c, s in zip(manifest.schema.columns, manifest.statistics, strict=True)]
    # Columns about rare things are shown where one of them happened.
    possible = ("unit", "mantissa_bits", "nan_count", "inf_count", "doc")
    rare = [key for key in possible if any(column[key] for column in found)]
    text = ["name", "kind", "dtype", *[key for key in ("unit",) if key in rare]]
    counts = [key for key in ("mantissa_bits", "nan_count", "inf_count") if key in rare]
    rows = [
        [column[key] for key in text]
        + [format_number(column[key]) for key in _STATISTICS]
        + ["" if column[key] is None else f"{column[key]:,}" for key in counts]
        + [column["doc"] for _ in range("doc" in rare)]
        for column in found
    ]
    short = [key.removesuffix("_count").removeprefix("mantissa_") for key in counts]
    headers = [*text, *_STATISTICS, *short, *["doc"][: "doc" in rare]]
    numeric = [False] * len(text) + [True] * (len(_STATISTICS) + len(counts)) + [False] * ("doc" in rare)
    show_table(headers, rows, numeric)
