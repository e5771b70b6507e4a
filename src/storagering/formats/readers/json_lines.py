"""JSON lines: one object a line, read twice from beginning to end, once for the types and once for the values."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from storagering.config import Settings
from storagering.errors import FormatError, LimitExceededError
from storagering.formats.blob import Blob
from storagering.formats.readers.arrow_arrays import loosened
from storagering.formats.readers.arrow_ipc import Batches, IpcSource, open_unpacked
from storagering.formats.readers.arrow_source import unreadable_field
from storagering.formats.readers.json_types import JsonType, NoTypeError
from storagering.formats.readers.text_blocks import line_blocks
from storagering.urls import redact_url

#: An integer of so many digits may be one that a float64 does not hold, which pyarrow would make of it.
_LONG_DIGITS = 16
#: pyarrow crashes on values that are nested very deeply.
_MAX_DEPTH = 64


def open_json_lines(blob: Blob, settings: Settings, spool: str) -> IpcSource:
    """A file of JSON lines; nested arrays and objects are lists and records.

    Raises:
        FormatError: a line is not a JSON object (it is named).
    """
    return open_unpacked(blob, "json-lines", lambda: _batches(blob), settings, spool, exact=True)


def _batches(blob: Blob) -> Batches:
    found = JsonType()
    for rows in _rows(blob, None):
        if isinstance(rows, pa.Table):
            array = rows.combine_chunks().to_struct_array()
            found.see_array(pa.concat_arrays(array.chunks) if len(array.chunks) != 1 else array.chunk(0))
        else:
            for row in rows:
                found.see(row)
    fields = [_field_of(name, inner, found.records) for name, inner in found.fields.items()]
    readable = pa.schema([(f.name, loosened(f.type)) for f in fields if not f.metadata])

    def contents() -> Iterator[pa.RecordBatch]:
        for rows in _rows(blob, readable):
            table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, readable)
            arrays = [pa.nulls(table.num_rows) if f.metadata else _whole(table.column(f.name)) for f in fields]
            if fields:
                yield pa.RecordBatch.from_arrays(arrays, [f.name for f in fields])

    return pa.schema(fields), contents()


def _field_of(name: str, inner: JsonType, records: int) -> pa.Field:
    try:
        return inner.field_of(name, records)
    except NoTypeError as error:
        return unreadable_field(name, "mixed", str(error))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _rows(blob: Blob, schema: pa.Schema | None) -> Iterator[pa.Table | Sequence[dict[str, Any]]]:
    """Block by block, by pyarrow where it keeps every digit, else by `json`."""
    number = 1
    for block in line_blocks(blob):
        table = None if schema is None and _has_long_integers(block) else _by_pyarrow(block, schema)
        yield _by_json(block, number, blob.url) if table is None else table
        number += block.count(b"\n")


def _by_pyarrow(block: bytes, schema: pa.Schema | None) -> pa.Table | None:
    if not block.strip() or _depth(block) > _MAX_DEPTH:
        return None
    options = pyarrow.json.ParseOptions(
        explicit_schema=schema, unexpected_field_behavior="infer" if schema is None else "ignore"
    )
    try:
        table = pyarrow.json.read_json(io.BytesIO(block), pyarrow.json.ReadOptions(block_size=len(block) + 1), options)
        table.validate(full=True)  # a null that begins a list may get lost
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return table


def _has_long_integers(block: bytes) -> bool:
    text = np.frombuffer(block, np.uint8)
    digits = np.zeros(len(text) + 2, np.int8)
    digits[1:-1] = (text >= ord("0")) & (text <= ord("9"))
    steps = np.diff(digits)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    long = ends - starts >= _LONG_DIGITS
    around = np.concatenate([text, np.frombuffer(b"\n", np.uint8)])
    before, after = around[starts[long] - 1], around[ends[long]]
    return bool(((before != ord(".")) & ~np.isin(after, np.frombuffer(b".eE", np.uint8))).any())


def _depth(block: bytes) -> int:
    """At most how deep the values of some line are nested."""
    if block.count(b"[") + block.count(b"{") < _MAX_DEPTH:
        return 0
    return max(line.count(b"[") + line.count(b"{") for line in block.splitlines())


def _by_json(block: bytes, first: int, url: str) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(block.split(b"\n"), first):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except RecursionError as error:
            raise LimitExceededError(f"{redact_url(url)}: line {number:,} is nested too deeply") from error
        except ValueError as error:
            raise FormatError(f"{redact_url(url)}: line {number:,} is not a JSON object ({error})") from error
        if not isinstance(row, dict):
            raise FormatError(f"{redact_url(url)}: line {number:,} is not a JSON object but {type(row).__name__}")
        rows.append(row)
    return rows


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in it")
    return found
