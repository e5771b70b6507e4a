"""Arrow IPC files (Feather version 2), written by pyarrow: one record batch a batch."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from storagering.formats.writers.arrow_table import arrow_refusal, file_schema, file_table
from storagering.formats.writers.writer import WriteOptions, Writer, output_errors
from storagering.types import Batch, Column, Schema


class ArrowWriter(Writer):
    """One Arrow IPC file; uncompressed it can be mapped."""

    format = "arrow"
    compressions = {"none": None, "lz4": None, "zstd": 1}  # noqa: RUF012

    @classmethod
    def refusal(cls, column: Column) -> str:
        return arrow_refusal(column)

    def __init__(self, path: Path, schema: Schema, options: WriteOptions) -> None:
        super().__init__(path, schema, options)
        self._schema = file_schema(schema)
        codec = None if self.codec == "none" else pa.Codec(self.codec, self.level)
        with output_errors(path):
            self._sink = pa.OSFile(str(path), "wb")
            self._writer = pa.ipc.new_file(
                self._sink, self._schema, options=pa.ipc.IpcWriteOptions(compression=codec, use_threads=False)
            )

    def write(self, batch: Batch) -> None:
        table = file_table(batch, self._schema)
        with output_errors(self.path):
            self._writer.write_table(table)

    def close(self) -> None:
        with output_errors(self.path):
            self._writer.close()
            self._sink.close()

    def abandon(self) -> None:
        with output_errors(self.path):
            self._sink.close()
