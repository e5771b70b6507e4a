"""The rows of one chunk file: how they lie in it, and their checksums, block by block, so that one can be read alone.

In the index of the file, behind one row for each part: a head, the fields, the values of their dictionaries, and the
XXH3-64 of each block of rows. All that is checked when the file is opened; a block when a reader first touches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from storagering.cache.rows import Field, FieldKind, describe_field
from storagering.cache.store import damaged
from storagering.errors import CorruptDataError
from storagering.files import load_mapped
from storagering.types import Array, Column

#: The array of words in the Zarr group; no column has this key.
ROWS_NAME = "storagering.rows"
#: What the index says instead of a codec for a column that is in the rows.
PACKED = 255

_BLOCK_BYTES = 64 << 10
_MOST_SHIFT = _BLOCK_BYTES.bit_length() - 1
_KINDS: tuple[FieldKind, ...] = ("float", "integer", "dictionary")
_HEAD = np.dtype(
    [("start", "<u8"), ("data", "<u8"), ("rows", "<u8"), ("words", "<u4"), ("block_shift", "<u4"), ("checksum", "<u8")]
)  # fmt: skip
_FIELD = np.dtype(
    [("bit", "<u4"), ("bits", "u1"), ("kind", "u1"), ("shift", "u1"), ("signed", "u1"), ("zero", "u1"),
     ("values", "u1"), ("dtype", "S6"), ("base", "<u8")]
)  # fmt: skip


def zarr_attributes(columns: Iterable[Column], fields: Mapping[str, Field]) -> dict[str, Any]:
    """What the array of words says of itself, for anybody to decode it (see `storagering.cache.rows`)."""
    return {"packing": [describe_field(column, fields[column.name]) for column in columns]}


def encode_index(words: Array, fields: Iterable[Field], place: tuple[int, int], header: bytes | memoryview) -> bytes:
    """What the index says of the rows.

    Args:
        words: (entries, words of a row), uint32.
        place: where the member begins, and where its data do.
        header: the bytes between these.
    """
    fields = tuple(fields)
    shift = _block_shift(words.shape[1])
    head = (*place, *words.shape, shift, xxhash.xxh3_64_intdigest(header))
    rows = [
        (f.bit, f.bits, _KINDS.index(f.kind), f.shift, f.signed, f.zero, len(f.values), f.dtype.encode(), f.base)
        for f in fields
    ]
    values = [value for field in fields for value in field.values]
    sums = [xxhash.xxh3_64_intdigest(words[at : at + (1 << shift)].data) for at in range(0, len(words), 1 << shift)]
    tables = (np.array([head], _HEAD), np.array(rows, _FIELD), np.array(values, "<u8"), np.array(sums, "<u8"))
    return b"".join(table.tobytes() for table in tables)


def _block_shift(words: int) -> int:
    """Rows of a block, as a power of two: the most that have 64 KiB at most."""
    return max(0, (_BLOCK_BYTES // max(4 * words, 1)).bit_length() - 1)  # at most _MOST_SHIFT


class PackedRows:
    """The packed rows of an open chunk file; safe to use from several threads.

    Attributes:
        words: (entries, words of a row), uint32, mapped: to be read after `check`. At least 4 more bytes can be read
            behind them.
        fields: per packed column, what is where in a row.
        block_shift: rows ``n << block_shift`` and on are block n.
        checked: (blocks,), bool: which ones were found to be what they were.
        sound: whether all were.
    """

    def __init__(self, path: Path, view: memoryview, begin: int, names: Sequence[str]) -> None:
        """Read what the index says from ``begin`` on.

        Raises:
            ChecksumError: what precedes the words in the file changed.
            CorruptDataError: the index does not hold what it should.
        """
        self._path, self._view = path, view
        try:
            head = np.frombuffer(view, _HEAD, 1, begin)[0]
            start, self._data, rows, words, self.block_shift, checksum = head.item()
            fields, begin = _read_fields(view, begin + _HEAD.itemsize, len(names))
            self.words = np.frombuffer(view, "<u4", rows * words, self._data).reshape(rows, words)
            self._sums = np.frombuffer(view, "<u8", -(-rows >> self.block_shift), begin).copy()
            sound = all(field.is_sound(words) for field in fields) and self._data + self.words.nbytes + 4 <= len(view)
        except (ValueError, OverflowError, TypeError) as error:
            raise CorruptDataError(f"{path}: its packed columns cannot be read: {error}") from error
        if not sound or self.block_shift > _MOST_SHIFT:
            raise CorruptDataError(f"{path}: its packed columns do not fit into rows of {words} words")
        if xxhash.xxh3_64_intdigest(load_mapped(path, view, start, self._data)) != checksum:
            raise damaged(path, "what precedes its packed columns (columns: all)")
        self.fields: dict[str, Field] = dict(zip(names, fields, strict=True))
        self.checked = np.zeros(len(self._sums), np.bool_)
        self.sound = not len(self._sums)

    def check(self, rows: Array) -> None:
        """Make sure that the bytes of some rows are what they were when they were written.

        Raises:
            ChecksumError: they changed on disk.
            CorruptDataError: the disk has lost them.
        """
        if not self.sound:
            blocks = rows >> self.block_shift
            self.check_blocks(np.unique(blocks[~self.checked[blocks]]).tolist())

    def check_range(self, start: int, stop: int, what: str = "") -> None:
        """The same for rows ``start`` to ``stop``; raises as `check`, saying that ``what`` is damaged."""
        if not self.sound and start < stop:
            blocks = np.arange(start >> self.block_shift, ((stop - 1) >> self.block_shift) + 1)
            self.check_blocks(blocks[~self.checked[blocks]].tolist(), what)

    def check_blocks(self, blocks: Iterable[int], what: str = "") -> None:
        """The same for whole blocks."""
        row_bytes = 4 * self.words.shape[1]
        for block in blocks:
            first = block << self.block_shift
            last = min(first + (1 << self.block_shift), len(self.words))
            place = self._data + first * row_bytes, self._data + last * row_bytes
            if xxhash.xxh3_64_intdigest(load_mapped(self._path, self._view, *place)) != self._sums[block]:
                raise damaged(self._path, what or f"entries {first} to {last - 1} of its packed columns (columns: all)")
            self.checked[block] = True
        self.sound = bool(self.checked.all())


def _read_fields(view: memoryview, begin: int, count: int) -> tuple[list[Field], int]:
    """The fields, and where in the index they end."""
    table = np.frombuffer(view, _FIELD, count, begin)
    begin += table.nbytes
    values = np.frombuffer(view, "<u8", int(table["values"].sum()), begin)
    fields, at = [], 0
    for bit, bits, kind, shift, signed, zero, few, dtype, base in table.tolist():
        if kind >= len(_KINDS):
            raise ValueError(f"packing number {kind}")
        own = tuple(values[at : at + few].tolist())
        fields.append(Field(dtype.decode(), _KINDS[kind], bit, bits, base, shift, bool(signed), bool(zero), own))
        at += few
    return fields, begin + values.nbytes
