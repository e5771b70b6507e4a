"""Batches as Arrow tables for files: nothing is nullable that holds no missing values."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa

from storagering.formats.arrow import arrow_type, to_arrow
from storagering.formats.forms import UnsupportedTypeError
from storagering.formats.writers.writer import is_plain_name
from storagering.types import Batch, Column, Schema

#: Says to our readers that nullable means optional; elsewhere it means nothing.
_EXACT = {"storagering.exact": "1"}


def arrow_refusal(column: Column) -> str:
    """Why Arrow and Parquet cannot hold this column, '' if they can."""
    if column.name and not is_plain_name(column.name):
        return f"{column.name!r} cannot be the name of a field (control characters)"
    try:
        arrow_type(column)
    except UnsupportedTypeError as error:
        return str(error)
    return ""


def file_schema(schema: Schema) -> pa.Schema:
    """The Arrow schema of a file; titles and units are metadata of the fields."""
    fields = []
    for column in schema.columns:
        form = ak.forms.from_json(column.form)
        metadata = {k: v for k, v in (("doc", column.doc), ("unit", column.unit)) if v}
        kind = _strict(form, arrow_type(column))
        fields.append(pa.field(column.name, kind, nullable=_is_option(form), metadata=metadata or None))
    return pa.schema(fields, metadata=_EXACT)


def file_table(batch: Batch, schema: pa.Schema) -> pa.Table:
    """The batch as a table of `file_schema`."""
    arrays = [
        _fit(to_arrow(column, batch.arrays[column.name], len(batch)), field)
        for column, field in zip(batch.schema.columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _is_option(form: Any) -> bool:
    return bool(form.is_option)


def _strict(form: Any, kind: pa.DataType) -> pa.DataType:
    """The type with its inner fields marked as never missing, where the form says so."""
    if form.is_option:
        return _strict(form.content, kind)
    if pa.types.is_struct(kind):
        pairs = zip(form.contents, kind, strict=True)
        return pa.struct([pa.field(f.name, _strict(c, f.type), nullable=_is_option(c)) for c, f in pairs])
    if pa.types.is_large_list(kind):
        return pa.large_list(_item(form.content, kind))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_item(_content(form), kind), kind.list_size)
    return kind


def _item(form: Any, kind: pa.DataType) -> pa.Field:
    return pa.field(kind.value_field.name, _strict(form, kind.value_type), nullable=_is_option(form))


def _content(form: Any) -> Any:
    """What a fixed-size list holds; a NumPy form with an inner shape is peeled like nested lists."""
    if isinstance(form, ak.forms.NumpyForm):
        return ak.forms.NumpyForm(form.primitive, form.inner_shape[1:])
    return form.content


def _fit(array: pa.Array, field: pa.Field) -> pa.Array:
    """The array in the field's type; what lies behind missing lists and records is not missing itself."""
    kind = field.type
    if array.null_count and not field.nullable:
        filled = pa.concat_arrays([array, pa.array([_blank(array.type)], array.type)])
        array = filled.take(pa.array(np.where(array.is_valid(), np.arange(len(array)), len(array))))
    if not pa.types.is_nested(kind):
        return array
    missing = array.is_null() if array.null_count else None
    if pa.types.is_struct(kind):
        contents = [_fit(array.field(number), inner) for number, inner in enumerate(kind)]
        return pa.StructArray.from_arrays(contents, fields=list(kind), mask=missing)
    values = _fit(array.values, kind.value_field)
    if pa.types.is_large_list(kind):
        return pa.LargeListArray.from_arrays(array.offsets, values, type=kind, mask=missing)
    return pa.FixedSizeListArray.from_arrays(values, type=kind, mask=missing)


def _blank(kind: pa.DataType) -> Any:
    """A value of a type, to lie where nothing is read."""
    if pa.types.is_struct(kind):
        return {inner.name: _blank(inner.type) for inner in kind}
    if pa.types.is_fixed_size_list(kind):
        return [_blank(kind.value_type)] * kind.list_size
    if pa.types.is_large_list(kind):
        return []
    if pa.types.is_large_string(kind):
        return ""
    return b"" if pa.types.is_large_binary(kind) else kind.to_pandas_dtype()()
