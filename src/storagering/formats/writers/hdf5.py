"""HDF5 files, written by h5py: a group with one dataset a column, chunked, compressed and checksummed.

A jagged column is a group of ``offsets`` (one more than entries) and ``values``, marked by its attribute
``storagering = "jagged"``. A name that HDF5 would take for a path is kept in ``storagering_name``.
Nested columns: see `parts`.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from storagering.errors import SchemaError, SpecError
from storagering.formats.writers.parts import FORM, PartsAppender, is_nested, parts_refusal
from storagering.formats.writers.writer import (
    WriteOptions,
    Writer,
    is_plain_name,
    is_text,
    node_attributes,
    output_errors,
)
from storagering.types import Array, Batch, Column, Schema

_CHUNK_BYTES = 256 << 10


class Hdf5Writer(Writer):
    """One HDF5 file; the columns are in a group of the tree's name, in order."""

    format = "hdf5"
    compressions = {"gzip": 4, "lzf": None, "none": None}  # noqa: RUF012

    @classmethod
    def refusal(cls, column: Column) -> str:
        if "\0" in column.name or not is_text(column.name):
            return f"{column.name!r} cannot be a name in HDF5"
        return parts_refusal(column)

    def __init__(self, path: Path, schema: Schema, options: WriteOptions) -> None:
        super().__init__(path, schema, options)
        if not all(is_plain_name(part) and part.strip(".") for part in options.tree.split("/")):
            raise SpecError(f"--tree {options.tree!r} cannot be the name of a group in HDF5")
        nodes = _node_names(schema)
        with output_errors(path):
            self._file = h5py.File(path, "w", libver=("v110", "latest"), track_order=True)
            group = self._file.create_group(options.tree, track_order=True)
            group.attrs["storagering"] = "table"
            self._nested = {c.name: PartsAppender(c) for c in schema.columns if is_nested(c)}
            self._datasets = {c.name: self._create(group, nodes[c.name], c) for c in schema.columns}

    def _create(self, group: Any, node: str, column: Column) -> tuple[Any, ...]:
        if is_nested(column):
            made = group.create_group(node)
            made.attrs[FORM] = column.form
            datasets = tuple(self._dataset(made, part.name, part.dtype, part.shape) for part in column.parts)
        elif column.kind == "string":
            made = group.create_dataset(node, (0,), h5py.string_dtype(), maxshape=(None,), chunks=(4096,))
            datasets = (made,)
        elif column.kind == "jagged":
            made = group.create_group(node)
            made.attrs["storagering"] = "jagged"
            named = zip(("offsets", "values"), column.parts, strict=True)
            datasets = tuple(self._dataset(made, name, part.dtype, part.shape) for name, part in named)
            _extend(datasets[0], np.zeros(1, np.int64))
        else:
            made = self._dataset(group, node, column.parts[0].dtype, column.parts[0].shape)
            datasets = (made,)
        made.attrs.update(node_attributes(column, node))
        return datasets

    def _dataset(self, group: Any, name: str, dtype: str, shape: tuple[int, ...]) -> Any:
        bytes_each = max(1, np.dtype(dtype).itemsize * int(np.prod(shape)))
        return group.create_dataset(
            name,
            (0, *shape),
            dtype,
            maxshape=(None, *shape),
            chunks=(max(1, _CHUNK_BYTES // bytes_each), *shape),
            compression=None if self.codec == "none" else self.codec,
            compression_opts=self.level,
            shuffle=self.codec != "none",
            fletcher32=True,
        )

    def write(self, batch: Batch) -> None:
        with output_errors(self.path):
            for column in self.schema.columns:
                self._append(column, self._datasets[column.name], batch.arrays[column.name])

    def _append(self, column: Column, datasets: tuple[Any, ...], arrays: tuple[Array, ...]) -> None:
        if column.name in self._nested:
            for dataset, values in zip(datasets, self._nested[column.name].append(arrays), strict=True):
                _extend(dataset, values)
        elif column.kind == "string":
            _extend(datasets[0], _strings(column, *arrays))
        elif column.kind == "jagged":
            before = datasets[1].shape[0]
            _extend(datasets[0], arrays[0][1:] + before)
            _extend(datasets[1], arrays[1])
        else:
            _extend(datasets[0], arrays[0])

    def close(self) -> None:
        with output_errors(self.path):
            self._file.close()

    def abandon(self) -> None:
        with output_errors(self.path):
            self._file.close()


def _extend(dataset: Any, values: Array) -> None:
    start = dataset.shape[0]
    if len(values):
        dataset.resize(start + len(values), 0)
        dataset[start:] = values


def _strings(column: Column, offsets: Array, values: Array) -> Array:
    data = values.tobytes()
    if b"\0" in data:
        why = "has a string with a NUL character, which HDF5 cannot hold; leave it out with --exclude"
        raise SchemaError(f"column {column.name!r} {why}")
    found = np.empty(len(offsets) - 1, object)
    bounds = offsets.tolist()
    found[:] = [data[a:b] for a, b in pairwise(bounds)]
    return found


def _node_names(schema: Schema) -> dict[str, str]:
    """Names that are no paths stay; others give way to the column's key, or to what is free."""
    nodes = {c.name: c.name for c in schema.columns if is_plain_name(c.name, "/") and c.name.strip(".")}
    for column in schema.columns:
        if column.name not in nodes:
            key = column.key
            while key in nodes.values():
                key += "_"
            nodes[column.name] = key
    return nodes
