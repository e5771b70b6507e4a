"""Chunks as Zarr v3 groups in an uncompressed zip, with a direct reader of our own.

    [header + data of every array] [index] [zarr.json of every group and array] [zip directory]

Any Zarr library reads the file through the zip directory. We map it and use the index: one row per
part with the place, codec and checksum of its bytes. The manifest's checksum covers everything from the
index on, the index's checksums cover the rest, zip headers included: no byte is left unchecked.

In the rows layout the flat columns are one raw array of words, ``storagering.rows``: see `rows` and `packed`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xxhash

from storagering.cache.codecs import CODECS, RAW, Codec, Encode, encode_array, encode_sparse
from storagering.cache.packed import PACKED, ROWS_NAME, PackedRows, encode_index, zarr_attributes
from storagering.cache.rows import is_packed, pack_rows, unpack_column
from storagering.cache.store import EncodedChunk, check_sparse, checksum_of, damaged
from storagering.cache.zip_file import LOCAL_HEADER_BYTES, ZipPieces
from storagering.errors import CorruptDataError
from storagering.files import load_mapped, map_file
from storagering.formats.writers.parts import FORM
from storagering.types import Array, Batch, Chunk, Column, Layout, Part, Profile, Schema

_INDEX_NAME = "storagering.index"
_INDEX_ROW = np.dtype(
    [("start", "<u8"), ("data", "<u8"), ("stop", "<u8"), ("length", "<u8"), ("checksum", "<u8"),
     ("codec", "u1"), ("dtype", "S7")]
)  # fmt: skip


class ZarrStore:
    """The default store; the layout is that of what is written, either one is read."""

    suffix = ".zarr.zip"

    def __init__(self, layout: Layout = "columns") -> None:
        self._layout = layout

    def encode(self, batch: Batch, profile: Profile) -> EncodedChunk:
        """See `ChunkStore.encode`."""
        return _Encoder(batch, profile, self._layout).encode()

    def open(self, path: Path, chunk: Chunk, schema: Schema) -> ZarrChunkReader:
        """See `ChunkStore.open`."""
        return ZarrChunkReader(path, chunk, schema)


class _Encoder:
    """Builds one file in memory; lists with equal counts (``Jet_pt``, ``Jet_eta``) store them once."""

    def __init__(self, batch: Batch, profile: Profile, layout: Layout) -> None:
        self._batch, self._profile = batch, profile
        self._packed = [c for c in batch.schema.columns if layout == "rows" and is_packed(c)]
        self._zip = ZipPieces()
        self._rows: list[tuple[Any, ...]] = []
        self._metadata: dict[str, dict[str, Any]] = {}
        self._counts: dict[bytes, tuple[str, tuple[Any, ...]]] = {}
        self._of_offsets: dict[int, tuple[Array, bytes]] = {}

    def encode(self) -> EncodedChunk:
        attributes = {"storagering": {"entries": self._batch.num_entries}}
        self._metadata[""] = _group_metadata(attributes)
        of_rows = self._add_rows() if self._packed else b""
        for column in self._batch.schema.columns:
            if column in self._packed:
                self._rows.append((0, 0, 0, len(self._batch), 0, PACKED, column.parts[0].dtype.encode()))
            else:
                self._add_column(column)
        trusted_from, trusted = self._zip.size, len(self._zip.pieces)
        self._zip.add(_INDEX_NAME, np.array(self._rows, _INDEX_ROW).tobytes() + of_rows)
        for path, metadata in self._metadata.items():
            self._zip.add_deflated(f"{path}/zarr.json" if path else "zarr.json", msgspec.json.encode(metadata))
        self._zip.finish()
        pieces = tuple(self._zip.pieces)
        return EncodedChunk(pieces, trusted_from, checksum_of(b"".join(pieces[trusted:])))

    def _add_rows(self) -> bytes:
        """Store the columns that are packed; returns what the index says of them."""
        words, fields = pack_rows({c.name: self._batch.arrays[c.name][0] for c in self._packed})
        start = data = self._zip.size
        if words.size:
            data = self._zip.add(f"{ROWS_NAME}/c/0/0", RAW.encode(words))
        self._metadata[ROWS_NAME] = _array_metadata(words, RAW.zarr, zarr_attributes(self._packed, fields))
        return encode_index(words, fields.values(), (start, data), self._zip.pieces[-2] if words.size else b"")

    def _add_column(self, column: Column) -> None:
        attributes: dict[str, Any] = {"name": column.name} if column.name != column.key else {}
        attributes |= {k: v for k, v in (("unit", column.unit), ("doc", column.doc)) if v}
        if [part.name for part in column.parts] == [""]:
            self._add_part(column.key, column.parts[0], self._batch.arrays[column.name][0], attributes)
            return
        self._metadata[column.key] = _group_metadata(attributes | _nature(column))
        for part, array in zip(column.parts, self._batch.arrays[column.name], strict=True):
            path = f"{column.key}/{part.name}"
            for depth in range(part.name.count("/")):
                self._metadata.setdefault(path.rsplit("/", depth + 1)[0], _group_metadata({}))
            self._add_part(path, part, array, {}, encode_sparse if column.kind == "sparse" else encode_array)

    def _add_part(
        self, path: str, part: Part, array: Array, attributes: dict[str, Any], encode: Encode = encode_array
    ) -> None:
        if part.role == "counts":
            array, same = self._count(array)
            if same in self._counts:
                shared, row = self._counts[same]
                self._rows.append(row)
                self._metadata[path.rpartition("/")[0]]["attributes"][part.name.rpartition("/")[2]] = f"/{shared}"
                return
        array = np.ascontiguousarray(array)
        codec, encoded = encode(array, part.role, self._profile) if array.size else (CODECS[0], b"")
        self._rows.append(self._store(path, array, codec, encoded, attributes))
        if part.role == "counts":
            self._counts[same] = (path, self._rows[-1])

    def _count(self, offsets: Array) -> tuple[Array, bytes]:
        """List lengths, and what equal ones have in common; offsets that columns share are counted once."""
        if id(offsets) not in self._of_offsets:
            counts = _counts_of(offsets)
            same = xxhash.xxh3_128_digest(counts.data) + counts.dtype.str.encode() + len(counts).to_bytes(8, "little")
            self._of_offsets[id(offsets)] = (counts, same)
        return self._of_offsets[id(offsets)]

    def _store(
        self, path: str, array: Array, codec: Codec, encoded: bytes | memoryview, attributes: dict[str, Any]
    ) -> tuple[Any, ...]:
        start = data = self._zip.size
        checksum = xxhash.xxh3_64()
        if len(encoded):
            data = self._zip.add(f"{path}/c/{'/'.join('0' * array.ndim)}", encoded)
            for piece in self._zip.pieces[-2:]:
                checksum.update(piece)
        self._metadata[path] = _array_metadata(array, codec.zarr, attributes)
        return (start, data, self._zip.size, len(array), checksum.intdigest(), codec.number, array.dtype.str.encode())


def _counts_of(offsets: Array) -> Array:
    """List lengths in the smallest type that pcodec takes."""
    counts = np.diff(offsets)
    return counts.astype("<u2" if not len(counts) or counts.max() < 1 << 16 else "<u4")


def _nature(column: Column) -> dict[str, Any]:
    """What the attributes of a group must say for its arrays to be understood."""
    if column.kind == "jagged":  # lists of numbers are what they look like
        return {}
    if column.kind == "sparse":
        return {"storagering": "sparse", "shape": list(column.shape)}
    return {FORM: column.form}


def _group_metadata(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


@cache
def _name_of(dtype: np.dtype[Any]) -> str:
    return str(dtype)


def _array_metadata(array: Array, codecs: tuple[dict[str, Any], ...], attributes: dict[str, Any]) -> dict[str, Any]:
    fill: Any = {"b": False, "c": [0.0, 0.0], "f": 0.0}.get(array.dtype.kind, 0)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(array.shape),
        "data_type": _name_of(array.dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, n) for n in array.shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": list(codecs),
        "attributes": attributes,
    }


class ZarrChunkReader:
    """See `ChunkReader`. Costs microseconds per array, where a Zarr library costs hundreds."""

    def __init__(self, path: Path, chunk: Chunk, schema: Schema) -> None:
        self._path, self._limit = path, chunk.raw_bytes
        self._view = map_file(path, chunk.nbytes)
        if checksum_of(load_mapped(path, self._view, chunk.trusted_from)) != chunk.checksum:
            raise damaged(path, "its index or metadata (columns: all)")
        header = self._view[chunk.trusted_from : chunk.trusted_from + LOCAL_HEADER_BYTES]
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        rows = sum(len(c.parts) for c in schema.columns)
        begin = chunk.trusted_from + LOCAL_HEADER_BYTES + lengths
        self._index = np.frombuffer(self._view, _INDEX_ROW, rows, begin).copy()
        self._offsets: dict[tuple[int, int], Array] = {}  # by place: siblings that share counts decode them once
        self._first_row: dict[str, tuple[int, Column]] = {}
        row = 0
        for column in schema.columns:
            self._first_row[column.name] = (row, column)
            row += len(column.parts)
        self._packed = self._open_rows(begin + self._index.nbytes)

    def _open_rows(self, begin: int) -> PackedRows | None:
        codecs = self._index["codec"].tolist()
        if PACKED not in codecs:
            return None
        columns = self._first_row.values()
        packed = [column.name for first, column in columns if column.parts and codecs[first] == PACKED]
        return PackedRows(self._path, self._view, begin, packed)

    def packed_rows(self) -> PackedRows | None:
        """See `ChunkReader.packed_rows`."""
        return self._packed

    def read_column(self, name: str, out: Array | None = None, places: Array | None = None) -> tuple[Array, ...]:
        """See `ChunkReader.read_column`."""
        if self._packed is not None and name in self._packed.fields:
            return (self._read_packed(name, self._packed, out),)
        first, column = self._first_row[name]
        last = len(column.parts) - 1
        targets = {last - 1: places, last: out} if column.kind == "sparse" else {last: out}
        arrays = tuple(
            self._read_part(first + number, column, part, targets.get(number))
            for number, part in enumerate(column.parts)
        )
        if column.kind == "sparse":
            check_sparse(self._path, column, arrays)
        return arrays

    def view_column(self, name: str) -> Array | None:
        """See `ChunkReader.view_column`."""
        first, column = self._first_row[name]
        part = column.parts[-1]
        start, data, stop, length, checksum, codec, dtype = self._index[first + len(column.parts) - 1].item()
        if codec != RAW.number or not length or column.kind == "sparse":
            return None
        self._check(start, stop, checksum, column)
        stored = np.dtype(dtype.decode())
        if stop - data != length * stored.itemsize * math.prod(part.shape):
            raise damaged(self._path, f"column {column.name!r}", f"it claims {length} numbers")
        return np.frombuffer(self._view[data:stop], stored).reshape(length, *part.shape)

    def read_offsets(self, name: str) -> Array:
        """See `ChunkReader.read_offsets`."""
        first, column = self._first_row[name]
        return self._read_part(first, column, column.parts[0], None)

    def stored_bytes(self, names: Iterable[str]) -> int:
        """See `ChunkReader.stored_bytes`."""
        places, packed = set[tuple[int, int]](), False
        for name in names:
            first, column = self._first_row[name]
            for row in self._index[first : first + len(column.parts)]:
                places.add((row["start"].item(), row["stop"].item()))
                packed |= row["codec"].item() == PACKED
        rows = self._packed.words.nbytes if packed and self._packed is not None else 0
        return rows + sum(stop - start for start, stop in places)

    def _check(self, start: int, stop: int, checksum: int, column: Column) -> None:
        if xxhash.xxh3_64_intdigest(load_mapped(self._path, self._view, start, stop)) != checksum:
            raise damaged(self._path, f"column {column.name!r}")

    def _read_packed(self, name: str, packed: PackedRows, out: Array | None) -> Array:
        packed.check_range(0, len(packed.words), f"column {name!r}")
        field, shape = packed.fields[name], (len(packed.words),)
        stored = np.dtype(field.dtype)
        if out is None or out.shape != shape or out.dtype != stored:
            out = self._empty(name, shape, stored)
        return unpack_column(packed.words, field, out)

    def _empty(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        if shape[0] * dtype.itemsize > self._limit:
            raise damaged(self._path, f"column {name!r}", f"it claims {shape[0]} numbers")
        return np.empty(shape, dtype)

    def _read_part(self, row: int, column: Column, part: Part, out: Array | None) -> Array:
        start, data, stop, length, checksum, codec, dtype = self._index[row].item()
        if part.role == "counts" and (start, stop) in self._offsets:
            return self._offsets[start, stop]
        self._check(start, stop, checksum, column)
        stored = np.dtype(dtype.decode())
        shape = (length, *part.shape)
        if out is None or out.shape != shape or out.dtype != stored:
            out = self._empty(column.name, shape, stored)
        if out.size:
            try:
                CODECS[codec].decode(self._view[data:stop], out)
            except (ValueError, RuntimeError, KeyError) as error:
                raise CorruptDataError(f"{self._path}: column {column.name!r} does not decode: {error}") from error
        if part.role == "counts":
            return self._offsets.setdefault((start, stop), _offsets_of(out))
        return out


def _offsets_of(counts: Array) -> Array:
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets
