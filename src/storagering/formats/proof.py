"""What the statistics of columns prove of an expression, without a look at their values.

An expression of one flat or jagged column and constants that only grows or falls with the column is compared at the
column's extremes, by the language's own operators and in the column's own type: so what is proved is what evaluating
would find, rounding of constants included. What is beyond that is not decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np

from storagering.errors import SpecError
from storagering.formats import functions as fn
from storagering.formats.expressions import Expression
from storagering.types import Array, Column, ColumnStatistics, Schema

#: Integers beyond this are not exact in statistics, which hold float64.
_EXACT = 2.0**53


@dataclass(frozen=True)
class _Range:
    """Values that lie between two extremes, in the column's type; ``nan`` whether some may be NaN."""

    extremes: Array
    nan: bool


@dataclass(frozen=True)
class _Truth:
    """Truth values: all true, all false, or not known (None)."""

    value: bool | None


_Known = _Range | _Truth | fn.Const | None


def prove(expression: Expression, schema: Schema, statistics: Mapping[str, ColumnStatistics]) -> bool | None:
    """Whether a selection holds for all entries (True), for none (False), or it takes a look at them (None).

    Args:
        schema: of the columns.
        statistics: of each column in these entries; columns may lack.
    """
    columns = {c.name: c for c in schema.columns}
    found = _Proof(columns, statistics).of(expression.tree)
    if isinstance(found, fn.Const) and isinstance(found.value, bool):
        return found.value
    return found.value if isinstance(found, _Truth) else None


class _Proof:
    def __init__(self, columns: Mapping[str, Column], statistics: Mapping[str, ColumnStatistics]) -> None:
        self._columns, self._statistics = columns, statistics

    def of(self, node: Any) -> _Known:
        """What is known of a node's values."""
        if isinstance(node, fn.Const):
            return node
        if isinstance(node, fn.Column):
            return self._column(node)
        if isinstance(node, fn.Unary):
            return _inverted(self.of(node.operand)) if node.operator == "Invert" else None
        if isinstance(node, fn.Call) and len(node.args) == 1:
            return _called(node.name, self.of(node.args[0]))
        if isinstance(node, fn.Chain):
            found = self.of(node.first)
            for name, operand in node.rest:
                found = _applied(name, found, self.of(operand))
            return found
        return None

    def _column(self, node: fn.Column) -> _Known:
        column, found = self._columns[node.name], self._statistics.get(node.name)
        if node.fields or column.kind not in ("flat", "jagged") or found is None:
            return None
        dtype = np.dtype(column.parts[-1].dtype)
        if not found.count:
            return None
        if found.min is None or found.max is None or found.inf_count:
            return None
        if dtype.kind in "iu" and max(abs(found.min), abs(found.max)) >= _EXACT:
            return None
        extremes = np.array([found.min, found.max]).astype(dtype)
        if dtype.kind == "b":
            return _Truth(bool(extremes[0]) if extremes[0] == extremes[1] else None)
        return _Range(extremes, bool(found.nan_count))


def _applied(name: str, left: _Known, right: _Known) -> _Known:
    if name in ("BitAnd", "BitOr"):
        return _joined(left, right, absorbing=name == "BitOr")
    if isinstance(left, _Range) and isinstance(right, fn.Const):
        return _compared(name, left, right.value, turned=False)
    if isinstance(left, fn.Const) and isinstance(right, _Range):
        return _compared(name, right, left.value, turned=True)
    return _Truth(None) if name in fn.COMPARISONS else None


def _joined(left: _Known, right: _Known, *, absorbing: bool) -> _Known:
    """``&`` and ``|`` of truth values: one of the absorbing value decides."""
    if not (isinstance(left, _Truth) and isinstance(right, _Truth)):
        return None
    if absorbing in (left.value, right.value):
        return _Truth(absorbing)
    return _Truth(None if left.value is None or right.value is None else not absorbing)


def _inverted(operand: _Known) -> _Known:
    if not isinstance(operand, _Truth):
        return None
    return _Truth(None if operand.value is None else not operand.value)


def _called(name: str, argument: _Known) -> _Known:
    if name == "abs" and isinstance(argument, _Range):
        if argument.extremes.dtype.kind == "i" and argument.extremes[0] == np.iinfo(argument.extremes.dtype).min:
            return None  # it has no counterpart
        low, high = np.sort(np.abs(argument.extremes))
        through_zero = argument.extremes[0] <= 0 <= argument.extremes[1]
        return _Range(np.array([0 if through_zero else low, high], argument.extremes.dtype), argument.nan)
    if name in ("any", "all") and isinstance(argument, _Truth):  # of an empty list any() is false and all() is true
        return _Truth(argument.value if argument.value is (name == "all") else None)
    return None


def _compared(name: str, values: _Range, constant: Any, *, turned: bool) -> _Known:
    if name not in fn.COMPARISONS:
        return None
    if name in ("Eq", "NotEq"):
        return _equal(values, constant) if name == "Eq" else _inverted(_equal(values, constant))
    low, high = _evaluate(name, values.extremes, constant, turned=turned)
    if low != high or (low and values.nan):  # a comparison with NaN is false
        return _Truth(None)
    return _Truth(bool(low))


def _equal(values: _Range, constant: Any) -> _Truth:
    below = _evaluate("Lt", values.extremes, constant, turned=False)
    above = _evaluate("Gt", values.extremes, constant, turned=False)
    if below[1] or above[0]:
        return _Truth(False)
    same = _evaluate("Eq", values.extremes, constant, turned=False)
    return _Truth(True if same.all() and not values.nan else None)


def _evaluate(name: str, extremes: Array, constant: Any, *, turned: bool) -> Array:
    array = ak.Array(extremes)
    pair = (constant, array) if turned else (array, constant)
    try:
        return np.asarray(fn.apply_operator(name, *pair))
    except SpecError:  # text compared with a number, which evaluating it will tell
        return np.array([False, True])
