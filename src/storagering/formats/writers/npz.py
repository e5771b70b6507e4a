"""NumPy's ``.npz``: a zip file with one ``.npy`` member an array, which NumPy alone reads.

A jagged column ``NAME`` is ``NAME.offsets`` (one more than entries) and ``NAME.values``.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np

from storagering.errors import SpecError
from storagering.formats.writers.writer import WriteOptions, Writer, is_plain_name, output_errors
from storagering.types import Array, Batch, Column, Part, Schema

_COPY_BYTES = 1 << 20


class NpzWriter(Writer):
    """One ``.npz`` file.

    The shape of an array stands before its numbers, so these gather in a file each until it is known.
    """

    format = "npz"
    compressions = {"none": None, "zlib": 6}  # noqa: RUF012

    @classmethod
    def refusals(cls, schema: Schema) -> dict[str, str]:
        found = super().refusals(schema)
        members: set[str] = set()
        for column in schema.columns:
            names = {_member(column, part) for part in column.parts}
            if column.name not in found and names & members:
                found[column.name] = f"another column is stored as {sorted(names & members)[0]!r} already"
            elif column.name not in found:
                members |= names
        return found

    @classmethod
    def refusal(cls, column: Column) -> str:
        if column.kind not in ("flat", "fixed-shape", "jagged"):
            return f"there is no way to keep {column.kind} columns in npz; write it --to parquet or rntuple"
        if not is_plain_name(column.name, "/\\") or not column.name.strip(".") or len(column.name) > 200:
            return f"{column.name!r} cannot be the name of a member of a zip file"
        return ""

    def __init__(self, path: Path, schema: Schema, options: WriteOptions) -> None:
        super().__init__(path, schema, options)
        if self.codec == "zlib" and not 0 <= (self.level or 0) <= 9:
            raise SpecError(f"--compression {options.compression!r}: zlib has the levels 0 to 9")
        self._folder = path.with_name(f"{path.name}.folder")
        self._rows = {(c.name, p.name): 0 for c in schema.columns for p in c.parts}
        self._values = dict.fromkeys(schema.names, 0)
        with output_errors(path):
            self._folder.mkdir(mode=0o700)
        for number, column in enumerate(schema.columns):
            if column.kind == "jagged":
                self._gather(number, column, 0, np.zeros(1, np.int64))

    def write(self, batch: Batch) -> None:
        for number, column in enumerate(self.schema.columns):
            arrays = batch.arrays[column.name]
            if column.kind == "jagged":
                self._gather(number, column, 0, arrays[0][1:] + self._values[column.name])
                self._values[column.name] += len(arrays[1])
            self._gather(number, column, len(arrays) - 1, arrays[-1])

    def _gather(self, number: int, column: Column, which: int, values: Array) -> None:
        with output_errors(self.path), self._spool(number, which).open("ab") as file:
            file.write(np.ascontiguousarray(values).data)
        self._rows[column.name, column.parts[which].name] += len(values)

    def _spool(self, number: int, which: int) -> Path:
        return self._folder / f"{number:06d}-{which}"

    def close(self) -> None:
        method = zipfile.ZIP_DEFLATED if self.codec == "zlib" else zipfile.ZIP_STORED
        with output_errors(self.path), zipfile.ZipFile(self.path, "w", method, compresslevel=self.level) as packed:
            for number, column in enumerate(self.schema.columns):
                for which, part in enumerate(column.parts):
                    rows = self._rows[column.name, part.name]
                    self._pack(packed, _member(column, part), part, rows, self._spool(number, which))
        self.abandon()

    def _pack(self, packed: zipfile.ZipFile, member: str, part: Part, rows: int, spooled: Path) -> None:
        header = {"descr": part.dtype, "fortran_order": False, "shape": (rows, *part.shape)}
        with packed.open(member, "w", force_zip64=True) as target:
            np.lib.format.write_array_header_1_0(target, header)
            if spooled.exists():
                with spooled.open("rb") as source:
                    shutil.copyfileobj(source, target, _COPY_BYTES)
                spooled.unlink()

    def abandon(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _member(column: Column, part: Part) -> str:
    suffix = {"counts": ".offsets", "data": ".values"}.get(part.role, "") if column.kind == "jagged" else ""
    return f"{column.name}{suffix}.npy"
