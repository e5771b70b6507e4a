"""Arrow arrays as Awkward arrays, whatever wrote them: exactly, and without copies where that can be.

Arrow marks almost everything as nullable, so what a schema says about missing values means little. Which
levels of a column really have some is told by flags, one for each level in the order of `levels`; only those
become option types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storagering.errors import CorruptDataError
from storagering.formats.forms import UnsupportedTypeError
from storagering.types import Array

Flags = tuple[bool, ...]

_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}
_EXACT_DIGITS = 18  # decimals of so many fit an int64


def to_awkward(array: pa.Array | pa.ChunkedArray, flags: Flags) -> Any:
    """The array as an Awkward array.

    Dates and times come as the integers that they are stored as (see `unit_of`), maps as lists of records
    of ``key`` and ``value``, dictionaries decoded.

    Raises:
        UnsupportedTypeError: a type with no exact counterpart.
        CorruptDataError: a value is missing where the flags say that none is.
    """
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    kept = [c for c in chunks if len(c)] or chunks[:1] or [pa.array([], array.type)]
    if len(kept) > 1 and not _may_overflow(kept):
        kept = [pa.concat_arrays([_plain(c) for c in kept])]
    layouts = [_layout(c, iter(flags)) for c in kept]
    return ak.Array(layouts[0]) if len(layouts) == 1 else ak.concatenate([ak.Array(x) for x in layouts])


def levels(field: pa.Field) -> Iterator[tuple[pa.DataType, bool]]:
    """The type at each level of a column, outermost first, and whether the schema lets values be missing."""
    kind = _plain_type(field.type)
    yield kind, field.nullable
    for child in _children(kind):
        yield from levels(child)


def declared_flags(field: pa.Field) -> Flags:
    """What the schema says."""
    return tuple(nullable for _, nullable in levels(field))


def loosened(kind: pa.DataType) -> pa.DataType:
    """The type with everything inside nullable: what lies under a missing list or record may well be null."""
    kind = _plain_type(kind)
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, loosened(f.type)) for f in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(loosened(kind.value_type), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(loosened(kind.value_type))
    return pa.list_(loosened(kind.value_type)) if pa.types.is_list(kind) else kind


def found_flags(array: pa.Array) -> Flags:
    """Where values are missing in this array."""
    array = _plain(array)
    missing, kind = array.null_count > 0, array.type
    if missing and pa.types.is_nested(kind):
        array = _take(array, _valid_places(array))
    if pa.types.is_fixed_size_list(kind):
        return (missing, *found_flags(_items(array)))
    if _is_list(kind):
        return (missing, *found_flags(array.flatten()))
    if pa.types.is_struct(kind) or pa.types.is_union(kind):
        return (missing, *(f for n in range(kind.num_fields) for f in found_flags(array.field(n))))
    return (missing,)


def type_text(kind: pa.DataType) -> str:
    """The type in words that are the same whichever library wrote it."""
    kind = _plain_type(kind)
    if pa.types.is_fixed_size_list(kind):
        return f"{kind.list_size} * {type_text(kind.value_type)}"
    if _is_list(kind):
        return f"var * {type_text(kind.value_type)}"
    if pa.types.is_struct(kind):
        return "{" + ", ".join(f"{f.name}: {type_text(f.type)}" for f in _children(kind)) + "}"
    if pa.types.is_union(kind):
        return "union[" + ", ".join(type_text(f.type) for f in _children(kind)) + "]"
    if _is_text(kind) or _is_bytes(kind):
        return "string" if _is_text(kind) else "bytes"
    return _NAMES.get(str(kind), str(kind))


def unit_of(kind: pa.DataType) -> str:
    """What the integers of a date or time count, '' for other types."""
    if pa.types.is_timestamp(kind):
        zone = f" {kind.tz}" if kind.tz else ""
        return f"time since 1970-01-01{' UTC, shown in' + zone if zone else ''} [{kind.unit}]"
    if pa.types.is_date(kind):
        return "days since 1970-01-01" if pa.types.is_date32(kind) else "time since 1970-01-01 [ms]"
    if pa.types.is_time(kind):
        return f"time since midnight [{kind.unit}]"
    return f"duration [{kind.unit}]" if pa.types.is_duration(kind) else ""


def _may_overflow(chunks: list[pa.Array]) -> bool:
    """Whether the chunks together may be too much for 32-bit offsets."""
    return sum(int(c.nbytes) for c in chunks) > 1 << 30


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view())


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or kind == pa.binary_view()
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _children(kind: pa.DataType) -> list[pa.Field]:
    if _is_list(kind):
        return [kind.value_field]
    if pa.types.is_struct(kind) or pa.types.is_union(kind):
        return [kind.field(n) for n in range(kind.num_fields)]
    return []


def _plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without wrappings: what `_plain` makes of an array."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_map(kind):
        item = pa.struct([kind.key_field.with_name("key"), kind.item_field.with_name("value")])
        return pa.list_(pa.field("item", item, nullable=False))
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(kind.value_field)
    if kind == pa.string_view():
        return pa.large_string()
    return pa.large_binary() if kind == pa.binary_view() else kind


def _plain(array: pa.Array) -> pa.Array:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(array.storage)
    if pa.types.is_dictionary(kind):
        return _plain(array.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(array))
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return _as_list(array)
    wanted = _plain_type(kind)
    return array if wanted == kind else array.cast(wanted)


def _as_list(array: pa.Array) -> pa.Array:
    """A list view, whose lists may lie in any order, as a list; pyarrow's cast loses values."""
    there = array.is_valid().to_numpy(zero_copy_only=False)
    sizes = np.where(there, array.sizes.to_numpy(zero_copy_only=False), 0)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    starts = array.offsets.to_numpy(zero_copy_only=False)
    index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
    mask = None if there.all() else pa.array(~there)
    return pa.LargeListArray.from_arrays(pa.array(offsets), array.values.take(pa.array(index)), mask=mask)


