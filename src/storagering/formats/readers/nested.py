"""Lists, strings, records and missing values that are stored as several plain arrays, read by ranges of entries.

Which array is which part of the column is said by an Awkward form, whose parts carry the names that
`storagering.formats.forms.parts_of` gives them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

import awkward as ak
import numpy as np

from storagering.errors import CorruptDataError
from storagering.types import Array

#: List lengths are summed up in blocks of so many, to find where an entry's list begins.
_BLOCK = 1 << 16


class Rows(Protocol):
    """An array that is read by ranges of its first dimension."""

    path: str
    shape: tuple[int, ...]

    def read(self, start: int, stop: int) -> Array:
        """Rows ``start`` to ``stop``."""


class Offsets:
    """Where lists begin and end among what they hold, from stored offsets or from stored lengths."""

    def __init__(self, rows: Rows, *, lengths: bool) -> None:
        self._rows, self._lengths = rows, lengths
        self._sums: list[int] = [0]  # where the lists of each block of lengths begin
        self._lock = threading.Lock()

    @property
    def path(self) -> str:
        return self._rows.path

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of lists."""
        return (self._rows.shape[0] if self._lengths else max(0, self._rows.shape[0] - 1),)

    def read(self, start: int, stop: int) -> Array:
        """The offsets of lists ``start`` to ``stop``, one more than these, as int64.

        Raises:
            CorruptDataError: they fall somewhere, or there are fewer.
        """
        if not self._lengths and not self._rows.shape[0]:
            return np.zeros(1, np.int64)  # no lists at all, as some write it
        offsets = self._from_lengths(start, stop) if self._lengths else self._integers(start, stop + 1)
        if len(offsets) != stop - start + 1:
            raise CorruptDataError(f"{self.path!r} ends before the lists that it cuts do")
        if (offsets[1:] < offsets[:-1]).any() or offsets[0] < 0:
            raise CorruptDataError(f"{self.path!r}: the lengths of its lists are negative somewhere")
        return offsets

    def _from_lengths(self, start: int, stop: int) -> Array:
        first = start // _BLOCK
        with self._lock:
            while len(self._sums) <= first:
                block = len(self._sums) - 1
                lengths = self._integers(block * _BLOCK, (block + 1) * _BLOCK)
                self._sums.append(self._sums[-1] + int(lengths.sum()))
        lengths = self._integers(first * _BLOCK, stop)
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return offsets[start - first * _BLOCK :] + self._sums[first]

    def _integers(self, start: int, stop: int) -> Array:
        return self._rows.read(start, stop).astype(np.int64)


class NestedReader:
    """One column that is stored as several arrays.

    Args:
        form: Awkward form with form keys.
        parts: the array of each buffer, by its key (``node0-data``); `Offsets` for those of lists.
    """

    def __init__(self, form: Any, parts: Mapping[str, Rows | Offsets]) -> None:
        self._form, self._parts = form, parts

    @property
    def entries(self) -> int:
        """Number of entries."""
        return self._entries_of(self._form)

    def _entries_of(self, form: Any) -> int:
        if isinstance(form, ak.forms.RecordForm):
            return self._entries_of(form.contents[0]) if form.contents else 0
        if isinstance(form, ak.forms.RegularForm) and not isinstance(_innermost(form), ak.forms.NumpyForm):
            return self._entries_of(form.content) // max(1, int(form.size))
        key = _innermost(form).form_key
        first: Rows | Offsets = next(p for k, p in self._parts.items() if k.rpartition("-")[0] == key)
        return first.shape[0]

    def read(self, start: int, stop: int) -> Any:
        """Entries ``start`` to ``stop`` as an Awkward array.

        Raises:
            CorruptDataError: the arrays do not fit together.
        """
        buffers: dict[str, Array] = {}
        self._collect(self._form, start, stop, buffers)
        return ak.from_buffers(self._form, stop - start, buffers)

    def _collect(self, form: Any, start: int, stop: int, buffers: dict[str, Array]) -> None:
        if isinstance(form, ak.forms.RegularForm):
            numbers = _innermost(form)
            if isinstance(numbers, ak.forms.NumpyForm):
                self._collect(numbers, start, stop, buffers)
            else:
                self._collect(form.content, start * form.size, stop * form.size, buffers)
        elif isinstance(form, ak.forms.NumpyForm):
            buffers[f"{form.form_key}-data"] = self._rows(form, "data", start, stop).reshape(-1)
        elif isinstance(form, ak.forms.ListOffsetForm):
            lists = self._parts[f"{form.form_key}-offsets"]
            offsets = lists.read(start, stop)
            buffers[f"{form.form_key}-offsets"] = offsets - offsets[0]
            self._collect(form.content, int(offsets[0]), int(offsets[-1]), buffers)
        elif isinstance(form, ak.forms.RecordForm):
            for content in form.contents:
                self._collect(content, start, stop, buffers)
        elif isinstance(form, ak.forms.UnionForm):
            self._collect_union(form, start, stop, buffers)
        else:
            index = self._rows(form, "index", start, stop).astype(np.int64)
            self._collect(form.content, *_shift(index, index >= 0), buffers)
            buffers[f"{form.form_key}-index"] = index

    def _collect_union(self, form: Any, start: int, stop: int, buffers: dict[str, Array]) -> None:
        tags = self._rows(form, "tags", start, stop)
        index = self._rows(form, "index", start, stop).astype(np.int64)
        for number, content in enumerate(form.contents):
            self._collect(content, *_shift(index, tags == number), buffers)
        buffers[f"{form.form_key}-tags"] = tags
        buffers[f"{form.form_key}-index"] = index

    def _rows(self, form: Any, attribute: str, start: int, stop: int) -> Array:
        rows = self._parts[f"{form.form_key}-{attribute}"]
        values = rows.read(start, stop)
        if len(values) != stop - start:
            raise CorruptDataError(f"{rows.path!r} ends before its lists do")
        return values


def _innermost(form: Any) -> Any:
    while isinstance(form, ak.forms.RegularForm):
        form = form.content
    return form


def _shift(index: Array, chosen: Array) -> tuple[int, int]:
    """What part of the content ``index[chosen]`` points to; it is made to count from the start of that."""
    wanted = index[chosen]
    if not len(wanted):
        return 0, 0
    start, stop = int(wanted.min()), int(wanted.max()) + 1
    index[chosen] -= start
    return start, stop
