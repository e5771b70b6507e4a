"""``storagering inspect``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from storagering.cli.console import format_bytes, show_facts, show_json, show_table
from storagering.cli.parsing import Verbs, add_verb

if TYPE_CHECKING:
    from storagering.formats.inspect import ColumnReport, FileReport, TableReport

_TITLE_SHOWN = 60


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "inspect",
        run_inspect,
        summary="show what a source file holds, without reading its data",
        examples="storagering inspect root://server//store/file.root\n"
        "storagering inspect file.root --tree Events --sort size --json",
        text="Tables, entries and clusters; columns with type, title, compression and sizes.",
    )
    parser.add_argument("source", metavar="SOURCE", help="path or URL of one file")
    parser.add_argument("--tree", metavar="NAME", help="only this tree or table (all without it)")
    parser.add_argument(
        "--sort", choices=("file", "size", "name"), default="file", help="order of the columns; size: widest first"
    )
    parser.add_json()


def run_inspect(args: argparse.Namespace) -> int:
    """Show one file."""
    from storagering.formats.inspect import inspect

    report = inspect(args.source, tree=args.tree)
    if args.json:
        show_json(_document(report, args.sort))
        return 0
    show_facts(_describe_file(report))
    for table in report.tables:
        print()
        show_facts(_describe_table(table))
        if table.columns:
            print()
            _show_columns(table, args.sort)
    return 0


def _describe_file(report: FileReport) -> dict[str, str]:
    facts = {"file": report.url, "size": format_bytes(report.nbytes)}
    return facts | ({"checksum": f"{report.checksum}, verified"} if report.checksum else {})


def _describe_table(table: TableReport) -> dict[str, str]:
    facts = {"table": table.name or "(the file itself)"}
    if table.title not in ("", table.name):
        facts["title"] = table.title
    facts |= {"format": table.format, "entries": f"{table.entries:,}", "columns": f"{len(table.columns):,}"}
    if table.clusters:
        facts["clusters"] = _describe_clusters(table.clusters)
    stored, decoded = table.stored_bytes, table.decoded_bytes
    if stored is not None and decoded is not None:
        facts["size"] = f"{format_bytes(stored)}, {format_bytes(decoded)} decoded{_in_words(stored, decoded)}"
    facts["checksums"] = "all that is read is checked" if table.self_checked else "not of everything that is read"
    return facts


def _describe_clusters(clusters: tuple[int, ...]) -> str:
    least, most = min(clusters), max(clusters)
    return f"{len(clusters):,} of {least:,}{f' to {most:,}' if most > least else ''} entries"


def _in_words(stored: int, decoded: int) -> str:
    return f" ({decoded / stored:.2f} times as much)" if stored else ""


def _sorted(table: TableReport, order: str) -> list[ColumnReport]:
    if order == "name":
        return sorted(table.columns, key=lambda column: column.name.lower())
    if order == "size":
        return sorted(table.columns, key=lambda column: -(column.storage.stored_bytes or 0))
    return list(table.columns)


def _show_columns(table: TableReport, order: str) -> None:
    rows = [_row(column) for column in _sorted(table, order)]
    total, stored, decoded = f"{len(table.columns):,} column(s)", table.stored_bytes, table.decoded_bytes
    rows.append([total, "", "", "", _size(stored), _size(decoded), _ratio(stored, decoded), ""])
    headers = ("column", "type", "compression", "blocks", "stored", "decoded", "ratio", "title")
    numeric = (False, False, False, True, True, True, True, False)
    shown = [n for n in range(len(headers)) if n < 2 or any(row[n] for row in rows)]
    show_table([headers[n] for n in shown], [[row[n] for n in shown] for row in rows], [numeric[n] for n in shown])


def _row(column: ColumnReport) -> list[str]:
    storage, title = column.storage, column.doc
    return [
        column.name,
        column.typename,
        storage.compression,
        "" if storage.blocks is None else f"{storage.blocks:,}",
        _size(storage.stored_bytes),
        _size(storage.decoded_bytes),
        _ratio(storage.stored_bytes, storage.decoded_bytes),
        title if len(title) <= _TITLE_SHOWN else title[: _TITLE_SHOWN - 3] + "...",
    ]


def _size(nbytes: int | None) -> str:
    return "" if nbytes is None else format_bytes(nbytes)


def _ratio(stored: int | None, decoded: int | None) -> str:
    return f"{decoded / stored:.2f}" if stored and decoded else ""


def _document(report: FileReport, order: str) -> dict[str, Any]:
    about = {key: getattr(report, key) for key in ("url", "nbytes", "version", "checksum")}
    return about | {"tables": [_document_table(table, order) for table in report.tables]}


def _document_table(table: TableReport, order: str) -> dict[str, Any]:
    keys = ("name", "title", "format", "entries", "bounds", "self_checked", "stored_bytes", "decoded_bytes")
    columns = [
        {
            "name": column.name,
            "type": column.typename,
            "title": column.doc,
            "compression": column.storage.compression,
            "blocks": column.storage.blocks,
            "stored_bytes": column.storage.stored_bytes,
            "decoded_bytes": column.storage.decoded_bytes,
        }
        for column in _sorted(table, order)
    ]
    return {key: getattr(table, key) for key in keys} | {"columns": columns}
