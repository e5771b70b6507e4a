"""Arrow IPC: files (Feather), streams, Feather version 1, and the files that other formats are unpacked into."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather

from storagering.config import Settings
from storagering.errors import CorruptDataError, TruncatedError
from storagering.formats.blob import Blob, BlobFile, LocalBlob
from storagering.formats.readers.arrow_arrays import Flags, declared_flags, found_flags, loosened
from storagering.formats.readers.arrow_source import ArrowSource, damage
from storagering.formats.readers.unpack import UnpackedBlob
from storagering.formats.spool import spool_file
from storagering.urls import redact_url

_MAGIC = b"ARROW1"
_BUFFER_BYTES = 1 << 20
#: In the metadata of a field: at which levels values are missing.
_FLAGS = b"storagering.missing"

Batches = tuple[pa.Schema, Iterator[pa.RecordBatch]]


class IpcSource(ArrowSource):
    """An Arrow IPC file; its blocks are record batches.

    Args:
        kind: format that it was unpacked from, or ``arrow``.
        table: the bytes of the IPC file: those of ``blob``, or of what was unpacked from it.
    """

    def __init__(self, blob: Blob, kind: str, table: Blob | None = None) -> None:
        self._file = table or blob
        self._unchecked = table is None
        with damage(blob.url, "its list of batches"):
            schema = self._open().schema
            # A batch is counted by one column: reading them all would unpack them.
            reader = self._open([0]) if len(schema) else self._open()
            counts = (reader.get_batch(n).num_rows for n in range(reader.num_record_batches))
            bounds = list(accumulate(counts, initial=0))
        super().__init__(blob, kind, schema, bounds)
        self._readers: dict[tuple[int, ...], pa.RecordBatchFileReader] = {}

    def close(self) -> None:
        self._readers.clear()
        self._file.close()
        super().close()

    def _open(self, fields: Sequence[int] = ()) -> pa.RecordBatchFileReader:
        return pa.ipc.open_file(arrow_file(self._file), options=pa.ipc.IpcReadOptions(included_fields=list(fields)))

    def _batch(self, fields: tuple[int, ...], number: int) -> pa.RecordBatch:
        if fields not in self._readers:
            self._readers = {fields: self._open(fields)}
        see_again(self._file)
        batch = self._readers[fields].get_batch(number)
        if self._unchecked:
            batch.validate(full=True)
        return batch

    def _read(self, names: Sequence[str], start: int, stop: int) -> Mapping[str, Any]:
        fields = tuple(sorted(self._fields[n] for n in names))
        batches = [self._batch(fields, n).slice(a, b - a) for n, a, b in self._overlapping(start, stop)]
        kinds = self._schema.types
        return {
            n: pa.chunked_array([b.column(fields.index(self._fields[n])) for b in batches], kinds[self._fields[n]])
            for n in names
        }

    def _find_flags(self, name: str, field: pa.Field) -> Flags:
        known: dict[bytes, bytes] = field.metadata or {}
        if _FLAGS in known:
            return tuple(bool(int(flag)) for flag in known[_FLAGS].decode())
        fields, found = (self._fields[name],), (False,) * len(declared_flags(field))
        with damage(self.url, f"column {name!r}"):
            for number in range(len(self._bounds) - 1):
                here = found_flags(self._batch(fields, number).column(0))
                found = tuple(a or b for a, b in zip(found, here, strict=True))
        return found


def open_arrow(blob: Blob) -> IpcSource:
    """An IPC file (Feather version 2)."""
    if blob.size < 20 or bytes(blob.read(blob.size - 6, blob.size)) != _MAGIC:
        raise TruncatedError(f"{redact_url(blob.url)} does not end as an Arrow file does: fetch it again")
    return IpcSource(blob, "arrow")


def open_arrow_stream(blob: Blob, settings: Settings, spool: str) -> IpcSource:
    """An IPC stream.

    Raises:
        TruncatedError: it ends without the mark that ends a stream.
        CorruptDataError: something follows that mark.
    """

    def batches() -> Batches:
        file = arrow_file(blob)
        reader = pa.ipc.open_stream(file)
        schema = pa.schema([_decoded(f) for f in reader.schema], reader.schema.metadata)
        return schema, (_decode(batch, schema) for batch in _to_the_mark(reader, file, blob))

    return open_unpacked(blob, "arrow-stream", batches, settings, spool)


def open_feather_v1(blob: Blob, settings: Settings, spool: str) -> IpcSource:
    """A Feather version 1 file, as pandas wrote them before 2020."""

    def batches() -> Batches:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            table = pyarrow.feather.read_table(arrow_file(blob), memory_map=False)
        schema = pa.schema([_decoded(f) for f in table.schema])
        return schema, (_decode(batch, schema) for batch in table.to_batches())

    return open_unpacked(blob, "feather", batches, settings, spool)


def open_unpacked(
    blob: Blob, kind: str, batches: Callable[[], Batches], settings: Settings, spool: str, *, exact: bool = False
) -> IpcSource:
    """A file that can only be read from its beginning: unpacked once into an IPC file, read from there.

    Args:
        batches: gives the table's schema and its contents, batch by batch.
        exact: whether the schema tells exactly which values may be missing.
    """

    def fill(path: Path) -> None:
        with damage(blob.url, "the file"):
            schema, contents = batches()
            if exact:
                schema = pa.schema([_with_flags(field) for field in schema])
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
                for batch in contents:
                    if batch.num_rows:
                        batch.validate(full=True)
                        columns = [c.cast(kind) for c, kind in zip(batch.columns, schema.types, strict=True)]
                        writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))

    path = spool_file(spool, f"{blob.url} {blob.version} {blob.size} {kind}", fill, settings)
    return IpcSource(blob, kind, UnpackedBlob(path, blob))


def arrow_file(blob: Blob) -> pa.NativeFile:
    """A blob as pyarrow reads it: without copies if it is mapped."""
    if isinstance(blob, LocalBlob):
        return pa.BufferReader(pa.py_buffer(blob.read(0, blob.size)))
    return pa.PythonFile(io.BufferedReader(BlobFile(blob), _BUFFER_BYTES), mode="r")


def see_again(blob: Blob) -> None:
    """Look whether a mapped file is still what it was, and give back the pages of it that were read."""
    if isinstance(blob, LocalBlob):
        blob.read(0, blob.size)


def _with_flags(field: pa.Field) -> pa.Field:
    flags = "".join(str(int(flag)) for flag in declared_flags(field))
    return pa.field(field.name, loosened(field.type), metadata={**(field.metadata or {}), _FLAGS: flags})


def _to_the_mark(reader: pa.RecordBatchStreamReader, file: pa.NativeFile, blob: Blob) -> Iterator[pa.RecordBatch]:
    """All batches; pyarrow takes the end of the file for that of the stream, and looks at nothing behind."""
    end = file.tell()
    for batch in reader:
        end = file.tell()
        yield batch
    if file.tell() == end:
        raise TruncatedError(
            f"{redact_url(blob.url)} ends without the mark that ends an Arrow stream: batches may be missing; "
            "fetch it again"
        )
    if file.tell() < blob.size:
        raise CorruptDataError(
            f"{redact_url(blob.url)}: {blob.size - file.tell():,} bytes follow the mark that ends an Arrow stream; "
            "if these are several streams, make each a file of its own"
        )


def _decoded(field: pa.Field) -> pa.Field:
    """The field without dictionaries, however deep inside."""
    kind = field.type
    if pa.types.is_dictionary(kind):
        return _decoded(field.with_type(kind.value_type))
    if pa.types.is_struct(kind):
        return field.with_type(pa.struct([_decoded(f) for f in kind]))
    if pa.types.is_map(kind):
        return field.with_type(pa.map_(_decoded(kind.key_field), _decoded(kind.item_field)))
    if pa.types.is_fixed_size_list(kind):
        return field.with_type(pa.list_(_decoded(kind.value_field), kind.list_size))
    if pa.types.is_large_list(kind):
        return field.with_type(pa.large_list(_decoded(kind.value_field)))
    return field.with_type(pa.list_(_decoded(kind.value_field))) if pa.types.is_list(kind) else field


def _decode(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A file, unlike a stream, cannot change its dictionaries half way."""
    batch.validate(full=True)  # decoding trusts the places in the dictionaries
    plain = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in batch.columns]
    columns = [c if c.type == kind else c.cast(kind) for c, kind in zip(plain, schema.types, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
