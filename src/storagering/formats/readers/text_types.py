"""The types of text columns: judged over a whole file, so that no later row can contradict them.

A column is ``bool``, else ``int64``, else ``uint64``, else ``float64``, else ``string``. Integers that a
float64 does not hold exactly keep a column from becoming one. Missing values are NaN among floats, missing
among integers and bools, and what they are as text among strings.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storagering.errors import CorruptDataError
from storagering.formats.readers.text_layout import MISSING

Kind = Literal["bool", "int64", "uint64", "float64", "string"]

_KINDS: tuple[Kind, ...] = ("bool", "int64", "uint64", "float64", "string")
_TYPES = {"bool": pa.bool_(), "int64": pa.int64(), "uint64": pa.uint64(), "float64": pa.float64()}
_MISSING = pa.array(MISSING)
_TRUE, _FALSE = pa.array(["true", "True", "TRUE"]), pa.array(["false", "False", "FALSE"])
_EXACT = 1 << 53


class TextColumn:
    """What is known of one column; starts as the narrowest type and widens with what it sees."""

    def __init__(self) -> None:
        self._kind: Kind | None = None
        self._missing = self._negative = self._inexact = False

    def see(self, text: pa.Array) -> None:
        """Take some more values into account."""
        if self._kind == "string":
            return
        present, missing = _split(text)
        self._missing |= missing
        if not len(present):
            return
        start = _KINDS.index(self._kind) if self._kind else 0
        for kind in _KINDS[start:]:
            if self._accepts(kind, present):
                self._kind = kind
                return

    @property
    def field_type(self) -> tuple[pa.DataType, bool]:
        """(type, whether values are missing). A column without any value is one of NaNs."""
        kind = self._kind or "float64"
        if kind == "string":
            return pa.large_string(), False
        return _TYPES[kind], self._missing and kind != "float64"

    def convert(self, text: pa.Array) -> pa.Array:
        """Values that were seen before, as the type found."""
        kind, _ = self.field_type
        if pa.types.is_large_string(kind):
            return text.cast(kind)
        present, missing = _split(text)
        values = _parse(self._kind or "float64", present)
        if values is None:
            raise CorruptDataError("the file changed while it was being read")
        if not missing:
            return values
        there = pc.invert(_is_missing(text)).to_numpy(zero_copy_only=False)
        spread = values.take(pa.array(np.cumsum(there) - 1, mask=~there))
        return pc.fill_null(spread, np.nan) if pa.types.is_floating(kind) else spread

    def _accepts(self, kind: Kind, present: pa.Array) -> bool:
        if kind == "string":
            return True
        if kind != "bool" and self._kind == "bool":
            return False
        if (kind == "uint64" and self._negative) or (kind == "float64" and self._inexact):
            return False
        values = _parse(kind, present)
        if values is None:
            return False
        if kind in ("int64", "uint64"):
            numbers = values.to_numpy()
            self._negative |= bool((numbers < 0).any())
            self._inexact |= _loses_digits(numbers)
        return kind != "float64" or not _integers_lost(present, values)


def _is_missing(text: pa.Array) -> pa.Array:
    return pc.is_in(pc.utf8_trim_whitespace(text), _MISSING)


def _split(text: pa.Array) -> tuple[pa.Array, bool]:
    """(the values that are there, trimmed; whether some are missing)."""
    trimmed = pc.utf8_trim_whitespace(text)
    missing = pc.is_in(trimmed, _MISSING)
    some = bool(pc.any(missing).as_py())
    return (trimmed.filter(pc.invert(missing)) if some else trimmed), some


def _parse(kind: Kind, present: pa.Array) -> pa.Array | None:
    if kind == "bool":
        true = pc.is_in(present, _TRUE)
        return true if bool(pc.all(pc.or_(true, pc.is_in(present, _FALSE))).as_py()) else None
    for text in (present, None):
        try:
            plain = pc.replace_substring_regex(present, r"^\+", "") if text is None else text
            return plain.cast(_TYPES[kind])
        except pa.ArrowInvalid:
            continue
    return None


def _loses_digits(numbers: np.ndarray) -> bool:
    large = (
        numbers[(numbers > _EXACT) | (numbers < -_EXACT)] if numbers.dtype.kind == "i" else numbers[numbers > _EXACT]
    )
    return any(int(float(n)) != int(n) for n in large[:1000].tolist()) or len(large) > 1000


def _integers_lost(present: pa.Array, values: pa.Array) -> bool:
    """Whether some are integers written out with more digits than a float64 holds."""
    numbers = values.to_numpy(zero_copy_only=False)
    large = np.flatnonzero(np.isfinite(numbers) & (np.abs(numbers) >= _EXACT))
    for place in large.tolist():
        text = present[place].as_py()
        if text.lstrip("+-").isdigit() and int(text) != int(numbers[place]):
            return True
    return False