def _layout(array: pa.Array, flags: Iterator[bool]) -> Any:
    array = _plain(array)
    if not next(flags):
        if array.null_count:
            raise CorruptDataError("a value is missing where there was none before")
        return _content(array, flags)
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    index = np.where(valid, np.cumsum(valid) - 1, -1).astype(np.int64)
    content = _content(_take(array, np.flatnonzero(valid)), flags)
    return ak.contents.IndexedOptionArray(ak.index.Index64(index), content)


def _valid_places(array: pa.Array) -> Array:
    return np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))


def _items(array: pa.Array) -> pa.Array:
    """What fixed-size lists hold, those that are missing included."""
    size = array.type.list_size
    return array.values.slice(array.offset * size, len(array) * size)


def _take(array: pa.Array, places: Array) -> pa.Array:
    """The values at some places; pyarrow itself reads foreign memory for slices of fixed-size lists of such."""
    kind = array.type
    if pa.types.is_fixed_size_list(kind):
        size = kind.list_size
        inside = (places[:, None] * size + np.arange(size)).reshape(-1)
        there = array.is_valid().to_numpy(zero_copy_only=False)[places]
        mask = None if there.all() else pa.array(~there)
        return pa.FixedSizeListArray.from_arrays(_take(_items(array), inside), type=kind, mask=mask)
    if pa.types.is_struct(kind) and kind.num_fields:
        there = array.is_valid().to_numpy(zero_copy_only=False)[places]
        mask = None if there.all() else pa.array(~there)
        contents = [_take(array.field(n), places) for n in range(kind.num_fields)]
        return pa.StructArray.from_arrays(contents, fields=list(kind), mask=mask)
    return array.take(pa.array(places))


