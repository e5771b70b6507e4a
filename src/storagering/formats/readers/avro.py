"""Avro container files, read by fastavro block by block and unpacked into an Arrow file.

Records are records, arrays lists, maps lists of records of ``key`` and ``value``, enums strings, fixed and
bytes byte strings; a union of null and one type is that type with values missing.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

import fastavro
import pyarrow as pa

from storagering.config import Settings
from storagering.errors import CorruptDataError, LimitExceededError, MissingExtraError, TruncatedError
from storagering.files import redact_url
from storagering.formats.blob import Blob, BlobFile
from storagering.formats.readers.arrow_ipc import Batches, IpcSource, open_unpacked
from storagering.formats.readers.arrow_source import unreadable_field

_BUFFER_BYTES = 1 << 20
#: Blocks of some KiB are usual.
_MAX_BLOCK_BYTES = 256 << 20
_BATCH_BYTES = 4 << 20
_SYNC_BYTES = 16
_NUMBERS = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.large_binary(),
    "string": pa.large_string(),
    "null": pa.null(),
}
_TIMES = {
    "date": "days since 1970-01-01",
    "time-millis": "time since midnight [ms]",
    "time-micros": "time since midnight [us]",
    "timestamp-millis": "time since 1970-01-01 UTC [ms]",
    "timestamp-micros": "time since 1970-01-01 UTC [us]",
    "local-timestamp-millis": "time since 1970-01-01 [ms]",
    "local-timestamp-micros": "time since 1970-01-01 [us]",
}


class _NoTypeError(Exception):
    """A type that no column can hold."""


def open_avro(blob: Blob, settings: Settings, spool: str) -> IpcSource:
    """An Avro file; a file of anything but records is one column ``data``."""
    return open_unpacked(blob, "avro", lambda: _batches(blob), settings, spool, exact=True)


def _batches(blob: Blob) -> Batches:
    file = io.BufferedReader(BlobFile(blob), _BUFFER_BYTES)
    reader = fastavro.block_reader(file)
    written, codec = reader.writer_schema, reader.codec
    file.seek(-_SYNC_BYTES, io.SEEK_CUR)
    sync = file.read(_SYNC_BYTES)
    stored = fastavro.schema.expand_schema(written)
    is_record = isinstance(stored, dict) and stored["type"] == "record"
    found = (
        [(f["name"], f["type"], f.get("doc", "")) for f in stored["fields"]] if is_record else [("data", stored, "")]
    )
    fields = [_field(*item) for item in found]
    schema = pa.schema(fields)
    header = _header(written, codec if codec not in _DECODERS else "null", sync)

    def contents() -> Iterator[pa.RecordBatch]:
        rows: list[Any] = []
        taken = 0
        for block in _blocks(file, codec, sync, blob):
            rows += _records(header + block, codec)
            taken += len(block)
            if taken > _BATCH_BYTES:
                yield _to_batch(rows, schema, is_record=is_record)
                rows, taken = [], 0
        yield _to_batch(rows, schema, is_record=is_record)

    return schema, contents()


def _to_batch(rows: list[Any], schema: pa.Schema, *, is_record: bool) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        values = [row[field.name] for row in rows] if is_record else rows
        if pa.types.is_null(field.type):
            arrays.append(pa.nulls(len(rows)))
        else:
            plain = [_plain(v, field.type) for v in values] if _has_maps(field.type) else values
            arrays.append(pa.array(plain, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _has_maps(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_map(kind)
        or (pa.types.is_struct(kind) and any(_has_maps(f.type) for f in kind))
        or (pa.types.is_large_list(kind) and _has_maps(kind.value_type))
    )


def _plain(value: Any, kind: pa.DataType) -> Any:
    """Maps as lists of pairs, wherever they are."""
    if value is None or not pa.types.is_nested(kind):
        return value
    if pa.types.is_map(kind):
        return [(key, _plain(inner, kind.item_type)) for key, inner in value.items()]
    if pa.types.is_struct(kind):
        return {field.name: _plain(value[field.name], field.type) for field in kind}
    return [_plain(inner, kind.value_type) for inner in value]


def _field(name: str, stored: Any, doc: str) -> pa.Field:
    logical = _logical(stored)
    said = " ".join(text for text in (str(doc), _TIMES.get(logical, "")) if text)
    try:
        kind, nullable = _arrow_type(stored)
    except _NoTypeError as error:
        return unreadable_field(name, "avro", str(error))
    return pa.field(name, kind, nullable=nullable, metadata={"doc": said} if said else None)


def _logical(stored: Any) -> str:
    if isinstance(stored, list):
        return next((found for inner in stored if (found := _logical(inner))), "")
    return str(stored.get("logicalType", "")) if isinstance(stored, Mapping) else ""


def _arrow_type(stored: Any) -> tuple[pa.DataType, bool]:
    """(type, whether values may be missing)."""
    if isinstance(stored, list):
        some = [inner for inner in stored if inner != "null"]
        if len(some) > 1:
            raise _NoTypeError("it is a union of several types")
        return (_arrow_type(some[0])[0] if some else pa.null()), len(some) < len(stored) or not some
    if isinstance(stored, str):
        if stored not in _NUMBERS:
            raise _NoTypeError(f"its type {stored!r} holds itself")
        return _NUMBERS[stored], stored == "null"
    if _logical(stored) == "decimal":
        raise _NoTypeError("decimals have no exact binary type; write them as double, or as strings")
    kind = stored["type"]
    if kind == "record" and stored["fields"]:
        return pa.struct([_inner(f["name"], f["type"]) for f in stored["fields"]]), False
    if kind == "array":
        return pa.large_list(_inner("item", stored["items"])), False
    if kind == "map":
        return pa.map_(pa.field("key", pa.large_string(), nullable=False), _inner("value", stored["values"])), False
    if kind == "enum":
        return pa.large_string(), False
    if kind == "fixed":
        return pa.large_binary(), False
    if kind == "record":
        raise _NoTypeError("its records have no fields")
    return _arrow_type(kind)


def _inner(name: str, stored: Any) -> pa.Field:
    kind, nullable = _arrow_type(stored)
    return pa.field(name, kind, nullable=nullable)


def _header(written: Any, codec: str, sync: bytes) -> bytes:
    """The beginning of a container file that says nothing of dates, so that they come as they are stored."""
    out = io.BytesIO()
    metadata = {"avro.schema": json.dumps(_without_logical(written)).encode(), "avro.codec": codec.encode()}
    fastavro.schemaless_writer(out, {"type": "map", "values": "bytes"}, metadata)
    return b"Obj\x01" + out.getvalue() + sync


def _without_logical(stored: Any) -> Any:
    if isinstance(stored, list):
        return [_without_logical(inner) for inner in stored]
    if isinstance(stored, Mapping):
        return {k: _without_logical(v) for k, v in stored.items() if k != "logicalType" and not k.startswith("__")}
    return stored


def _blocks(file: IO[bytes], codec: str, sync: bytes, blob: Blob) -> Iterator[bytes]:
    """The blocks, unpacked within limits, each as it stands in a file."""
    shown = redact_url(blob.url)
    while file.tell() < blob.size:
        count, size = _read_long(file), _read_long(file)
        if not 0 <= size <= _MAX_BLOCK_BYTES or count < 0:
            raise LimitExceededError(f"{shown}: a block claims {size:,} bytes; at most {_MAX_BLOCK_BYTES:,} are read")
        data, mark = file.read(size), file.read(_SYNC_BYTES)
        if len(mark) < _SYNC_BYTES:
            raise TruncatedError(f"{shown} ends within a block: fetch it again")
        if mark != sync:
            raise CorruptDataError(f"{shown}: a block does not end where it says; fetch it again")
        if codec in _DECODERS:
            decoder = _DECODERS[codec]()
            data = decoder.decompress(data, _MAX_BLOCK_BYTES)
            if not decoder.eof:
                raise LimitExceededError(
                    f"{shown}: a block is cut short, or unpacks to over {_MAX_BLOCK_BYTES:,} bytes"
                )
        yield _long(count) + _long(len(data)) + data + sync


def _records(container: bytes, codec: str) -> list[Any]:
    try:
        return list(fastavro.reader(io.BytesIO(container)))
    except ValueError as error:
        if "need to install" not in str(error):
            raise
        raise MissingExtraError(f"Avro files packed by {codec} need another package: {error}") from error


_DECODERS: dict[str, Any] = {
    "deflate": lambda: zlib.decompressobj(-15),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lzma.LZMADecompressor,
}


def _read_long(file: IO[bytes]) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise EOFError("a number ends too early")
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return value >> 1 ^ -(value & 1)


def _long(value: int) -> bytes:
    value = value << 1 ^ value >> 63
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
