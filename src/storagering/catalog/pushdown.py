"""What a query demands of the datasets that it reads, found in DuckDB's own plan of it.

The query is planned once more, over tables that stand for the datasets: a function of DuckDB's that takes no filters,
so that they stay right above it, as bound expressions whose columns are numbers. (The names in plans are not to be
trusted: some are of columns, some are aliases.) What is not understood demands nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np

from storagering.catalog.streams import empty_table
from storagering.formats.conditions import NEVER, Condition, both, compare, either, negated, turned
from storagering.types import Column

_DEEPEST = 100
#: Rows that a stand-in claims to have, and its dataset's number: that it is one, and of which dataset.
_ROWS = 1_000_000_000
_COMPARISONS = {
    "COMPARE_EQUAL": "Eq",
    "COMPARE_NOTEQUAL": "NotEq",
    "COMPARE_LESSTHAN": "Lt",
    "COMPARE_LESSTHANOREQUALTO": "LtE",
    "COMPARE_GREATERTHAN": "Gt",
    "COMPARE_GREATERTHANOREQUALTO": "GtE",
}
_FLOATS = {"FLOAT": "float32", "DOUBLE": "float64"}
_INTEGERS = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
}
#: Integers come through these unchanged, or not at all.
_WHOLE = {*_INTEGERS, "DECIMAL"}
_CONFIG: dict[str, Any] = {
    "threads": 1,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "enable_external_access": False,
    "disabled_optimizers": "in_clause",  # or lists of constants become joins
}


def find_demands(
    connection: duckdb.DuckDBPyConnection, query: str, datasets: Mapping[str, Sequence[Column]]
) -> dict[str, Condition]:
    """What a query demands of every entry of a dataset that it uses; only of those datasets of which anything is known.

    Args:
        connection: that the query will run on; its tables and views are what else the query can name.
        query: one SELECT.
        datasets: their columns, by name.
    """
    try:
        with closing(duckdb.connect(":memory:", config=_CONFIG)) as planner:
            planner.execute("SET lock_configuration = true")
            _copy_tables(connection, planner, query)
            for number, (name, columns) in enumerate(datasets.items()):
                _stand_in(planner, name, columns, number)
            found = _plan(planner, query, list(datasets.values()))
            return {name: found[number] for number, name in enumerate(datasets) if number in found}
    except (duckdb.Error, LookupError, ValueError, TypeError, RecursionError):
        return {}  # of a kind that has no plan, or a plan that is not like those of the releases known


def _copy_tables(connection: duckdb.DuckDBPyConnection, planner: duckdb.DuckDBPyConnection, query: str) -> None:
    """The tables and views of a connection that a query may name, empty."""
    views = connection.execute("SELECT view_name, sql FROM duckdb_views() WHERE NOT internal").fetchall()
    tables = connection.execute("SELECT table_name, sql FROM duckdb_tables() WHERE NOT internal").fetchall()
    whole = any(name.lower() in query.lower() for name, _ in views)  # which may be of other views
    for name, statement in (*tables, *(views if whole else ())):
        if whole or name.lower() in query.lower():
            planner.execute(statement)


def _stand_in(planner: duckdb.DuckDBPyConnection, name: str, columns: Sequence[Column], number: int) -> None:
    """A view with the names and types of a dataset."""
    planner.register("columns_of_it", empty_table(columns))
    described = planner.execute("SELECT column_name, column_type FROM (DESCRIBE columns_of_it)").fetchall()
    planner.unregister("columns_of_it")
    names = ", ".join(_quoted(column) for column, _ in described)
    values = ", ".join(f"NULL::{kind}" for _, kind in described)
    planner.execute(
        f"CREATE TEMP VIEW {_quoted(name)}({names}) AS FROM repeat_row({values}, num_rows = {_ROWS + number})"
    )


def _plan(planner: duckdb.DuckDBPyConnection, query: str, datasets: Sequence[Sequence[Column]]) -> dict[int, Condition]:
    """What a query demands, by the number of the dataset."""
    (row,) = planner.execute("SELECT json_serialize_plan(?, optimize := true)", [query]).fetchall()
    scans: dict[int, list[Condition | None]] = {}
    for plan in json.loads(row[0])["plans"]:
        for found in _scans(plan):
            number = _number_of(found.get)
            if number is not None:
                demands = both([found.read(datasets[number], level, node) for level, node in found.filters])
                scans.setdefault(number, []).append(demands)
    joined = {number: either(conditions) for number, conditions in scans.items()}
    return {number: condition for number, condition in joined.items() if condition is not None}


@dataclass(frozen=True)
class _Scan:
    """Something that a plan reads, and the filters right above it.

    Attributes:
        columns: of the scan, that the node which is looked at gives; None above other nodes than filters.
        filters: each with the columns of the scan that come to it.
    """

    get: Mapping[str, Any]
    columns: Sequence[int] | None
    filters: tuple[tuple[Sequence[int], Any], ...] = ()

    def above(self, node: Mapping[str, Any]) -> _Scan:
        """The same one node up."""
        columns = self.columns
        if node["type"] != "LOGICAL_FILTER" or columns is None:
            return replace(self, columns=None)
        filters = (*self.filters, *((columns, expression) for expression in node["expressions"]))
        chosen = node["projection_map"]
        return _Scan(self.get, [columns[n] for n in chosen] if chosen else columns, filters)

    def read(self, columns: Sequence[Column], level: Sequence[int], node: Any) -> Condition | None:
        """What a filter demands."""
        types = [self.get["returned_types"][n]["id"] for n in level]
        return _Reader([columns[n] for n in level], types).read(node, wanted=True)


def _scans(node: Mapping[str, Any]) -> Iterator[_Scan]:
    """All scans of a plan."""
    if node["type"] == "LOGICAL_GET":
        yield _Scan(node, range(len(node["names"])))
    for child in node.get("children", []):
        yield from (scan.above(node) for scan in _scans(child))


def _number_of(get: Mapping[str, Any]) -> int | None:
    """The number of the dataset that it stands for; None for tables.

    Raises:
        LookupError: its columns are not those of the function, in order.
    """
    if get["qname"]["path"][-1] != "repeat_row":
        return None
    columns = [column["index"] for column in get["column_indexes"]]
    if columns != list(range(len(get["names"]))) or get["projection_ids"] or any(get["table_filters"].values()):
        raise LookupError
    (rows,) = (option["value"]["value"] for option in get["named_parameters"])
    return int(rows) - _ROWS


class _Reader:
    """Reads DuckDB's bound expressions over columns of one dataset, and their types there."""

    def __init__(self, columns: Sequence[Column], types: Sequence[str]) -> None:
        self._columns, self._types = columns, types

    def read(self, node: Any, *, wanted: bool, depth: int = 0) -> Condition | None:
        """What it demands that a truth value is as wanted. (One that is NULL is never as wanted.)"""
        kind, children = node["type"], node.get("children", [])
        if depth > _DEEPEST:
            return None
        if kind in ("CONJUNCTION_AND", "CONJUNCTION_OR"):
            join = both if (kind == "CONJUNCTION_AND") is wanted else either
            return join([self.read(child, wanted=wanted, depth=depth + 1) for child in children])
        if kind == "OPERATOR_NOT":
            return self.read(children[0], wanted=not wanted, depth=depth + 1)
        if kind in _COMPARISONS and len(children) == 2:
            return self._comparison(_COMPARISONS[kind], *children, wanted=wanted)
        if kind == "COMPARE_BETWEEN":
            value, low, high = children  # each bound may be included or not: whichever demands less
            join, names = (both, ("GtE", "LtE")) if wanted else (either, ("Gt", "Lt"))
            return join([self._comparison(n, value, x, wanted=wanted) for n, x in zip(names, (low, high), strict=True)])
        if kind in ("COMPARE_IN", "COMPARE_NOT_IN"):
            inside = (kind == "COMPARE_IN") is wanted
            value, *rest = children
            return (either if inside else both)([self._comparison("Eq", value, x, wanted=inside) for x in rest])
        return self._truth(node, wanted=wanted)

    def _truth(self, node: Any, *, wanted: bool) -> Condition | None:
        if node["type"] == "BOUND_REF":
            column = self._column(node)
            return compare("Eq", column, wanted) if column.dtype == "bool" else None
        value = _constant(node)
        return NEVER if isinstance(value, bool) and value is not wanted else None

    def _column(self, node: Any) -> Column:
        if self._types[node["index"]] != node["return_type"]["id"]:
            raise LookupError  # the columns are not in the order that was thought
        column: Column = self._columns[node["index"]]
        return column

    def _comparison(self, name: str, left: Any, right: Any, *, wanted: bool) -> Condition | None:
        name = name if wanted else negated(name)
        if left["type"] == "VALUE_CONSTANT":
            left, right, name = right, left, turned(name)
        types = []
        while left["type"] == "OPERATOR_CAST":
            types.append(left["return_type"]["id"])
            (left,) = left["children"]
        constant = _constant(right)
        if left["type"] != "BOUND_REF" or constant is None:
            return None
        column = self._column(left)
        if any(kind not in _FLOATS for kind in types) and not _stays_whole(column, types):
            return None
        return compare(name, column, constant, [_FLOATS[kind] for kind in types if kind in _FLOATS])


def _stays_whole(column: Column, types: Sequence[str]) -> bool:
    """Whether conversions change no value that comes through."""
    return column.kind == "flat" and np.dtype(column.dtype).kind in "biu" and all(kind in _WHOLE for kind in types)


def _constant(node: Any) -> bool | int | float | str | None:
    """The value of a constant; None if it is NULL, of another type, or no constant."""
    if node["type"] != "VALUE_CONSTANT" or node["value"]["is_null"]:
        return None
    kind, value = node["value"]["type"], node["value"]["value"]
    if isinstance(value, dict):
        value = (value["upper"] << 64) + value["lower"]
    if kind["id"] == "DECIMAL":
        scale = kind["type_info"]["scale"]
        return int(value) if not scale else float(value / 10**scale)
    if kind["id"] in _INTEGERS:
        return int(value)
    readers: dict[str, type[bool] | type[float] | type[str]] = {"BOOLEAN": bool, "VARCHAR": str}
    reader = readers.get(kind["id"], float if kind["id"] in _FLOATS else None)
    return None if reader is None else reader(value)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
