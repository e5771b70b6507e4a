"""RNTuples, written by uproot: nested types of any depth, one cluster a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import uproot

from storagering.formats.forms import to_awkward
from storagering.formats.writers.root_file import COMPRESSIONS, compression_of, tree_name
from storagering.formats.writers.writer import WriteOptions, Writer, is_plain_name, output_errors
from storagering.types import Batch, Column, Schema

_NUMBERS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]


class NtupleWriter(Writer):
    """A ROOT file with one RNTuple; titles become field descriptions."""

    format = "rntuple"
    compressions = COMPRESSIONS

    @classmethod
    def refusal(cls, column: Column) -> str:
        return _name_refusal(column.name) or _form_refusal(ak.forms.from_json(column.form))

    def __init__(self, path: Path, schema: Schema, options: WriteOptions) -> None:
        super().__init__(path, schema, options)
        forms = [_with_doc(ak.forms.from_json(c.form), c.doc) for c in schema.columns]
        with output_errors(path):
            self._file = uproot.recreate(path, compression=compression_of(self.codec, self.level))
            self._ntuple = self._file.mkrntuple(tree_name(options.tree), ak.forms.RecordForm(forms, list(schema.names)))

    def write(self, batch: Batch) -> None:
        record = to_awkward(batch).layout
        contents = [_with_doc(c, column.doc) for c, column in zip(record.contents, self.schema.columns, strict=True)]
        with output_errors(self.path):
            self._ntuple.extend(ak.Array(record.copy(contents=contents)))

    def close(self) -> None:
        with output_errors(self.path):
            self._file.close()

    def abandon(self) -> None:
        self._file.close()


def _with_doc(node: Any, doc: str) -> Any:
    """A form or layout with its title, which uproot writes as the field's description."""
    return node.copy(parameters={**node.parameters, "__doc__": doc}) if doc else node


def _name_refusal(name: str) -> str:
    if not is_plain_name(name, "./\\"):
        return f"{name!r} cannot be the name of an RNTuple field (no '.', '/', '\\' or control characters)"
    return ""


def _form_refusal(form: Any) -> str:
    if isinstance(form, ak.forms.NumpyForm):
        return "" if form.primitive in _NUMBERS else f"uproot writes no {form.primitive} into RNTuples"
    if form.parameter("__array__") == "string" and isinstance(form, ak.forms.ListOffsetForm):
        return ""
    if form.parameter("__array__") in ("string", "bytestring"):
        return f"RNTuples have no {'strings of fixed length' if form.parameter('__array__') == 'string' else 'bytes'}"
    if isinstance(form, ak.forms.UnionForm):
        return "uproot reads no variants of this kind back"
    if isinstance(form, ak.forms.RecordForm):
        if not form.contents:
            return "RNTuples have no records without fields"
        names = () if form.is_tuple else form.fields
        reasons = [*map(_name_refusal, names), *map(_form_refusal, form.contents)]
        return next(filter(None, reasons), "")
    if form.is_option and _holds_record(form.content):
        return "uproot writes missing records into RNTuples as lists of records"
    return _form_refusal(form.content)


def _holds_record(form: Any) -> bool:
    """Whether a form has a record inside: a type without a name, whose outer types lose theirs too."""
    if isinstance(form, ak.forms.RecordForm):
        return True
    return hasattr(form, "content") and _holds_record(form.content)
