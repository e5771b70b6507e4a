"""NumPy arrays of any element type, as HDF5, Zarr and others hold them, as Awkward layouts."""

from __future__ import annotations

import math
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa

from storagering.formats.forms import UnsupportedTypeError
from storagering.types import Array


def why_unreadable(dtype: np.dtype[Any]) -> str:
    """Why no column can hold elements of that type, '' if one can."""
    if dtype.subdtype is not None:
        return why_unreadable(dtype.subdtype[0])
    if dtype.names is not None:
        reasons = ((name, why_unreadable(dtype[name])) for name in dtype.names)
        return next((f"its field {name!r}: {why}" for name, why in reasons if why), "" if dtype.names else "no fields")
    content = variable_length(dtype)
    if content is not None:
        return "" if content in (str, bytes) else why_unreadable(np.dtype(content))
    if dtype.kind in "fc" and dtype.itemsize > 8 * (1 + (dtype.kind == "c")):
        return f"{dtype} has no equal on other machines"
    if dtype.kind in "biufcSUTMm":
        return ""
    if dtype.metadata and "ref" in dtype.metadata:
        return "references to other parts of the file are not data"
    return f"opaque bytes ({dtype}) have no meaning" if dtype.kind == "V" else f"elements of type {dtype}"


def type_name(dtype: np.dtype[Any]) -> str:
    """The element type in words: ``float32``, ``string``, ``list[int16]``, ``{x: float32, n: int8}``."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return type_name(base) + "".join(f"[{n}]" for n in shape)
    if dtype.names is not None:
        return "{" + ", ".join(f"{name}: {type_name(dtype[name])}" for name in dtype.names) + "}"
    content = variable_length(dtype)
    if content is not None:
        return "string" if content in (str, bytes) else f"list[{type_name(np.dtype(content))}]"
    if dtype.metadata and "ref" in dtype.metadata:
        return "reference"
    return "string" if dtype.kind in "SUT" else str(dtype.newbyteorder("="))


def unit_of(dtype: np.dtype[Any]) -> str:
    """What the integers of a date or time count, '' for other types."""
    if dtype.kind not in "Mm":
        return ""
    unit, count = np.datetime_data(dtype)
    return f"{'time since 1970-01-01' if dtype.kind == 'M' else 'duration'} [{count if count > 1 else ''}{unit}]"


def variable_length(dtype: np.dtype[Any]) -> Any:
    """What the lists of a variable-length type hold (``str``, ``bytes`` or a dtype), None for other types."""
    return dtype.metadata.get("vlen") if dtype.kind == "O" and dtype.metadata else None


def to_layout(values: Array, dtype: np.dtype[Any]) -> ak.contents.Content:
    """An Awkward layout of ``values``, of shape (n, ...), whose elements are of ``dtype``.

    Fixed-length strings lose the NULs that pad them, big-endian numbers their byte order; dates and times come as the
    integers that they are stored as (see `unit_of`). Nothing else changes.

    Raises:
        UnsupportedTypeError: text that is not UTF-8.
    """
    if dtype.subdtype is not None:
        dtype = dtype.subdtype[0]  # NumPy has made its shape part of that of the array
    layout = _flat(values.reshape(-1), dtype)
    for axis in range(values.ndim - 1, 0, -1):
        layout = ak.contents.RegularArray(layout, values.shape[axis], zeros_length=math.prod(values.shape[:axis]))
    return layout


def _flat(values: Array, dtype: np.dtype[Any]) -> ak.contents.Content:
    if dtype.names is not None:
        contents = [to_layout(values[name], dtype[name]) for name in dtype.names]
        return ak.contents.RecordArray(contents, list(dtype.names), length=len(values))
    content = variable_length(dtype)
    if content in (str, bytes):
        return strings([v.encode() if isinstance(v, str) else bytes(v or b"") for v in values])
    if content is not None:
        return _lists(values, np.dtype(content))
    if dtype.kind == "T":
        return strings([v.encode() for v in values.tolist()])
    if dtype.kind == "U":
        values = np.char.encode(values, "utf-8")
    if dtype.kind in "SU":
        return _padded_strings(values)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("="))
    return ak.contents.NumpyArray(values.view(np.int64) if dtype.kind in "Mm" else values)


def strings(values: list[bytes]) -> ak.contents.Content:
    """UTF-8 strings as a layout."""
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([len(v) for v in values], out=offsets[1:])
    return _string_layout(offsets, np.frombuffer(b"".join(values), np.uint8))


def _padded_strings(values: Array) -> ak.contents.Content:
    width = values.dtype.itemsize
    lengths = np.char.str_len(values).astype(np.int64)
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    table = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), width)
    return _string_layout(offsets, table[np.arange(width) < lengths[:, None]])


def _string_layout(offsets: Array, data: Array) -> ak.contents.Content:
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data))]
    try:
        pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers).validate(full=True)
    except pa.ArrowInvalid as error:
        raise UnsupportedTypeError("it holds text that is not UTF-8") from error
    characters = ak.contents.NumpyArray(data, parameters={"__array__": "char"})
    return ak.contents.ListOffsetArray(ak.index.Index64(offsets), characters, parameters={"__array__": "string"})


def _lists(values: Array, content: np.dtype[Any]) -> ak.contents.Content:
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum([len(v) for v in values], out=offsets[1:])
    some = [v for v in values if len(v)]
    joined = np.concatenate(some) if some else np.empty(0, content)
    return ak.contents.ListOffsetArray(ak.index.Index64(offsets), to_layout(joined, content))