def _content(array: pa.Array, flags: Iterator[bool]) -> Any:
    """The layout of an array whose own values are all there."""
    kind = array.type
    if pa.types.is_boolean(kind):
        return ak.contents.NumpyArray(array.to_numpy(zero_copy_only=False))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return ak.contents.NumpyArray(_values(array, np.dtype(kind.to_pandas_dtype())))
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return ak.contents.NumpyArray(_values(array, np.dtype(f"i{kind.bit_width // 8}")))
    if pa.types.is_decimal(kind) and kind.scale == 0 and kind.precision <= _EXACT_DIGITS:
        return ak.contents.NumpyArray(array.cast(pa.int64()).to_numpy())
    if _is_text(kind) or _is_bytes(kind):
        return _strings(array)
    if pa.types.is_fixed_size_list(kind):
        return _fixed(array, flags)
    if _is_list(kind):
        offsets = np.asarray(array.offsets.to_numpy(), np.int64)
        content = _layout(array.values.slice(offsets[0], offsets[-1] - offsets[0]), flags)
        return ak.contents.ListOffsetArray(ak.index.Index64(offsets - offsets[0]), content)
    if pa.types.is_struct(kind):
        return _record(array, flags)
    if pa.types.is_union(kind):
        return _union(array, flags)
    raise UnsupportedTypeError(_why_not(kind))


def _why_not(kind: pa.DataType) -> str:
    if pa.types.is_null(kind):
        return "it has no values, so its type is unknown"
    if pa.types.is_decimal(kind):
        return f"{kind} has no exact binary type; write it as float64, or as a string"
    return f"{kind} has no counterpart among the types of columns"


def _values(array: pa.Array, dtype: np.dtype[Any]) -> Array:
    data = array.buffers()[1]
    return np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize) if len(array) else np.zeros(0, dtype)


def _strings(array: pa.Array) -> Any:
    kind = "string" if _is_text(array.type) else "bytestring"
    if pa.types.is_fixed_size_binary(array.type):
        width = array.type.byte_width
        offsets = np.arange(len(array) + 1, dtype=np.int64) * width
        data, first = array.buffers()[1], array.offset * width
    else:
        wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
        dtype = np.dtype("i8" if wide else "i4")
        _, places, data = array.buffers()
        raw = np.frombuffer(places, dtype, len(array) + 1, array.offset * dtype.itemsize) if len(array) else [0]
        offsets = np.asarray(raw, np.int64)
        first = int(offsets[0])
        offsets = offsets - first
    count = int(offsets[-1])
    numbers = np.frombuffer(data, np.uint8, count, first) if count else np.zeros(0, np.uint8)
    letters = ak.contents.NumpyArray(numbers, parameters={"__array__": "char" if kind == "string" else "byte"})
    return ak.contents.ListOffsetArray(ak.index.Index64(offsets), letters, parameters={"__array__": kind})


def _fixed(array: pa.Array, flags: Iterator[bool]) -> Any:
    size = array.type.list_size
    if size == 0:
        raise UnsupportedTypeError("lists of fixed length 0 hold nothing")
    content = _layout(_items(array), flags)
    if isinstance(content, ak.contents.NumpyArray):
        return ak.contents.NumpyArray(content.data.reshape(len(array), size, *content.data.shape[1:]))
    return ak.contents.RegularArray(content, size, zeros_length=len(array))


def _record(array: pa.Array, flags: Iterator[bool]) -> Any:
    names = [f.name for f in _children(array.type)]
    if len(set(names)) < len(names):
        raise UnsupportedTypeError("two fields of its records have the same name")
    contents = [_layout(array.field(n), flags) for n in range(len(names))]
    return ak.contents.RecordArray(contents, names, length=len(array))


def _union(array: pa.Array, flags: Iterator[bool]) -> Any:
    kind = array.type
    place = np.zeros(128, np.int8)
    place[list(kind.type_codes)] = np.arange(kind.num_fields)
    buffers = array.buffers()
    tags = place[np.frombuffer(buffers[1], np.int8, len(array), array.offset)]
    if kind.mode == "dense":
        index = np.frombuffer(buffers[2], np.int32, len(array), array.offset * 4).astype(np.int64)
    else:
        index = np.arange(len(array), dtype=np.int64)
    contents = [_layout(array.field(n), flags) for n in range(kind.num_fields)]
    try:
        return ak.contents.UnionArray(ak.index.Index8(tags), ak.index.Index64(index), contents)
    except TypeError as error:
        raise UnsupportedTypeError(f"{kind} mixes types that would be merged with loss") from error
