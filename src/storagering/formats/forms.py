"""Awkward arrays to columns and parts, and back, exactly.

Any Awkward layout is a form plus named buffers; a column keeps the form and stores each buffer as one
array (a `Part`). Lists are kept as int64 offsets in memory. So nothing is lost, whatever a tree holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import awkward as ak
import numpy as np

from storagering.errors import CorruptDataError, SchemaError
from storagering.formats.sparse import put_back, take_out
from storagering.types import Array, Batch, Column, Kind, Part, Role, Schema

_PLAIN_NAME = re.compile(r"(?!__)(?!col\d{6}$)[A-Za-z0-9_][A-Za-z0-9_.#-]{0,99}")
_UNIT = re.compile(r"[\[(]\s*((?:[kMGT]?eV|[munp]?m|cm|[mnp]?s|rad|deg|[fp]b)(?:\^?2|/c\^?2|/c)?)\s*[\])]")


class UnsupportedTypeError(SchemaError):
    """A type that no column can hold (Python objects, dates, zero-size lists)."""


def describe_column(name: str, array: Any, *, doc: str = "") -> Column:
    """The column that stores ``array``; its key is given later by `assign_keys`.

    Raises:
        UnsupportedTypeError: Awkward cannot express the array as buffers of numbers.
    """
    form, _, _ = _to_buffers(array)
    found = _UNIT.search(doc)
    kind, dtype = _classify(form)
    return Column(
        name=name,
        dtype=dtype,
        kind=kind,
        unit=found.group(1) if found else "",
        doc=doc,
        form=form.to_json(),
        key=name,
        parts=parts_of(form),
    )


def parts_of(form: Any) -> tuple[Part, ...]:
    """The parts that a column of that form (with form keys) is stored as."""
    return tuple(_PartWalk().walk(form))


def assign_keys(columns: Iterable[Column]) -> Schema:
    """A schema whose columns have safe, unique keys (they differ in more than case).

    Names come from data: ``../x`` or ``zarr.json`` stays a name and never becomes a path.
    """
    taken: set[str] = {"zarr.json", "storagering.index", "storagering.rows"}
    keyed = []
    for number, column in enumerate(columns):
        plain = _PLAIN_NAME.fullmatch(column.name) and column.name.lower() not in taken
        key = column.name if plain else f"col{number:06d}"
        taken.add(key.lower())
        keyed.append(
            Column(column.name, column.dtype, column.kind, column.unit, column.doc, column.form, key, column.parts)
        )
    return Schema(tuple(keyed))


def to_batch(schema: Schema, arrays: Mapping[str, Any], num_entries: int) -> Batch:
    """The named arrays as a batch of that schema.

    Raises:
        SchemaError: an array has another type than its column, naming both.
        CorruptDataError: lists of an array overrun or overlap what they are made of.
    """
    parts = {}
    for column in schema.columns:
        _check_valid(column.name, arrays[column.name])
        form, length, container = _to_buffers(arrays[column.name])
        if form.to_json() != column.form:
            have, want = form.type, ak.forms.from_json(column.form).type
            raise SchemaError(f"column {column.name!r} is {have} here and {want} in the first file")
        if length != num_entries:
            raise SchemaError(f"column {column.name!r} has {length} entries, not {num_entries}")
        if column.kind == "sparse":
            parts[column.name] = take_out(column, container[column.parts[-1].key])
        else:
            parts[column.name] = tuple(container[p.key].reshape(-1, *p.shape) for p in column.parts)
    return Batch(schema, num_entries, parts)


def to_awkward(batch: Batch) -> Any:
    """The batch as an Awkward record array, equal to what was converted.

    Raises:
        CorruptDataError: the arrays of a column do not fit together.
    """
    contents = []
    for column in batch.schema.columns:
        form = ak.forms.from_json(column.form)
        arrays = batch.arrays[column.name]
        if column.kind == "sparse":
            container = {column.parts[-1].key: put_back(column, arrays).reshape(-1)}
        else:
            container = {p.key: a.reshape(-1) for p, a in zip(column.parts, arrays, strict=True)}
        try:
            contents.append(ak.from_buffers(form, batch.num_entries, container, highlevel=False))
        except (TypeError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise CorruptDataError(f"column {column.name!r}: its arrays do not fit together ({why})") from error
    return ak.Array(ak.contents.RecordArray(contents, list(batch.schema.names), length=batch.num_entries))


def empty_array(column: Column) -> Any:
    """An array of the column's type without entries."""
    return ak.from_buffers(
        ak.forms.from_json(column.form),
        0,
        {p.key: np.zeros(1 if p.role == "counts" else 0, p.dtype) for p in column.parts},
    )


def _check_valid(name: str, array: Any) -> None:
    """Whether every list lies within its content; readers take offsets from files as they are."""
    fault = ak.validity_error(array)
    if fault and "is mergeable with" not in fault:  # a union of like types is odd, and not damaged
        raise CorruptDataError(f"column {name!r} is damaged ({' '.join(fault.split())[:200]})")


def _to_buffers(array: Any) -> tuple[Any, int, dict[str, Array]]:
    layout = _normalise(ak.to_packed(array, highlevel=False))
    return ak.to_buffers(layout, buffer_key="{form_key}-{attribute}")  # type: ignore[no-any-return]


