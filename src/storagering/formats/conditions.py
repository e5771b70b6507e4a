"""What a selection demands of single columns: by it are told entries that cannot be selected, never those that are.

A condition is weaker than the selection that it was made of: whatever the selection keeps meets the condition, however
constants were rounded. NaN meets every condition of its column. What is not understood demands nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from storagering.formats import functions as fn
from storagering.formats.expressions import Expression
from storagering.types import Column, Schema

Bound: TypeAlias = int | float | str

#: Integers from here on, and all that is compared as a floating-point number, are compared within a margin.
_EXACT = 1 << 53
#: Of the margin, in units in the last place of the coarsest type that takes part.
_MARGIN = 4
_INFINITY = float("inf")
_NEGATED = {"Eq": "NotEq", "NotEq": "Eq", "Lt": "GtE", "LtE": "Gt", "Gt": "LtE", "GtE": "Lt"}
_TURNED = {"Eq": "Eq", "NotEq": "NotEq", "Lt": "Gt", "LtE": "GtE", "Gt": "Lt", "GtE": "LtE"}


@dataclass(frozen=True, slots=True)
class Within:
    """The column's value lies between two bounds, these included, or is NaN. Text has equal bounds."""

    column: str
    low: Bound
    high: Bound


@dataclass(frozen=True, slots=True)
class Both:
    """All of these hold."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of these holds; without any, nothing is selected."""

    parts: tuple[Condition, ...]


Condition: TypeAlias = Within | Both | Either
#: No entry is selected.
NEVER = Either(())


def both(parts: Iterable[Condition | None]) -> Condition | None:
    """That all hold of which anything is known."""
    known = [part for part in parts if part is not None]
    if NEVER in known:
        return NEVER
    return Both(tuple(known)) if len(known) > 1 else next(iter(known), None)


def either(parts: Iterable[Condition | None]) -> Condition | None:
    """That one of them holds; None (nothing is demanded) as soon as one is not known."""
    found = [part for part in parts if part != NEVER]
    known = [part for part in found if part is not None]
    if len(known) < len(found):
        return None
    return known[0] if len(known) == 1 else Either(tuple(known))


def compare(name: str, column: Column, constant: Any, through: Sequence[str] = ()) -> Condition | None:
    """What a comparison of a column with a constant demands.

    Args:
        name: of the operator, as in Python's syntax trees: ``Eq``, ``Lt``, ...
        through: NumPy's names of floating-point types that either side was converted to.
    """
    if column.kind == "string":
        return Within(column.name, constant, constant) if name == "Eq" and isinstance(constant, str) else None
    if column.kind != "flat" or not isinstance(constant, bool | int | float) or not abs(constant) < _INFINITY:
        return None
    dtypes = [np.dtype(column.dtype), *map(np.dtype, through)]
    if any(dtype.kind not in "biuf" for dtype in dtypes):
        return None
    low, high = _around(constant, dtypes)
    step = int(low == high)  # to the next integer; nothing where there is a margin
    below = Within(column.name, -_INFINITY, high - step if name != "LtE" else high)
    above = Within(column.name, low + step if name != "GtE" else low, _INFINITY)
    if name == "NotEq":
        return Either((below, above)) if step else None
    if name == "Eq":
        return Within(column.name, low, high)
    return below if name in ("Lt", "LtE") else above


def negated(name: str) -> str:
    """The comparison that is true where this one is false, NaN aside."""
    return _NEGATED[name]


def turned(name: str) -> str:
    """The comparison with its sides exchanged."""
    return _TURNED[name]


def _around(constant: float, dtypes: Sequence[np.dtype[Any]]) -> tuple[float, float]:
    """The constant, or where it may have gone when it was rounded to one of the types: to infinity, where too large."""
    floats = [np.finfo(dtype) for dtype in dtypes if dtype.kind == "f"]
    if not floats and isinstance(constant, int) and abs(constant) < _EXACT:
        return int(constant), int(constant)
    floats.append(np.finfo(np.float64))
    value = float(constant)
    margin = max(_MARGIN * (abs(value) * float(f.eps) + float(f.smallest_subnormal)) for f in floats)
    low, high = value - margin, value + margin
    largest = min(float(f.max) * (1 - _MARGIN * float(f.eps)) for f in floats)
    return (-_INFINITY if low <= -largest else low), (_INFINITY if high >= largest else high)


def demand(expression: Expression, schema: Schema) -> Condition | None:
    """What a selection in the language of expressions demands; None if nothing is known."""
    return _of(expression.tree, {column.name: column for column in schema.columns}, wanted=True)


def _of(node: Any, columns: Mapping[str, Column], *, wanted: bool) -> Condition | None:
    """What it demands that a truth value is as wanted."""
    if isinstance(node, fn.Const):
        return NEVER if isinstance(node.value, bool) and node.value is not wanted else None
    if isinstance(node, fn.Column):
        column = columns[node.name]
        return compare("Eq", column, wanted) if column.dtype == "bool" and not node.fields else None
    if isinstance(node, fn.Unary):
        return _of(node.operand, columns, wanted=not wanted) if node.operator == "Invert" else None
    return _of_chain(node, columns, wanted=wanted) if isinstance(node, fn.Chain) else None


def _of_chain(node: fn.Chain, columns: Mapping[str, Column], *, wanted: bool) -> Condition | None:
    left: Any = node.first  # as long as nothing was done with it
    found = _of(left, columns, wanted=wanted)
    for name, operand in node.rest:
        if name in ("BitAnd", "BitOr"):
            join = both if (name == "BitAnd") is wanted else either
            found = join((found, _of(operand, columns, wanted=wanted)))
        elif name in fn.COMPARISONS and left is not None:
            found = _of_comparison(name if wanted else negated(name), left, operand, columns)
        else:
            found = None
        left = None
    return found


def _of_comparison(name: str, left: Any, right: Any, columns: Mapping[str, Column]) -> Condition | None:
    if isinstance(left, fn.Const):
        left, right, name = right, left, turned(name)
    if not (isinstance(left, fn.Column) and isinstance(right, fn.Const)) or left.fields:
        return None
    return compare(name, columns[left.name], right.value)
