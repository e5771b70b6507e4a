"""What the fields of log records say: numbers in quotes, times in s or ms, words that mean nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

#: Types of fields.
TEXT, INT, FLOAT, TIME, FLAG = "text", "int", "float", "time", "flag"
_NOTHING = frozenset({"", "-", "unknown", "none", "null", "n/a", "undefined", "\\n", "nan"})
_FLAGS = {"true": True, "y": True, "yes": True, "1": True, "false": False, "n": False, "no": False, "0": False}
#: How Avro's JSON writes a value of a union: {"string": "..."}.
_AVRO_TYPES = frozenset({"string", "long", "int", "double", "float", "boolean", "bytes"})
#: Seconds since 1970 reach the first in the year 5138; ms, us and ns are beyond it from 1973 on.
_UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
_FIRST, _LAST = datetime(1990, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MAX_INT = 2**63 - 1
_MAX_TEXT = 4096


class RecordError(Exception):
    """A record that cannot be taken, and why."""


def read_value(value: Any, kind: str, factor: float = 1.0) -> Any:
    """A field's value as a Python object of its type; None if it says nothing.

    Args:
        kind: `TEXT`, `INT`, `FLOAT`, `TIME` (datetime, UTC) or `FLAG`.
        factor: numbers are multiplied by it.

    Raises:
        RecordError: it is not of that type, or out of range.
    """
    value = _plain(value)
    if value is None:
        return None
    return _READERS[kind](value, factor)


def _plain(value: Any) -> Any:
    """Without Avro's wrapping, and None for all that means nothing."""
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in _AVRO_TYPES:
        value = next(iter(value.values()))
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        value = value.strip()
        return None if value.lower() in _NOTHING else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _text(value: Any, _factor: float) -> str:
    text = value if isinstance(value, str) else str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RecordError("is no valid text") from None
    return text[:_MAX_TEXT]


def _number(value: Any) -> float | int:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value) if value.lstrip("+-").isdigit() else float(value)
    raise RecordError(f"is no number: {str(value)[:60]!r}")


def _float(value: Any, factor: float) -> float | None:
    try:
        found = float(_number(value)) * factor
    except OverflowError:
        raise RecordError("is out of range") from None
    return found if math.isfinite(found) else None


def _int(value: Any, factor: float) -> int:
    number = _number(value)
    found = int(number) if factor == 1.0 else round(number * factor)
    if not -_MAX_INT <= found <= _MAX_INT:
        raise RecordError("is out of range")
    return found


def _flag(value: Any, _factor: float) -> bool:
    found = _FLAGS.get(str(value).lower())
    if found is None:
        raise RecordError(f"is neither true nor false: {str(value)[:60]!r}")
    return found


def _time(value: Any, _factor: float) -> datetime | None:
    if isinstance(value, datetime):
        found = value if value.tzinfo else value.replace(tzinfo=UTC)
    elif isinstance(value, str) and not _NUMBER.fullmatch(value):
        found = _parse_time(value)
    else:
        number = float(_number(value))
        if number <= 0:  # not yet
            return None
        divisor = next((unit for limit, unit in _UNITS if number > limit), 1.0)
        try:
            found = datetime.fromtimestamp(number / divisor, UTC)
        except (OverflowError, ValueError, OSError):
            raise RecordError(f"is no time: {str(value)[:60]!r}") from None
    if not _FIRST <= found < _LAST:
        raise RecordError(f"is no time of the grid: {found:%Y-%m-%d}")
    return found


def _parse_time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.replace("/", "-"))
    except ValueError:
        raise RecordError(f"is no time: {text[:60]!r}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


_READERS: dict[str, Callable[[Any, float], Any]] = {
    TEXT: _text,
    INT: _int,
    FLOAT: _float,
    TIME: _time,
    FLAG: _flag,
}
