"""Chunks as Parquet files of one row group, checked as a whole when they are opened."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storagering.cache.store import EncodedChunk, check_sparse, checksum_of, damaged
from storagering.errors import CorruptDataError
from storagering.files import load_mapped, map_file
from storagering.formats.arrow import from_arrow, sparse_from_arrow, sparse_to_arrow, to_arrow
from storagering.types import Array, Batch, Chunk, Profile, Schema

_ZSTD_LEVEL = 1


class ParquetStore:
    """The store for people whose other tools read Parquet."""

    suffix = ".parquet"

    def encode(self, batch: Batch, profile: Profile) -> EncodedChunk:
        """See `ChunkStore.encode`."""
        table = to_table(batch)
        sink = pa.BufferOutputStream()
        pq.write_table(
            table, sink, row_group_size=max(1, len(batch)), write_page_checksum=True, **_options(table, profile)
        )
        data = sink.getvalue().to_pybytes()
        return EncodedChunk((data,), 0, checksum_of(data))

    def open(self, path: Path, chunk: Chunk, schema: Schema) -> ParquetChunkReader:
        """See `ChunkStore.open`."""
        return ParquetChunkReader(path, chunk, schema)


def to_table(batch: Batch) -> pa.Table:
    """The batch as an Arrow table; units and titles are kept as field metadata.

    Sparse columns are lists of (place, value), with the shape of an entry's array as metadata.
    """
    fields, arrays = [], []
    for column in batch.schema.columns:
        parts, shape = batch.arrays[column.name], ""
        if column.kind == "sparse":
            arrays.append(sparse_to_arrow(parts))
            shape = ",".join(map(str, column.shape))
        else:
            arrays.append(to_arrow(column, parts, len(batch)))
        metadata = {k: v for k, v in (("unit", column.unit), ("doc", column.doc), ("shape", shape)) if v}
        fields.append(pa.field(column.name, arrays[-1].type, metadata=metadata or None))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _options(table: pa.Table, profile: Profile) -> dict[str, Any]:
    """Dictionaries make float columns larger and slower; only integers and strings gain from them."""
    paths = {}
    schema = pq.ParquetFile(pa.BufferReader(_empty_file(table.schema))).schema
    for number in range(len(schema)):
        leaf = schema.column(number)
        paths[leaf.path] = leaf.physical_type
    floats = {path for path, kind in paths.items() if kind in ("FLOAT", "DOUBLE")}
    dictionary = [path for path in paths if path not in floats]
    if profile == "small":
        return {"compression": "zstd", "compression_level": _ZSTD_LEVEL, "use_dictionary": dictionary}
    codecs = {path: "none" if path in floats else "lz4" for path in paths}
    return {"compression": codecs or "none", "use_dictionary": dictionary}


def _empty_file(schema: pa.Schema) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    return sink.getvalue()


class ParquetChunkReader:
    """See `ChunkReader`."""

    def __init__(self, path: Path, chunk: Chunk, schema: Schema) -> None:
        self._path = path
        self._columns = {c.name: c for c in schema.columns}
        self._view = load_mapped(path, map_file(path, chunk.nbytes))
        if checksum_of(self._view) != chunk.checksum:
            raise damaged(path, _find_damage(self._view))
        self._buffer = pa.py_buffer(self._view)
        self._local = threading.local()

    def read_column(self, name: str, out: Array | None = None, places: Array | None = None) -> tuple[Array, ...]:
        """See `ChunkReader.read_column`."""
        load_mapped(self._path, self._view)  # it may have left memory since it was checked
        try:
            file, leaves = self._open()
            if name not in leaves:
                raise CorruptDataError(f"{self._path} has no column {name!r}")
            chunked = file.reader.read_row_group(0, column_indices=leaves[name], use_threads=False).column(0)
        except (OSError, pa.ArrowException) as error:
            raise CorruptDataError(f"{self._path}: column {name!r} does not decode: {error}") from error
        column, array = self._columns[name], pa.concat_arrays(chunked.chunks)
        if column.kind == "sparse":
            offsets, where, values = parts = sparse_from_arrow(column, array)
            check_sparse(self._path, column, parts)
            return offsets, _copied(where, places), _copied(values, out)
        *others, last = from_arrow(column, array)
        return (*others, _copied(last, out))

    def view_column(self, name: str) -> None:
        """See `ChunkReader.view_column`: a page holds more than values."""

    def read_offsets(self, name: str) -> Array:
        """See `ChunkReader.read_offsets`."""
        return self.read_column(name)[0]

    def stored_bytes(self, names: Iterable[str]) -> int:  # noqa: ARG002  (all of it is checked)
        """See `ChunkReader.stored_bytes`."""
        return len(self._view)

    def packed_rows(self) -> None:
        """See `ChunkReader.packed_rows`."""

    def _open(self) -> tuple[Any, dict[str, list[int]]]:
        """A reader of this thread's own: pyarrow's cannot be shared."""
        if not hasattr(self._local, "file"):
            self._local.file = pq.ParquetFile(pa.BufferReader(self._buffer))
            self._local.leaves = _leaves(self._local.file)
        return self._local.file, self._local.leaves


def _copied(array: Array, out: Array | None) -> Array:
    """The array in the memory that was given for it, if it fits there."""
    if out is None or out.shape != array.shape or out.dtype != array.dtype:
        return array
    out[...] = array
    return out


def _leaves(file: Any) -> dict[str, list[int]]:
    """Numbers of the Parquet leaves that make up each top-level column."""
    leaves, first = {}, 0
    for field in file.schema_arrow:
        count = _count_leaves(field.type)
        leaves[field.name] = list(range(first, first + count))
        first += count
    return leaves


def _count_leaves(kind: pa.DataType) -> int:
    if pa.types.is_nested(kind):
        return sum(_count_leaves(kind.field(n).type) for n in range(kind.num_fields))
    return 1


def _find_damage(view: memoryview) -> str:
    """Names the damaged column, for the message: page checksums tell which it is."""
    try:
        file = pq.ParquetFile(pa.BufferReader(pa.py_buffer(view)), page_checksum_verification=True)
        for name, leaves in _leaves(file).items():
            try:
                file.reader.read_row_group(0, column_indices=leaves, use_threads=False)
            except (OSError, pa.ArrowException):
                return f"column {name!r}"
    except (OSError, ValueError, pa.ArrowException):
        pass
    return "its metadata (columns: all)"
