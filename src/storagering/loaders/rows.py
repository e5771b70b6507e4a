"""Rows of many chunks at once: each batch is unpacked straight from the mapped files into the caller's array."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from storagering.cache.packed import PackedRows
from storagering.errors import LoaderError
from storagering.loaders import row_kernels as kernels
from storagering.loaders.row_tables import RowTables
from storagering.types import Array, Column


class RowGatherer:
    """Gathers rows of the chunks of a dataset in the rows layout; safe to use from several threads.

    Chunks are opened when a row of theirs is first asked for, and stay open; blocks of rows are checked when one of
    their rows is.

    Args:
        chunks: how many there are.
        open_chunk: gives the rows of a chunk by its number; called once for each, from any thread.
        columns: what to take of each row, all of them packed (see `storagering.cache.rows.is_packed`).
        dtype: float32, or one that holds all their numbers: their own, or a signed integer of more bits than an
            unsigned one's.
    """

    def __init__(
        self,
        chunks: int,
        open_chunk: Callable[[int], PackedRows],
        columns: Sequence[Column],
        dtype: np.dtype[np.generic],
    ) -> None:
        self._open_chunk, self._dtype = open_chunk, np.dtype(dtype)
        self._tables = RowTables(chunks, columns, self._dtype)
        self._packed: dict[int, PackedRows] = {}
        self._states = np.full(chunks, kernels.CLOSED, np.uint8)  # never changed, only replaced: kernels read it
        self._lock = threading.Lock()
        self._locks = [threading.Lock() for _ in range(16)]
        self._unsigned = np.dtype(f"<u{self._dtype.itemsize}")

    def gather(self, chunk: Array, row: Array, out: Array) -> None:
        """Unpack some rows.

        Args:
            chunk: (B,) int32, number of the chunk of each row.
            row: (B,) int64, number of each row within its chunk.
            out: (B, F), or (B,) for one column, of the dtype given; contiguous.

        Raises:
            ChecksumError: bytes changed on disk.
            SchemaError: a column of unsigned integers has values above 2^63.
            LoaderError: there is no such row, or ``out`` does not fit.
        """
        bits = self._as_bits(out, len(chunk))
        while (found := kernels.scan_rows(self._tables.places, self._states, chunk, row)) != kernels.READY:
            if found == kernels.OUT_OF_RANGE:
                raise LoaderError("a row is asked for that its chunk has not")
            self._prepare(chunk, row)
        self._unpack(chunk, row, bits)

    def unpack(self, chunk: int, start: int, out: Array) -> None:
        """Unpack the rows from ``start`` on of one chunk, as many as ``out`` has; see `gather`."""
        bits, packed = self._as_bits(out, len(out)), self._opened(chunk)
        if not 0 <= start <= start + len(out) <= len(packed.words):
            raise LoaderError("a row is asked for that its chunk has not")
        packed.check_range(start, start + len(out))
        row = np.arange(start, start + len(out))
        self._unpack(np.full(len(out), chunk, np.int32), row, bits)

    def _unpack(self, chunk: Array, row: Array, bits: Array) -> None:
        t = self._tables
        if t.narrow:
            kernels.unpack_narrow(t.places, t.fields, t.lookups, t.values, t.casts, t.wide, chunk, row, bits)
        else:
            kernels.unpack_wide(t.places, t.lookups, t.values, t.wide, chunk, row, bits)

    def _as_bits(self, out: Array, rows: int) -> Array:
        if out.dtype != self._dtype or not out.flags.c_contiguous or out.size != rows * self._tables.columns:
            raise LoaderError(f"the array for {rows} rows is {out.dtype}{out.shape}, not {self._dtype} of their size")
        return out.view(self._unsigned).reshape(rows, self._tables.columns)

    def _prepare(self, chunk: Array, row: Array) -> None:
        """Open the chunks of some rows, and check their blocks."""
        order = np.argsort(chunk, kind="stable")
        numbers, starts = np.unique(chunk[order], return_index=True)
        opened = [self._opened(number) for number in numbers.tolist()]
        for packed, rows in zip(opened, np.split(row[order], starts[1:]), strict=True):
            packed.check(rows[(rows >= 0) & (rows < len(packed.words))])
        with self._lock:
            states = self._states.copy()
            states[numbers] = [kernels.SOUND if packed.sound else kernels.OPEN for packed in opened]
            self._states = states

    def _opened(self, number: int) -> PackedRows:
        with self._locks[number % len(self._locks)]:
            if number not in self._packed:
                packed = self._open_chunk(number)
                self._tables.enter(number, packed)
                self._packed[number] = packed
            return self._packed[number]
