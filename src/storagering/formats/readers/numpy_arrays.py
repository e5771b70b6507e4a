"""NumPy's ``.npy`` and ``.npz`` files, read by ranges and never unpickled.

A structured ``.npy`` array is a table; any other is one column named ``data``. In an ``.npz``, all arrays of
the same length are one table, and ``NAME.values`` with ``NAME.offsets`` a jagged column ``NAME``.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.lib.format as npy_format

from storagering.config import Settings
from storagering.errors import CorruptDataError, FormatError, LimitExceededError, TruncatedError
from storagering.formats.blob import Blob
from storagering.formats.readers.arrow_source import damage
from storagering.formats.readers.hierarchy import Hierarchy, HierarchyColumn, HierarchySource, StoredArray
from storagering.formats.readers.hierarchy_tables import find_table
from storagering.formats.readers.names import check_names, check_no_tree
from storagering.formats.readers.zip_members import Extent, ZipMember, zip_members
from storagering.formats.syntax import parse_python
from storagering.types import Array
from storagering.urls import redact_url

_MAGIC = b"\x93NUMPY"
_MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class _Header:
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    by_columns: bool
    nbytes: int


class NpyArray(StoredArray):
    """The array of one ``.npy`` file; dates and times are read as the integers that they are stored as.

    Args:
        header: the first bytes of the file.
        extent: finds the whole file, when it is first read.
    """

    block = 0

    def __init__(self, path: str, url: str, header: bytes, nbytes: int, extent: Callable[[], Extent]) -> None:
        self.path, self.checked, self.attributes = path, False, {}
        self._extent = extent
        with damage(url, f"array {path!r}"):
            self._header = _read_header(header, nbytes, url)
        self.dtype, self.shape = self._header.dtype, self._header.shape
        self.reason = "Python objects are pickles, which are never loaded" if self.dtype.hasobject else ""
        if self.dtype.kind in "Mm":
            unit, step = np.datetime_data(self.dtype)
            since = "time since 1970-01-01" if self.dtype.kind == "M" else "duration"
            self.attributes = {"doc": f"{since} [{'' if step == 1 else step}{unit}]"}
            self.dtype = np.dtype("i8").newbyteorder(self.dtype.byteorder)
        needed = self._header.nbytes + math.prod(self.shape) * self.dtype.itemsize
        if not self.reason and needed != nbytes:
            kind = TruncatedError if needed > nbytes else CorruptDataError
            raise kind(f"{redact_url(url)}: array {path!r} has {nbytes:,} bytes, its header says {needed:,}")

    @cached_property
    def _place(self) -> tuple[Blob, int]:
        """Where its first element is."""
        extent = self._extent()
        return extent.blob, extent.start + self._header.nbytes

    def read(self, start: int, stop: int) -> Array:
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        if not row or start == stop:
            return np.zeros((stop - start, *self.shape[1:]), self.dtype)
        blob, first = self._place
        if not self._header.by_columns or len(self.shape) < 2:
            data = blob.read(first + start * row, first + stop * row)
            return np.frombuffer(data, self.dtype).reshape(stop - start, *self.shape[1:])
        # Fortran's order: an element of all entries lies together, then the next element.
        size = self.dtype.itemsize
        places = range(first, first + self.shape[0] * row, self.shape[0] * size)
        runs = blob.read_ranges([(at + start * size, at + stop * size) for at in places])
        whole = np.concatenate([np.frombuffer(run, self.dtype) for run in runs])
        return whole.reshape((stop - start, *self.shape[1:]), order="F")


class NumpySource(HierarchySource):
    """A table of a ``.npy`` or ``.npz`` file."""

    def __init__(self, blob: Blob, kind: str, tree: str, columns: Sequence[HierarchyColumn]) -> None:
        super().__init__(blob.url, tree, columns)
        self.format, self.nbytes, self.version, self.checksum = kind, blob.size, blob.version, blob.checksum
        self.self_checked = self.all_checked
        self._blob = blob

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        check_names(names, self.columns, self.url)
        return super().read(names, start, stop)

    def close(self) -> None:
        self._blob.close()


def open_npy(blob: Blob, tree: str | None) -> NumpySource:
    """A ``.npy`` file; raises as `open_source`."""
    check_no_tree(tree, blob.url)
    head = bytes(blob.read(0, min(blob.size, _MAX_HEADER_BYTES)))
    array = NpyArray("data", blob.url, head, blob.size, lambda: Extent(blob, 0))
    if not array.shape:
        raise FormatError(f"{redact_url(blob.url)} is a single number, not an array of entries")
    _, columns = find_table(Hierarchy({"data": array}, {"": {}}), None, blob.url)
    return NumpySource(blob, "npy", "", columns)


def open_npz(blob: Blob, tree: str | None, settings: Settings, spool: str) -> NumpySource:
    """The table of that name in an ``.npz`` file, or the only one there is; raises as `open_source`."""
    arrays: dict[str, StoredArray] = {}
    for member in zip_members(blob, settings, spool):
        name = member.name.removesuffix(".npy")
        if name in arrays:
            raise FormatError(f"{redact_url(blob.url)} holds two arrays named {name!r}")
        if name != member.name:
            arrays[name] = _array_of(name, blob.url, member)
    if not any(array.shape for array in arrays.values()):
        listed = ", ".join(list(arrays)[:8]) or "nothing"
        raise FormatError(f"{redact_url(blob.url)} holds no array of entries (it holds: {listed})")
    found, columns = find_table(_with_lists(arrays), tree, blob.url)
    return NumpySource(blob, "npz", found, columns)


def _array_of(name: str, url: str, member: ZipMember) -> NpyArray:
    array = NpyArray(name, url, member.head(_MAX_HEADER_BYTES), member.nbytes, member.extent)
    array.checked = True  # by zip's CRC-32, before the first read
    return array


def _with_lists(arrays: dict[str, StoredArray]) -> Hierarchy:
    """``NAME.values`` and ``NAME.offsets`` put into a group ``NAME``."""
    groups: dict[str, dict[str, Any]] = {"": {}}
    found = {}
    for path, array in arrays.items():
        name, _, role = path.rpartition(".")
        values, offsets = arrays.get(f"{name}.values"), arrays.get(f"{name}.offsets")
        wanted = role in ("values", "offsets") and name and name not in arrays
        if wanted and values and offsets and _cut(values, offsets):
            groups[name] = {}
            array.path = f"{name}/{role}"
        found[array.path] = array
    return Hierarchy(found, groups)


def _cut(values: StoredArray, offsets: StoredArray) -> bool:
    """Whether these are the offsets of lists of those values."""
    if offsets.dtype.kind not in "iu" or len(offsets.shape) != 1 or not offsets.shape[0] or not values.shape:
        return False
    last = offsets.shape[0] - 1
    return int(offsets.read(0, 1)[0]) == 0 and int(offsets.read(last, last + 1)[0]) == values.shape[0]


def _read_header(head: bytes, nbytes: int, url: str) -> _Header:
    shown = redact_url(url)
    if head[:6] != _MAGIC or len(head) < 12 or head[6] not in (1, 2, 3):
        raise FormatError(f"{shown} is not a NumPy array of version 1, 2 or 3 (it begins with {head[:8]!r})")
    width = 2 if head[6] == 1 else 4
    size = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    if size > nbytes:
        raise TruncatedError(f"{shown} ends within the header of an array: fetch it again")
    if size > _MAX_HEADER_BYTES:
        raise LimitExceededError(f"{shown}: the header of an array claims {size:,} bytes")
    text = head[8 + width : size].decode("utf-8" if head[6] == 3 else "latin-1")
    said = ast.literal_eval(parse_python(text.strip()))
    shape, dtype = said["shape"], npy_format.descr_to_dtype(said["descr"])
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and 0 <= n < 1 << 62 for n in shape):
        raise CorruptDataError(f"{shown}: an array cannot be of shape {shape}")
    return _Header(dtype, shape, said["fortran_order"] is True, size)
