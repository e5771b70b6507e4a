"""Avro container files, read by fastavro block by block and unpacked into an Arrow file.

Records are records, arrays lists, maps lists of records of ``key`` and ``value``, enums strings, fixed and
bytes byte strings; a union of null and one type is that type with values missing.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import fastavro
import pyarrow as pa

from storagering.config import Settings
from storagering.errors import CorruptDataError, FormatError, LimitExceededError, TruncatedError
from storagering.formats.blob import Blob, BlobFile
from storagering.formats.readers.arrow_ipc import Batches, IpcSource, open_unpacked
from storagering.formats.readers.arrow_source import damage, unreadable_field
from storagering.urls import redact_url

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


def avro_records(blob: Blob) -> Iterator[Any]:
    """The records of an Avro file as Python objects, of whatever types: unions and records without fields, too.

    Raises:
        FormatError: it is packed by something unknown.
        CorruptDataError: it is damaged, or ends too early.
    """
    with damage(blob.url, "the Avro file"):
        file, written, codec, sync = _open(blob)
        plain = fastavro.parse_schema({"type": "array", "items": _without_logical(written)})
        for count, block in _blocks(file, codec, sync, blob):
            yield from _records(count, block, plain)


def _open(blob: Blob) -> tuple[IO[bytes], Any, str, bytes]:
    """(the file at its first block, schema, codec, what ends a block)."""
    file = io.BufferedReader(BlobFile(blob), _BUFFER_BYTES)
    reader = fastavro.block_reader(file)
    written, codec = reader.writer_schema, reader.codec
    if codec not in _UNPACKERS:
        raise FormatError(f"{redact_url(blob.url)} is packed by {codec}; these are read: {', '.join(_UNPACKERS)}")
    file.seek(-_SYNC_BYTES, io.SEEK_CUR)
    return file, written, codec, file.read(_SYNC_BYTES)


def _batches(blob: Blob) -> Batches:
    file, written, codec, sync = _open(blob)
    stored = fastavro.schema.expand_schema(written)
    is_record = isinstance(stored, dict) and stored["type"] == "record"
    found = (
        [(f["name"], f["type"], f.get("doc", "")) for f in stored["fields"]] if is_record else [("data", stored, "")]
    )
    fields = [_field(*item) for item in found]
    schema = pa.schema(fields)
    plain = fastavro.parse_schema({"type": "array", "items": _without_logical(written)})

    def contents() -> Iterator[pa.RecordBatch]:
        rows: list[Any] = []
        taken = 0
        for count, block in _blocks(file, codec, sync, blob):
            rows += _records(count, block, plain)
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


def _without_logical(stored: Any) -> Any:
    """The schema without a word of dates, so that they come as they are stored."""
    if isinstance(stored, list):
        return [_without_logical(inner) for inner in stored]
    if isinstance(stored, Mapping):
        return {k: _without_logical(v) for k, v in stored.items() if k != "logicalType" and not k.startswith("__")}
    return stored


def _blocks(file: IO[bytes], codec: str, sync: bytes, blob: Blob) -> Iterator[tuple[int, bytes]]:
    """How many records each block holds, and the block unpacked within limits."""
    shown = redact_url(blob.url)
    while file.tell() < blob.size:
        count, size = _read_long(file), _read_long(file)
        if not 0 <= size <= _MAX_BLOCK_BYTES or not 0 <= count <= _MAX_BLOCK_BYTES:
            raise LimitExceededError(
                f"{shown}: a block claims {count:,} records in {size:,} bytes; at most {_MAX_BLOCK_BYTES:,} are read"
            )
        data, mark = file.read(size), file.read(_SYNC_BYTES)
        if len(mark) < _SYNC_BYTES:
            raise TruncatedError(f"{shown} ends within a block: fetch it again")
        if mark != sync:
            raise CorruptDataError(f"{shown}: a block does not end where it says; fetch it again")
        unpacked, whole = _UNPACKERS[codec](data)
        if not whole:
            raise LimitExceededError(f"{shown}: a block is cut short, or unpacks to over {_MAX_BLOCK_BYTES:,} bytes")
        yield count, unpacked


def _records(count: int, block: bytes, schema: Any) -> list[Any]:
    """The records of a block, read as an array of so many and the mark of its end.

    Raises:
        ValueError: the block holds fewer or more.
    """
    stream = io.BytesIO((_long(count) if count else b"") + block + b"\0")
    found: Any = fastavro.schemaless_reader(stream, schema, None)
    if len(found) != count or stream.read(1):
        raise ValueError(f"a block does not hold the {count:,} records that it says")
    return list(found)


def _decode(decoder: Any, data: bytes) -> tuple[bytes, bool]:
    out = decoder.decompress(data, _MAX_BLOCK_BYTES)
    return out, decoder.eof


def _unpack_snappy(data: bytes) -> tuple[bytes, bool]:
    """Followed by a checksum of what is unpacked."""
    size = _read_unsigned(io.BytesIO(data))
    if size > _MAX_BLOCK_BYTES:
        return b"", False
    out = pa.Codec("snappy").decompress(data[:-4], size, asbytes=True)
    if zlib.crc32(out) != int.from_bytes(data[-4:], "big"):
        raise ValueError("a block differs from its checksum")
    return out, True


def _unpack_zstd(data: bytes) -> tuple[bytes, bool]:
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        out = stream.read(_MAX_BLOCK_BYTES + 1)
    return out, len(out) <= _MAX_BLOCK_BYTES


_UNPACKERS: dict[str, Callable[[bytes], tuple[bytes, bool]]] = {
    "null": lambda data: (data, True),
    "deflate": lambda data: _decode(zlib.decompressobj(-15), data),
    "bzip2": lambda data: _decode(bz2.BZ2Decompressor(), data),
    "xz": lambda data: _decode(lzma.LZMADecompressor(), data),
    "snappy": _unpack_snappy,
    "zstandard": _unpack_zstd,
}


def _read_long(file: IO[bytes]) -> int:
    value = _read_unsigned(file)
    return value >> 1 ^ -(value & 1)


def _read_unsigned(file: IO[bytes]) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise EOFError("a number ends too early")
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return value


def _long(value: int) -> bytes:
    value = value << 1 ^ value >> 63
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
