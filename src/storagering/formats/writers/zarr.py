"""Zarr version 3, written by zarr: one array a column, in chunks with a checksum each.

A jagged column is a group of ``offsets`` (one more than entries) and ``values``, marked by its attribute
``storagering = "jagged"`` (``"string"``: values are the bytes of UTF-8). Nodes have the columns' safe keys;
names that differ from these are kept in ``storagering_name``. Nested columns: see `parts`.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, GzipCodec, ZstdCodec

from storagering.formats.writers.parts import FORM, PartsAppender, is_nested, parts_refusal
from storagering.formats.writers.writer import WriteOptions, Writer, node_attributes, output_errors
from storagering.types import Array, Batch, Column, Schema

_MAX_CHUNK, _MIN_CHUNK, _BUFFERS = 1 << 20, 64 << 10, 64 << 20
#: An absent chunk is then damage, never zeros.
_ALL_CHUNKS = {"write_empty_chunks": True}


class ZarrWriter(Writer):
    """A folder, or a zip file if ``path`` ends with ``.zip``."""

    format = "zarr"
    compressions = {"zstd": 3, "gzip": 5, "none": None}  # noqa: RUF012

    @classmethod
    def refusal(cls, column: Column) -> str:
        return parts_refusal(column)

    def __init__(self, path: Path, schema: Schema, options: WriteOptions) -> None:
        super().__init__(path, schema, options)
        self._folder = path.with_name(f"{path.name}.folder") if path.suffix == ".zip" else path
        parts = sum(len(c.parts) for c in schema.columns)
        self._chunk_bytes = min(_MAX_CHUNK, max(_MIN_CHUNK, _BUFFERS // max(1, parts)))
        with output_errors(path):
            self._root = zarr.open_group(self._folder, mode="w", zarr_format=3)
            self._root.attrs.update({"storagering": "table", "storagering_columns": [c.key for c in schema.columns]})
            self._arrays = {c.name: self._create(c) for c in schema.columns}
            self._nested = {c.name: PartsAppender(c) for c in schema.columns if is_nested(c)}

    def _create(self, column: Column) -> tuple[_Growing, ...]:
        attributes = node_attributes(column, column.key)
        if is_nested(column):
            group = self._root.create_group(column.key, attributes=attributes | {FORM: column.form})
            return tuple(self._array(group, part.name, part.dtype, part.shape, {}) for part in column.parts)
        if column.kind not in ("jagged", "string"):
            return (self._array(self._root, column.key, column.parts[0].dtype, column.parts[0].shape, attributes),)
        group = self._root.create_group(column.key, attributes=attributes | {"storagering": column.kind})
        named = zip(("offsets", "values"), column.parts, strict=True)
        arrays = tuple(self._array(group, name, part.dtype, part.shape, {}) for name, part in named)
        arrays[0].add(np.zeros(1, np.int64))
        return arrays

    def _array(self, group: Any, name: str, dtype: str, shape: tuple[int, ...], attributes: dict[str, str]) -> _Growing:
        bytes_each = max(1, np.dtype(dtype).itemsize * int(np.prod(shape)))
        rows = max(1, self._chunk_bytes // bytes_each)
        *groups, name = name.split("/")
        for inner in groups:
            group = group.require_group(inner)
        codecs: list[Any] = [Crc32cCodec()]
        if self.codec != "none":
            codecs.insert(0, ZstdCodec(level=self.level) if self.codec == "zstd" else GzipCodec(level=self.level))
        made = group.create_array(
            name,
            shape=(0, *shape),
            dtype=dtype,
            chunks=(rows, *shape),
            compressors=codecs,
            attributes=attributes,
            config=_ALL_CHUNKS,
        )
        return _Growing(made, rows)

    def write(self, batch: Batch) -> None:
        with output_errors(self.path):
            for column in self.schema.columns:
                targets, arrays = self._arrays[column.name], batch.arrays[column.name]
                if column.name in self._nested:
                    added = self._nested[column.name].append(arrays)
                elif len(targets) == 2:
                    added = [arrays[0][1:] + targets[1].length, arrays[1]]
                else:
                    added = [*arrays]
                for target, values in zip(targets, added, strict=True):
                    target.add(values)

    def close(self) -> None:
        with output_errors(self.path):
            for targets in self._arrays.values():
                for target in targets:
                    target.finish()
            if self._folder != self.path:
                _pack(self._folder, self.path)
                rmtree(self._folder)

    def abandon(self) -> None:
        if self._folder != self.path:
            rmtree(self._folder, ignore_errors=True)


class _Growing:
    """A Zarr array that is added to, written in whole chunks only.

    Attributes:
        length: rows so far.
    """

    def __init__(self, array: Any, rows: int) -> None:
        self._array, self._rows = array, rows
        self._waiting: list[Array] = []
        self._written = self.length = 0

    def add(self, values: Array) -> None:
        self._waiting.append(values)
        self.length += len(values)
        whole = (self.length - self._written) // self._rows * self._rows
        if whole:
            joined = np.concatenate(self._waiting)
            self._put(joined[:whole])
            self._waiting = [joined[whole:].copy()]

    def finish(self) -> None:
        """Write what is left."""
        if self.length > self._written:
            self._put(np.concatenate(self._waiting))
        self._waiting = []

    def _put(self, values: Array) -> None:
        stop = self._written + len(values)
        self._array.resize((stop, *self._array.shape[1:]))
        self._array[self._written : stop] = values
        self._written = stop


def _pack(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                packed.write(file, file.relative_to(folder).as_posix())
