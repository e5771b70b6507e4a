"""Events that come one by one, gathered into Arrow batches: for the text formats of event generators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from storagering.types import Array

#: A batch is full when it has so many events or numbers.
_MAX_EVENTS, _MAX_VALUES = 4096, 1 << 20


@dataclass
class EventColumn:
    """One column: its type, what it is, and the values that wait to be written.

    Attributes:
        kind: ``i4``, ``f8``, ... or ``text``.
        depth: 0 for one value an event, 1 for a list, 2 for a list of lists.
    """

    kind: str
    depth: int = 0
    doc: str = ""
    _values: list[Any] = field(default_factory=list)
    _counts: tuple[list[Any], list[Any]] = field(default_factory=lambda: ([], []))

    def add(self, value: Any) -> int:
        """One event's value or list; returns how many values it has."""
        self._values.append(value)
        if self.depth:
            self._counts[0].append(len(value))
            return len(value)
        return 1

    def add_lists(self, counts: Array, values: Array) -> int:
        """One event's lists of lists."""
        self._counts[0].append(len(counts))
        self._counts[1].append(counts)
        self._values.append(values)
        return len(values)

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type; nothing in it is ever missing."""
        kind = pa.string() if self.kind == "text" else pa.from_numpy_dtype(np.dtype(self.kind))
        for _ in range(self.depth):
            kind = pa.list_(pa.field("item", kind, nullable=False))
        return kind

    def take(self) -> pa.Array:
        """All values so far, which are forgotten."""
        values, (outer, inner) = self._values, self._counts
        self._values, self._counts = [], ([], [])
        if self.kind == "text":
            content = pa.array([text for texts in values for text in texts] if self.depth else values, pa.string())
        elif self.depth:
            content = pa.array(_joined(values, self.kind))
        else:
            content = pa.array(np.array(values, self.kind))
        if self.depth == 2:
            content = _lists(self.arrow.value_type, _joined(inner, "i8"), content)
        return _lists(self.arrow, outer, content) if self.depth else content


def _joined(pieces: Sequence[Any], kind: str) -> Array:
    return np.concatenate([np.asarray(p, kind) for p in pieces]) if pieces else np.empty(0, kind)


def _lists(kind: pa.DataType, counts: Sequence[int] | Array, content: pa.Array) -> pa.Array:
    offsets = np.zeros(len(counts) + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), content, type=kind)


class EventTable:
    """Gathers events.

    Args:
        columns: name -> column, in order.
    """

    def __init__(self, columns: Mapping[str, EventColumn]) -> None:
        self._columns = columns
        self._events = self._values = 0
        fields = [
            pa.field(n, c.arrow, nullable=False, metadata={"doc": c.doc} if c.doc else None) for n, c in columns.items()
        ]
        self.schema = pa.schema(fields)

    def add(self, values: Mapping[str, Any]) -> None:
        """One event: a value or list for each column; (lengths, values) for lists of lists."""
        for name, column in self._columns.items():
            value = values[name]
            self._values += column.add_lists(*value) if column.depth == 2 else column.add(value)
        self._events += 1

    @property
    def is_full(self) -> bool:
        """Whether it is time for `take`."""
        return self._events >= _MAX_EVENTS or self._values >= _MAX_VALUES

    def take(self) -> pa.RecordBatch:
        """The events so far, which are forgotten."""
        self._events = self._values = 0
        return pa.RecordBatch.from_arrays([c.take() for c in self._columns.values()], schema=self.schema)
