"""Bitmap indexes: for every distinct value of a column the entries that hold it, as a Roaring bitmap.

(Lemire, Kaser, Kurz, Deri, O'Hara, Saint-Jacques & Ssi-Yan-Kai, "Roaring bitmaps: implementation of an optimized
software library", 2018.)

An index is a file beside the datasets, ROOT/indexes/NAME-DIGEST/COLUMN.bitmaps: published folders are never changed,
and other contents under the name have another digest. It may be deleted at any time. It holds a head, the sorted values
with the places of their bitmaps, and the bitmaps; each of these has its checksum, so that a look-up reads little more
than its answer.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xxhash

from storagering.cache.layout import Cache
from storagering.errors import ChecksumError, FormatError, MissingExtraError, StorageringError
from storagering.files import make_directory, read_range, replace_file, safe_join
from storagering.formats.conditions import Bound
from storagering.types import Array, Column, Manifest

#: Many values are looked up by the statistics of chunks alone.
MOST_BITMAPS = 1000
_MAGIC = b"SRBITMAP"
_START = struct.Struct("<8sIQ")
_LIMIT_BYTES = 1 << 24
_FORMAT = 1


class _Head(msgspec.Struct, frozen=True):
    """What the file is of.

    Attributes:
        dataset: digest of its manifest.
        dtype: of the values, or ``text``.
        values: how many there are; the last one is NaN if ``nan``.
        table: bytes and checksum of the table that follows.
    """

    format: int
    dataset: str
    column: str
    dtype: str
    values: int
    nan: bool
    table: tuple[int, int]


def roaring() -> Any:
    """The class of bitmaps.

    Raises:
        MissingExtraError: pyroaring is not installed.
    """
    try:
        from pyroaring import BitMap64
    except ImportError as error:
        raise MissingExtraError("bitmap indexes need pyroaring: pip install 'storagering[index]'") from error
    return BitMap64


def index_folder(cache: Cache, manifest: Manifest) -> Path:
    """Where the indexes of one version of a dataset lie."""
    return safe_join(cache.root, "indexes", f"{manifest.name}-{manifest.digest[:16]}")


def index_path(cache: Cache, manifest: Manifest, column: Column) -> Path:
    """The file of one index."""
    return safe_join(index_folder(cache, manifest), f"{column.key}.bitmaps")


def is_indexable(column: Column) -> bool:
    """Whether a column can have an index: one number, truth value or text for each entry."""
    if column.kind == "string":
        return bool(msgspec.json.decode(column.form)["parameters"].get("__array__") == "string")
    return column.kind == "flat" and np.dtype(column.dtype).kind in "biuf"


def write_index(path: Path, manifest: Manifest, column: Column, values: Array | list[str], bitmaps: list[Any]) -> int:
    """Write an index, replacing what was there.

    Args:
        values: distinct and sorted, NaN last.
        bitmaps: of the entries that hold each.

    Returns:
        Its size in bytes.
    """
    pieces = [bitmap.serialize() for bitmap in bitmaps]
    places = np.cumsum([0, *map(len, pieces)], dtype=np.uint64)
    checksums = np.array([xxhash.xxh3_64_intdigest(piece) for piece in pieces], np.uint64)
    nan = False
    if isinstance(values, list):
        dtype, encoded = "text", [text.encode() for text in values]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.uint64)
        stored = ends.astype("<u8").tobytes() + b"".join(encoded)
    else:
        dtype = values.dtype.newbyteorder("<").str
        nan = bool(len(values) and values.dtype.kind == "f" and np.isnan(values[-1]))
        stored = values.astype(dtype).tobytes()
    table = places.astype("<u8").tobytes() + checksums.astype("<u8").tobytes() + stored
    summed = (len(table), xxhash.xxh3_64_intdigest(table))
    head = msgspec.json.encode(_Head(_FORMAT, manifest.digest, column.name, dtype, len(pieces), nan, summed))
    start = _START.pack(_MAGIC, len(head), xxhash.xxh3_64_intdigest(head))
    make_directory(path.parent)
    data = b"".join((start, head, table, *pieces))
    replace_file(path, data)
    return len(data)


class BitmapIndex:
    """An index that is open for look-ups; it keeps its values in memory and reads bitmaps when they are asked for.

    Raises:
        TruncatedError, ChecksumError, FormatError: the file is damaged, or not what it should be.
    """

    def __init__(self, path: Path, manifest: Manifest, column: Column) -> None:
        self._path = path
        head_bytes, head_sum = self._start()
        head_data = self._checked(_START.size, head_bytes, head_sum)
        try:
            self._head = msgspec.json.decode(head_data, type=_Head)
        except msgspec.MsgspecError as error:
            raise FormatError(f"{path} is not an index of this release") from error
        if (self._head.format, self._head.dataset, self._head.column) != (_FORMAT, manifest.digest, column.name):
            raise FormatError(f"{path} is an index of something else, or of another release")
        table = self._checked(_START.size + head_bytes, *self._head.table)
        self._data = _START.size + head_bytes + len(table)
        count = self._head.values
        self._places = np.frombuffer(table, "<u8", count + 1)
        self._checksums = np.frombuffer(table, "<u8", count, self._places.nbytes)
        self._values = _values(self._head, table[16 * count + 8 :])

    def _start(self) -> tuple[int, int]:
        magic, head_bytes, head_sum = _START.unpack(read_range(self._path, 0, _START.size))
        if magic != _MAGIC or head_bytes > _LIMIT_BYTES:
            raise FormatError(f"{self._path} is not an index")
        return head_bytes, head_sum

    def _checked(self, start: int, nbytes: int, checksum: int) -> bytes:
        data = read_range(self._path, start, nbytes)
        if xxhash.xxh3_64_intdigest(data) != checksum:
            raise ChecksumError(f"{self._path} is damaged: its bytes changed on disk")
        return data

    def find(self, low: Bound, high: Bound) -> Any | None:
        """The entries whose value lies between two bounds, these included, or is NaN; None where these are many values.

        Raises:
            TruncatedError, ChecksumError: the file is damaged.
        """
        if isinstance(low, str) is not (self._head.dtype == "text"):
            return None
        ordered = range(self._head.values - self._head.nan)
        first = bisect_left(ordered, low, key=self._values.__getitem__)
        last = bisect_right(ordered, high, key=self._values.__getitem__)
        if last - first > MOST_BITMAPS:
            return None
        return self._union([*range(first, last), *range(len(ordered), self._head.values)])

    def _union(self, numbers: Iterable[int]) -> Any:
        bitmap_class = roaring()
        found = bitmap_class()
        for number in numbers:
            start, stop = int(self._places[number]), int(self._places[number + 1])
            found |= bitmap_class.deserialize(
                self._checked(self._data + start, stop - start, int(self._checksums[number]))
            )
        return found


def _values(head: _Head, stored: bytes) -> list[Any]:
    """The values as Python compares them exactly."""
    if head.dtype != "text":
        numbers: list[Any] = np.frombuffer(stored, head.dtype, head.values).tolist()
        return numbers
    ends = np.frombuffer(stored, "<u8", head.values + 1).tolist()
    text = stored[8 * (head.values + 1) :]
    return [text[a:b].decode() for a, b in pairwise(ends)]


def open_index(cache: Cache, manifest: Manifest, column: Column) -> BitmapIndex | None:
    """The index of a column, None if it has none.

    Raises:
        StorageringError: there is one, and it cannot be read.
    """
    path = index_path(cache, manifest, column)
    if not path.exists():
        return None
    try:
        return BitmapIndex(path, manifest, column)
    except (ValueError, struct.error) as error:
        if isinstance(error, StorageringError):
            raise
        raise FormatError(f"{path} is damaged") from error