def _normalise(layout: Any) -> Any:
    """One layout for each type: int64 offsets, no views, no bit masks, no titles (see `Column.doc`)."""
    if "__doc__" in layout.parameters:
        layout = layout.copy(parameters={k: v for k, v in layout.parameters.items() if k != "__doc__"})
    if isinstance(layout, ak.contents.NumpyArray):
        if layout.data.dtype.kind not in "biufc":
            raise UnsupportedTypeError(f"values of type {layout.data.dtype} are not numbers")
        return layout
    if isinstance(layout, ak.contents.ListOffsetArray):
        offsets = ak.index.Index64(np.asarray(layout.offsets.data, dtype=np.int64))
        return ak.contents.ListOffsetArray(offsets, _normalise(layout.content), parameters=layout.parameters)
    if isinstance(layout, ak.contents.RegularArray):
        if layout.size == 0:
            raise UnsupportedTypeError("lists of fixed length 0 hold nothing")
        return layout.copy(content=_normalise(layout.content))
    if isinstance(layout, ak.contents.RecordArray):
        return layout.copy(contents=[_normalise(c) for c in layout.contents])
    if isinstance(layout, ak.contents.UnionArray):
        return layout.copy(
            index=ak.index.Index64(np.asarray(layout.index.data, dtype=np.int64)),
            contents=[_normalise_case(c) for c in layout.contents],
        )
    if layout.is_option:
        layout = layout.to_IndexedOptionArray64().to_packed()  # without the values behind what is missing
        return layout.copy(content=_normalise(layout.content))
    if isinstance(layout, ak.contents.EmptyArray):
        raise UnsupportedTypeError("the type of its values is unknown (there are none)")
    raise UnsupportedTypeError(f"layouts of class {type(layout).__name__} cannot be stored")


def _normalise_case(layout: Any) -> Any:
    """One type of a union. uproot gives the variants of an RNTuple a type for none of them, without values."""
    if layout.is_option and isinstance(layout.content, ak.contents.EmptyArray):
        return layout.to_IndexedOptionArray64().to_packed()
    return _normalise(layout)


def _classify(form: Any) -> tuple[Kind, str]:
    if (flat := _numbers(form)) is not None:
        return ("fixed-shape" if flat[1] else "flat"), flat[0]
    if not isinstance(form, ak.forms.ListOffsetForm):
        return "nested", str(form.type)
    if form.parameter("__array__") in ("string", "bytestring"):
        return "string", "string"
    if (flat := _numbers(form.content)) is not None:
        return "jagged", flat[0]
    inner = form.content
    if isinstance(inner, ak.forms.ListOffsetForm):
        if inner.parameter("__array__") in ("string", "bytestring"):
            return "doubly-jagged", "string"
        if (flat := _numbers(inner.content)) is not None:
            return "doubly-jagged", flat[0]
    return "nested", str(form.type)


def _numbers(form: Any) -> tuple[str, tuple[int, ...]] | None:
    """(dtype, shape) of plain numbers of fixed shape, None if the form is anything else."""
    shape: tuple[int, ...] = ()
    while isinstance(form, ak.forms.RegularForm) and form.parameter("__array__") is None:
        shape, form = (*shape, form.size), form.content
    if isinstance(form, ak.forms.NumpyForm):
        return str(np.dtype(form.primitive)), shape + tuple(form.inner_shape)
    return None


class _PartWalk:
    """Names the buffers of a form; a class because names must not repeat."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def walk(self, form: Any, path: str = "", leaf: str = "") -> Iterable[Part]:
        if (numbers := _numbers(form)) is not None:
            key = f"{_innermost(form).form_key}-data"
            yield Part(self._name(path, leaf), "data", np.dtype(numbers[0]).str, numbers[1], key)
        elif isinstance(form, ak.forms.ListOffsetForm):
            yield self._index(form, path, "counts", "offsets", "<i8")
            leafy = _numbers(form.content) is not None or isinstance(form.content, ak.forms.RecordForm)
            yield from self.walk(form.content, path if leafy else f"{path}item/", "values")
        elif isinstance(form, ak.forms.RecordForm):
            for number, field in enumerate(form.fields):
                plain = _PLAIN_NAME.fullmatch(field) and field != "zarr.json"
                safe = field if plain else f"field{number}"
                content = form.contents[number]
                flat = _numbers(content) is not None
                yield from self.walk(content, path if flat else f"{path}{safe}/", safe)
        elif isinstance(form, ak.forms.UnionForm):
            yield self._index(form, path, "tags", "tags", "|i1")
            yield self._index(form, path, "index", "index", "<i8")
            for number, content in enumerate(form.contents):
                yield from self.walk(content, f"{path}case{number}/", "values")
        elif form.is_option:
            yield self._index(form, path, "index", "index", "<i8")
            yield from self.walk(form.content, path, "values")
        elif not isinstance(form, ak.forms.EmptyForm):
            yield from self.walk(form.content, path, leaf)  # a regular list of something not numbers

    def _index(self, form: Any, path: str, role: Role, attribute: str, dtype: str) -> Part:
        return Part(self._name(path, role), role, dtype, (), f"{form.form_key}-{attribute}")

    def _name(self, path: str, leaf: str) -> str:
        name = path + leaf
        while name in self._used:
            name += "_"
        self._used.add(name)
        return name


def _innermost(form: Any) -> Any:
    while isinstance(form, ak.forms.RegularForm):
        form = form.content
    return form
