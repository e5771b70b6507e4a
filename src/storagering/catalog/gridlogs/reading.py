"""The records of a file of logs: JSON (one, one a line, in an array), Avro or CSV, packed or not, from anywhere."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from storagering.catalog.gridlogs.kinds import Kind
from storagering.catalog.gridlogs.values import RecordError
from storagering.config import Settings
from storagering.errors import FormatError, LimitExceededError
from storagering.formats.blob import Blob, BlobFile, open_blob
from storagering.formats.detect import PACKED
from storagering.formats.readers.avro import avro_records
from storagering.formats.readers.text_blocks import BOM, line_blocks
from storagering.formats.readers.unpack import unpack
from storagering.formats.source import Location
from storagering.formats.whole import open_whole, wanted_whole
from storagering.urls import redact_url

#: (where it is, the record or why there is none).
Found = tuple[str, Any]
_HEAD_BYTES = 1 << 16
_BUFFER_BYTES = 1 << 20
#: JSON that is not one record a line is read at once.
_MAX_DOCUMENT_BYTES = 1 << 30
_DELIMITERS = ",\t;|"
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_decode = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode


@contextmanager
def opened_log(url: str, settings: Settings) -> Iterator[Blob]:
    """The bytes of a file of logs, unpacked.

    Raises:
        NotFoundError, SourceError: it cannot be opened.
        CorruptDataError: what it is packed in is damaged.
    """
    location = Location(url)
    blob = open_blob(location, settings)
    try:
        if (settled := wanted_whole(location, blob, settings)) is not location:
            blob.close()
            blob = open_whole(settled, settings, "")
        while packing := _packing(blob):
            inside = unpack(blob, packing, settings, "")
            blob.close()
            blob = inside
        yield blob
    finally:
        blob.close()


def read_records(blob: Blob, kind: Kind) -> Iterator[Found]:
    """Every record of a file; what cannot be read of it comes as a `RecordError` in the record's place.

    Raises:
        FormatError: it is empty, or of no format that logs have.
        CorruptDataError: an Avro file is damaged.
        LimitExceededError: one JSON document of more than 1 GiB.
    """
    head = bytes(blob.read(0, min(_HEAD_BYTES, blob.size))).removeprefix(BOM).lstrip()
    if not head:
        raise FormatError(f"{redact_url(blob.url)} is empty: it holds no records")
    return _reader(head, blob)(blob, kind)


def _reader(head: bytes, blob: Blob) -> Callable[[Blob, Kind], Iterator[Found]]:
    if head.startswith(b"Obj\x01"):
        return _avro
    if head.startswith(b"["):
        return _array
    if head.startswith(b"{"):
        return _lines if _is_lines(head) else _documents
    if b"\0" in head:
        raise FormatError(
            f"{redact_url(blob.url)} holds no logs: it is neither JSON nor Avro nor CSV (it begins with {head[:8]!r})"
        )
    return _csv


def _packing(blob: Blob) -> str:
    head = bytes(blob.read(0, min(8, blob.size)))
    return next((name for magic, name in PACKED.items() if head.startswith(magic)), "")


def _is_lines(head: bytes) -> bool:
    """Whether most of the first lines are records by themselves: then a broken one spoils no other."""
    lines = [line for line in head.split(b"\n")[:20] if line.strip()]
    return 2 * sum(isinstance(_parse(line), dict) for line in lines) >= len(lines)


def _parse(data: Any) -> Any:
    try:
        return _decode(data)
    except _NO_JSON as error:
        return RecordError(f"it is no JSON: {error}")


def _lines(blob: Blob, _kind: Kind) -> Iterator[Found]:
    number = 0
    for block in line_blocks(blob):
        for line in block.split(b"\n")[: -1 if block.endswith(b"\n") else None]:
            number += 1
            if line.strip():
                yield f"line {number:,}", _parse(line)


def _whole(blob: Blob) -> bytes:
    if blob.size > _MAX_DOCUMENT_BYTES:
        raise LimitExceededError(
            f"{redact_url(blob.url)} is one JSON document of {blob.size:,} bytes; write one record a line instead "
            "(jq -c '.[]' does it)"
        )
    return bytes(blob.read(0, blob.size)).removeprefix(BOM)


def _array(blob: Blob, _kind: Kind) -> Iterator[Found]:
    data = _whole(blob)
    try:
        records = _decode_raw(data)
    except _NO_JSON:
        yield from _documents_in(data, "[")
        return
    for number, record in enumerate(records, 1):
        yield f"record {number:,}", _parse(record)


def _documents(blob: Blob, _kind: Kind) -> Iterator[Found]:
    return _documents_in(_whole(blob), "")


def _documents_in(data: bytes, opening: str) -> Iterator[Found]:
    """Documents one after the other, up to one that is broken: nobody can tell where it ends."""
    text = data.decode(errors="replace")
    decoder = json.JSONDecoder()
    at = text.find(opening) + len(opening)
    line, counted = 1, 0
    while (at := _next_token(text, at)) < len(text):
        line, counted = line + text.count("\n", counted, at), at
        try:
            record, at = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError) as error:
            broken = getattr(error, "lineno", line)
            why = getattr(error, "msg", "nested too deeply")
            yield f"line {broken:,}", RecordError(f"it is no JSON ({why}); what follows was not read")
            return
        yield f"line {line:,}", record


def _next_token(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n,]":
        at += 1
    return at


def _avro(blob: Blob, _kind: Kind) -> Iterator[Found]:
    for number, record in enumerate(avro_records(blob), 1):
        yield f"record {number:,}", record


def _csv(blob: Blob, kind: Kind) -> Iterator[Found]:
    """With a header, or without one where the order of its columns is known."""
    file = io.BufferedReader(BlobFile(blob), _BUFFER_BYTES)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    first = text.readline()
    delimiter = max(_DELIMITERS, key=first.count)
    text.seek(0)
    rows = csv.reader(text, delimiter=delimiter)
    names: list[str] | None = None
    while (row := _next_row(rows)) is not None:
        place = f"line {rows.line_num:,}"
        if isinstance(row, RecordError):
            yield place, row
        elif names is None:
            names, is_record = _names(row, kind)
            if is_record:
                yield place, dict(zip(names, row, strict=False))
        elif len(row) == len(names):
            yield place, dict(zip(names, row, strict=True))
        elif row:
            yield place, RecordError(f"it has {len(row)} fields, the others have {len(names)}")


def _next_row(rows: Any) -> list[str] | RecordError | None:
    try:
        return next(rows, None)
    except csv.Error as error:
        return RecordError(f"it is no CSV: {error}")


def _names(row: list[str], kind: Kind) -> tuple[list[str], bool]:
    """What the columns are called, and whether the row is a record itself.

    One that names no field of the kind, and has not the form of its records, counts as a record without its fields.
    """
    cells = [cell.strip() for cell in row]
    known = {name.lower() for one in kind.fields for name, _ in one.sources}
    if known & {cell.lower() for cell in cells}:
        return cells, False
    orders = (order.split() for order in kind.orders if any(cell.replace(".", "", 1).isdigit() for cell in cells))
    return next((order for order in orders if len(order) == len(row)), cells), True
