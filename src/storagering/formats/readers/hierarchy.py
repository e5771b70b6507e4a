"""Arrays in groups, as HDF5 and Zarr hold them, as one table of columns.

A table is all arrays below one group (or one array) that have the same first dimension: one entry of
the table is one index of it. Structured arrays give a column for each field, groups of ``values`` and
``offsets`` (or ``counts``) a jagged one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import awkward as ak
import numpy as np

from storagering.config import Settings
from storagering.errors import CorruptDataError, SchemaError, StorageringError, nearest_names
from storagering.formats.forms import UnsupportedTypeError
from storagering.formats.limits import check_unpacking
from storagering.formats.readers.elements import to_layout, unit_of, why_unreadable
from storagering.formats.readers.nested import NestedReader
from storagering.formats.source import Source, Storage, UnreadableColumnsError
from storagering.types import Array
from storagering.urls import redact_text, redact_url

#: More boundaries than this help nobody.
_MAX_BOUNDARIES = 1 << 16


class StoredArray(ABC):
    """One array of a file.

    Attributes:
        path: where it is, without a leading slash.
        attributes: what is said of it.
        block: rows in one compressed block; 0 if rows can be read anywhere.
        reason: why it cannot be read whatever its elements are, '' if it can.
        checked: whether all its bytes carry checksums which reading compares.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attributes: Mapping[str, Any]
    block: int
    reason: str
    checked: bool

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """Rows ``start`` to ``stop``.

        Raises:
            CorruptDataError: they are damaged, or were never written.
            SourceError: the server failed.
        """

    def read_fields(self, fields: Sequence[str], start: int, stop: int) -> Array:  # noqa: ARG002
        """Rows of a structured array with at least these fields; raises as `read`."""
        return self.read(start, stop)

    def storage(self) -> Storage:
        """How it lies in the file."""
        return Storage(decoded_bytes=decoded_bytes(self.shape, self.dtype))


def check_sizes(array: StoredArray, chunk_bytes: int, stored_chunk_bytes: int | None, settings: Settings) -> None:
    """Refuse an array that claims to be far more than is stored of it.

    Args:
        chunk_bytes: of one chunk, unpacked, and as it is stored (None if unknown).

    Raises:
        LimitExceededError: see `check_unpacking`.
    """
    if stored_chunk_bytes is not None:
        check_unpacking("a chunk", stored_chunk_bytes, chunk_bytes, settings)
    stored = array.storage()
    if settings.fill_absent_chunks and stored.stored_bytes is not None and stored.decoded_bytes is not None:
        check_unpacking("the array", stored.stored_bytes, stored.decoded_bytes, settings)


def decoded_bytes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int | None:
    """Size in memory, None for elements of variable length or an unknown number of them."""
    return None if dtype.hasobject or -1 in shape else math.prod(shape) * dtype.itemsize


class RefusedArray(StoredArray):
    """Something that is not read; it has as many entries as the rest where that is unknown (-1)."""

    block, checked = 0, False

    def __init__(
        self, path: str, reason: str, shape: tuple[int, ...] = (-1,), attributes: Mapping[str, Any] | None = None
    ) -> None:
        self.path, self.reason, self.shape, self.attributes = path, reason, shape, attributes or {}
        self.dtype = np.dtype("V1")

    def read(self, start: int, stop: int) -> Array:  # noqa: ARG002
        raise CorruptDataError(f"it cannot be read: {self.reason}")


@dataclass(frozen=True)
class Hierarchy:
    """All that a file holds.

    Attributes:
        arrays: path -> array, in order.
        groups: path -> attributes, '' for the root.
    """

    arrays: Mapping[str, StoredArray]
    groups: Mapping[str, Mapping[str, Any]]

    @cached_property
    def children(self) -> Mapping[str, set[str]]:
        """Path -> names right below it that are arrays, or have some inside."""
        found: dict[str, set[str]] = {}
        for path in self.arrays:
            while path:
                path, _, name = path.rpartition("/")
                names = found.setdefault(path, set())
                if name in names:
                    break
                names.add(name)
        return found


@dataclass(frozen=True)
class HierarchyColumn:
    """One column: an array, a field of a structured one, or several arrays that make up lists.

    Attributes:
        path: of the array, or of the group for lists.
        field: name in a structured array, '' without.
        arrays: all that it is made of.
    """

    name: str
    path: str
    typename: str
    entries: int
    doc: str
    arrays: tuple[StoredArray, ...]
    field: str = ""
    nested: NestedReader | None = None

    @property
    def kind(self) -> np.dtype[Any]:
        """The type of the elements of a plain column."""
        dtype = self.arrays[0].dtype
        return dtype[self.field] if self.field else dtype

    @property
    def reason(self) -> str:
        """Why it cannot be read, '' if it can."""
        if self.nested is None:
            return self.arrays[0].reason or why_unreadable(self.kind)
        return next((why for a in self.arrays if (why := a.reason or why_unreadable(a.dtype))), "")


