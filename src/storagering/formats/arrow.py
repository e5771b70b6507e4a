"""Columns as Arrow arrays and back, part by part, guided by the column's Awkward form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa

from storagering.errors import CorruptDataError
from storagering.formats.forms import UnsupportedTypeError, empty_array, to_batch
from storagering.formats.sparse import put_back
from storagering.types import Array, Column, Schema


def arrow_type(column: Column) -> pa.DataType:
    """The Arrow type of a column.

    Raises:
        UnsupportedTypeError: Arrow files have none (unions, complex numbers, records without fields).
    """
    batch = to_batch(Schema((column,)), {column.name: empty_array(column)}, 0)
    return to_arrow(column, batch.arrays[column.name], 0).type


def to_arrow(column: Column, arrays: tuple[Array, ...], num_entries: int) -> pa.Array:
    """One column of a batch as an Arrow array (large lists, fixed-size lists, structs); a sparse one is dense there.

    Raises:
        UnsupportedTypeError: it holds text that is not UTF-8, or its type has no counterpart.
    """
    if column.kind == "sparse":
        arrays = (put_back(column, arrays),)
    try:
        return _build(ak.forms.from_json(column.form), iter(arrays), num_entries)
    except pa.ArrowInvalid as error:
        raise UnsupportedTypeError(
            f"column {column.name!r} cannot be a column of Arrow or Parquet ({error}); leave it out"
        ) from error


def from_arrow(column: Column, array: pa.Array) -> tuple[Array, ...]:
    """The parts of a column that `to_arrow` wrote.

    Raises:
        CorruptDataError: the array is not of the column's type.
    """
    parts: list[Array] = []
    try:
        _take_apart(ak.forms.from_json(column.form), array, parts.append)
    except (AttributeError, ValueError, pa.ArrowException) as error:
        raise CorruptDataError(f"column {column.name!r} is {array.type}, not what its schema says") from error
    return tuple(
        a.reshape(-1, *part.shape) if part.role == "data" else a for part, a in zip(column.parts, parts, strict=True)
    )


def sparse_to_arrow(arrays: tuple[Array, ...]) -> pa.Array:
    """A sparse column as it is stored: for each entry the list of its (place, value)."""
    offsets, places, values = arrays
    pairs = pa.StructArray.from_arrays([pa.array(places), pa.array(values)], ["place", "value"])
    return pa.LargeListArray.from_arrays(pa.array(offsets), pairs)


def sparse_from_arrow(column: Column, array: pa.Array) -> tuple[Array, ...]:
    """The parts of a column that `sparse_to_arrow` wrote.

    Raises:
        CorruptDataError: the array is none of them.
    """
    try:
        offsets = np.asarray(array.offsets.to_numpy(), dtype=np.int64)
        pairs = array.values.slice(offsets[0], offsets[-1] - offsets[0])
        found = [np.ascontiguousarray(pairs.field(n).to_numpy(zero_copy_only=False)) for n in range(2)]
    except (AttributeError, ValueError, IndexError, pa.ArrowException) as error:
        raise CorruptDataError(f"column {column.name!r} is {array.type}, not what its schema says") from error
    return offsets - offsets[0], *found


def _fixed_sizes(form: Any) -> tuple[list[int], Any]:
    sizes = []
    while isinstance(form, ak.forms.RegularForm):
        sizes.append(form.size)
        form = form.content
    if isinstance(form, ak.forms.NumpyForm):
        sizes.extend(form.inner_shape)
    return sizes, form


def _build(form: Any, arrays: Iterator[Array], length: int) -> pa.Array:
    if isinstance(form, ak.forms.NumpyForm | ak.forms.RegularForm):
        sizes, inner = _fixed_sizes(form)
        total = int(length * np.prod(sizes, dtype=np.int64))
        out = _numbers(next(arrays)) if isinstance(inner, ak.forms.NumpyForm) else _build(inner, arrays, total)
        for size in reversed(sizes):
            out = pa.FixedSizeListArray.from_arrays(out, size)
        return out
    if isinstance(form, ak.forms.ListOffsetForm):
        offsets = next(arrays)
        content = _build(form.content, arrays, int(offsets[-1]))
        if form.parameter("__array__") in ("string", "bytestring"):
            kind = pa.large_string() if form.parameter("__array__") == "string" else pa.large_binary()
            buffers = [None, pa.py_buffer(offsets), content.buffers()[1]]
            out = pa.Array.from_buffers(kind, length, buffers)
            out.validate(full=True)  # text that is not UTF-8 makes a file that others cannot read
            return out
        return pa.LargeListArray.from_arrays(pa.array(offsets), content)
    if isinstance(form, ak.forms.RecordForm) and form.fields:
        contents = [_build(c, arrays, length) for c in form.contents]
        return pa.StructArray.from_arrays(contents, list(form.fields))
    if form.is_option:
        index = next(arrays)
        content = _build(form.content, arrays, int(index.max(initial=-1)) + 1)
        return content.take(pa.array(index, mask=index < 0))
    raise UnsupportedTypeError(f"Arrow and Parquet have no type for {form.type}")


def _numbers(array: Array) -> pa.Array:
    if array.dtype.kind == "c":
        raise UnsupportedTypeError("Arrow and Parquet have no complex numbers")
    return pa.array(array.reshape(-1))


def _take_apart(form: Any, array: pa.Array, give: Callable[[Array], None]) -> None:
    if form.is_option:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        give(np.where(valid, np.cumsum(valid) - 1, -1).astype(np.int64))
        _take_apart(form.content, array.drop_null(), give)
        return
    if array.null_count:
        raise ValueError("missing values")
    if isinstance(form, ak.forms.NumpyForm | ak.forms.RegularForm):
        sizes, inner = _fixed_sizes(form)
        for _ in sizes:
            array = array.flatten()
        if isinstance(inner, ak.forms.NumpyForm):
            give(np.ascontiguousarray(array.to_numpy(zero_copy_only=False)))
        else:
            _take_apart(inner, array, give)
    elif isinstance(form, ak.forms.ListOffsetForm):
        if form.parameter("__array__") in ("string", "bytestring"):
            array = _bytes_as_list(array)
        offsets = np.asarray(array.offsets.to_numpy(), dtype=np.int64)
        give(offsets - offsets[0])
        _take_apart(form.content, array.values.slice(offsets[0], offsets[-1] - offsets[0]), give)
    else:
        for number in range(len(form.fields)):
            _take_apart(form.contents[number], array.field(number), give)


def _bytes_as_list(array: pa.Array) -> pa.Array:
    """A string array seen as lists of bytes, without copying."""
    _, offsets, data = array.buffers()
    numbers = np.frombuffer(offsets, np.int64, len(array) + 1, array.offset * 8) if offsets else np.zeros(1, np.int64)
    values = pa.Array.from_buffers(pa.uint8(), int(numbers[-1]), [None, data or pa.py_buffer(b"")])
    return pa.LargeListArray.from_arrays(pa.array(numbers), values)
