"""Parquet files, written by pyarrow: one row group a batch, a checksum in every page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import pyarrow as pa
import pyarrow.parquet as pq

from storagering.formats.writers.arrow_table import arrow_refusal, file_schema, file_table
from storagering.formats.writers.writer import WriteOptions, Writer, output_errors
from storagering.types import Batch, Column, Schema


class ParquetWriter(Writer):
    """One Parquet file."""

    format = "parquet"
    compressions = {"zstd": 1, "none": None, "snappy": None, "lz4": None, "gzip": 6, "brotli": 4}  # noqa: RUF012

    @classmethod
    def refusal(cls, column: Column) -> str:
        if _hides_fixed_list(ak.forms.from_json(column.form)):
            return "pyarrow reads lists of fixed length inside missing values of Parquet files wrongly; use --to arrow"
        return arrow_refusal(column)

    def __init__(self, path: Path, schema: Schema, options: WriteOptions) -> None:
        super().__init__(path, schema, options)
        self._schema = file_schema(schema)
        with output_errors(path):
            self._writer = pq.ParquetWriter(
                path,
                self._schema,
                compression=self.codec,
                compression_level=self.level,
                use_dictionary=_worth_a_dictionary(self._schema),
                write_page_checksum=True,
            )

    def write(self, batch: Batch) -> None:
        table = file_table(batch, self._schema)
        with output_errors(self.path):
            self._writer.write_table(table, row_group_size=max(1, len(batch)))

    def close(self) -> None:
        with output_errors(self.path):
            self._writer.close()

    def abandon(self) -> None:
        with output_errors(self.path):
            self._writer.close()


def _worth_a_dictionary(schema: pa.Schema) -> list[str]:
    """Leaves that are not floating-point numbers: these only grow with one."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    leaves = pq.ParquetFile(pa.BufferReader(sink.getvalue())).schema
    found = [leaves.column(number) for number in range(len(leaves))]
    return [leaf.path for leaf in found if leaf.physical_type not in ("FLOAT", "DOUBLE")]


def _hides_fixed_list(form: Any, *, inside: bool = False) -> bool:
    """Whether a list of fixed length is inside something that may be missing."""
    if isinstance(form, ak.forms.NumpyForm):
        return inside and bool(form.inner_shape)
    if inside and isinstance(form, ak.forms.RegularForm):
        return True
    contents = form.contents if hasattr(form, "contents") else [form.content]
    # What a list holds is absent where the list is missing: only records and options pass it on.
    inside = form.is_option or (inside and isinstance(form, ak.forms.RecordForm))
    return any(_hides_fixed_list(content, inside=inside) for content in contents)