class HierarchySource(Source):
    """A table of a file of arrays; subclasses open the file."""

    def __init__(self, url: str, tree: str, columns: Iterable[HierarchyColumn]) -> None:
        self.url, self.tree = url, tree
        self._columns: dict[str, HierarchyColumn] = {}
        self.repeated: list[str] = []
        for column in columns:
            if column.name in self._columns:
                self.repeated.append(column.name)
            else:
                self._columns[column.name] = column
        self.columns = {name: column.typename for name, column in self._columns.items()}
        self.entries = max((c.entries for c in self._columns.values()), default=0)

    @property
    def all_checked(self) -> bool:
        """Whether every array of the table carries checksums."""
        return all(array.checked for column in self._columns.values() for array in column.arrays)

    def doc(self, name: str) -> str:
        column = self._columns[name]
        return " ".join(text for text in (column.doc, "" if column.nested else unit_of(column.kind)) if text)

    def storage(self) -> dict[str, Storage]:
        return {name: _storage_of(column) for name, column in self._columns.items()}

    def nbytes_of(self, names: Iterable[str]) -> int:
        arrays = {array.path: array for name in names for array in self._columns[name].arrays}
        return min(self.nbytes, sum(array.storage().stored_bytes or 0 for array in arrays.values()))

    def boundaries(self, names: Iterable[str]) -> list[int]:
        """Multiples of the blocks of all columns; lists count with their lengths, as their values cut elsewhere."""
        blocks = [self._columns[name].arrays[0].block for name in names]
        step = math.lcm(*(block for block in blocks if block)) if any(blocks) else max(1, self.entries)
        step *= max(1, self.entries // (step * _MAX_BOUNDARIES))
        return sorted({0, self.entries} | set(range(0, self.entries, step)))

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        if unknown := [name for name in names if name not in self._columns]:
            raise SchemaError(
                f"{redact_url(self.url)} has no column {unknown[0]!r}{nearest_names(unknown[0], self._columns)}"
            )
        columns = [self._columns[name] for name in names]
        if reasons := {c.name: c.reason for c in columns if c.reason}:
            raise UnreadableColumnsError(reasons, self.url)
        fields: dict[str, list[HierarchyColumn]] = {}
        for column in columns:
            if column.field:
                fields.setdefault(column.path, []).append(column)
        read = {c.name: self._read_column(c, start, stop) for c in columns if not c.field}
        for together in fields.values():
            array = together[0].arrays[0]
            with damage(self.url, array.path):
                rows = array.read_fields([c.field for c in together], start, stop)
                _check_length(rows, start, stop)
                read |= {c.name: _to_awkward(rows[c.field], c.kind) for c in together}
        if unreadable := {name: str(found) for name, found in read.items() if isinstance(found, UnsupportedTypeError)}:
            raise UnreadableColumnsError(unreadable, self.url)
        return {name: read[name] for name in names}

    def _read_column(self, column: HierarchyColumn, start: int, stop: int) -> Any:
        with damage(self.url, column.path):
            if column.nested is not None:
                return column.nested.read(start, stop)
            rows = column.arrays[0].read(start, stop)
            _check_length(rows, start, stop)
            return _to_awkward(rows, column.kind)


def _to_awkward(rows: Array, dtype: np.dtype[Any]) -> Any:
    """The rows as an Awkward array, or why they cannot be one."""
    try:
        return ak.Array(to_layout(rows, dtype))
    except UnsupportedTypeError as error:
        return error


def _storage_of(column: HierarchyColumn) -> Storage:
    """Sums over its arrays; a field of a structured array has no size of its own in the file."""
    parts = [array.storage() for array in column.arrays]
    compression = ", ".join(sorted({part.compression for part in parts} - {""}))
    blocks, stored = _sum(part.blocks for part in parts), _sum(part.stored_bytes for part in parts)
    if column.field:
        return Storage(compression, blocks, None, decoded_bytes(column.arrays[0].shape, column.kind))
    return Storage(compression, blocks, stored, _sum(part.decoded_bytes for part in parts))


def _sum(numbers: Iterable[int | None]) -> int | None:
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total


def _check_length(rows: Array, start: int, stop: int) -> None:
    if len(rows) != stop - start:
        raise CorruptDataError(f"only {len(rows)} rows from {start} to {stop}")


@contextmanager
def damage(url: str, path: str) -> Iterator[None]:
    """Turn what a library raises on bad contents into `CorruptDataError`; the file's bytes have errors of their own."""
    try:
        with naming(url, f"column {path!r}: "):
            yield
    except StorageringError:
        raise
    except Exception as error:
        text = redact_text(" ".join(str(error).split()), url)[:300] or type(error).__name__
        raise CorruptDataError(f"{redact_url(url)}: column {path!r} is damaged ({text}); fetch it again") from error


@contextmanager
def naming(url: str, what: str = "") -> Iterator[None]:
    """Say in which file it is that the contents are damaged."""
    try:
        yield
    except CorruptDataError as error:
        if redact_url(url) in str(error):
            raise
        raise type(error)(f"{redact_url(url)}: {what}{error}") from error


def doc_of(attributes: Mapping[str, Any]) -> str:
    """What the attributes of an array say of it, with the unit in brackets."""
    lowered = {str(key).lower(): value for key, value in attributes.items()}
    doc = next((t for k in ("doc", "description", "title", "long_name") if (t := _text(lowered.get(k)))), "")
    unit = next((t for k in ("unit", "units") if (t := _text(lowered.get(k)))), "")
    return f"{doc} [{unit}]".strip() if unit and f"[{unit}]" not in doc and f"({unit})" not in doc else doc


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return value.strip() if isinstance(value, str) else ""
