"""What the values of JSON lines are, judged over a whole file, so that no later line can contradict it.

Integers are ``int64``, or ``uint64`` if they need it; beside fractions they are ``float64``, unless that
would change one. Objects are records, arrays lists; a field that is absent somewhere is missing there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_INT64, _UINT64 = range(-(1 << 63), 1 << 63), range(1 << 64)
_EXACT = 1 << 53
_MAX_DEPTH = 32


class NoTypeError(Exception):
    """Values that no single type holds."""


@dataclass
class JsonType:
    """All values seen at one place of the objects."""

    seen: int = 0
    missing: bool = False
    kinds: set[str] = field(default_factory=set)
    low: int = 0
    high: int = 0
    inexact: bool = False
    item: JsonType | None = None
    records: int = 0
    fields: dict[str, JsonType] = field(default_factory=dict)

    def see(self, value: Any) -> None:
        """Take a value as `json` gives it into account."""
        self.seen += 1
        if value is None:
            self.missing = True
        elif isinstance(value, dict):
            self.kinds.add("object")
            self.records += 1
            for name, inner in value.items():
                self.fields.setdefault(name, JsonType()).see(inner)
        elif isinstance(value, list):
            self._item()
            for inner in value:
                self._item().see(inner)
        elif isinstance(value, bool | str):
            self.kinds.add("bool" if isinstance(value, bool) else "string")
        elif isinstance(value, int):
            self._see_integers(value, value)
            self.inexact |= abs(value) > _EXACT and int(float(value)) != value
        else:
            self.kinds.add("number")

    def see_array(self, array: pa.Array) -> None:
        """Take an array that pyarrow made of JSON into account; it must hold no integers beyond 2^53."""
        self.seen += len(array)
        self.missing |= array.null_count > 0
        kind, there = array.type, array.drop_null()
        if not len(there):
            return
        if pa.types.is_struct(kind):
            self.kinds.add("object")
            self.records += len(there)
            for number, name in enumerate(f.name for f in kind):
                self.fields.setdefault(name, JsonType()).see_array(there.field(number))
        elif pa.types.is_list(kind):
            self._item().see_array(there.flatten())
        elif pa.types.is_integer(kind):
            ends = pc.min_max(there).as_py()
            self._see_integers(ends["min"], ends["max"])
        elif pa.types.is_floating(kind):
            self.kinds.add("number")
        else:  # strings that look like dates come as such
            self.kinds.add("bool" if pa.types.is_boolean(kind) else "string")

    def _item(self) -> JsonType:
        self.kinds.add("array")
        self.item = self.item or JsonType()
        return self.item

    def _see_integers(self, low: int, high: int) -> None:
        self.kinds.add("integer")
        self.low, self.high = min(self.low, low), max(self.high, high)

    def field_of(self, name: str, expected: int, depth: int = 0) -> pa.Field:
        """The Arrow field that holds all values.

        Args:
            expected: number of values there would be if it were never absent.
            depth: how deep it lies in a column.

        Raises:
            NoTypeError: there is none.
        """
        if depth > _MAX_DEPTH:
            raise NoTypeError(f"it is nested more than {_MAX_DEPTH} levels deep")
        return pa.field(name, self._arrow_type(depth + 1), nullable=self.missing or self.seen < expected)

    def _arrow_type(self, depth: int) -> pa.DataType:
        kinds = self.kinds
        if not kinds:
            raise NoTypeError("it has no values, so its type is unknown")
        if kinds == {"array"} and self.item is not None:
            return pa.list_(self.item.field_of("item", self.item.seen, depth))
        if kinds == {"object"}:
            return pa.struct([inner.field_of(name, self.records, depth) for name, inner in self.fields.items()])
        if kinds <= {"integer", "number"}:
            return self._number_type()
        if len(kinds) > 1:
            listed = " and ".join(f"{kind}s" for kind in sorted(kinds))
            raise NoTypeError(f"it mixes {listed}")
        return pa.large_string() if "string" in kinds else pa.bool_()

    def _number_type(self) -> pa.DataType:
        if "number" in self.kinds:
            if self.inexact:
                raise NoTypeError("it mixes fractions and integers of more digits than float64 holds")
            return pa.float64()
        for kind, limits in ((pa.int64(), _INT64), (pa.uint64(), _UINT64)):
            if self.low in limits and self.high in limits:
                return kind
        raise NoTypeError("it has integers of more than 64 bits")
