"""Which chunks can hold an entry that meets a condition: by the statistics of chunks and by bitmap indexes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storagering.cache.bitmaps import BitmapIndex, open_index
from storagering.cache.dataset import Dataset
from storagering.cache.statistics import read_statistics, read_statistics_table
from storagering.errors import MissingExtraError, StorageringError
from storagering.formats.conditions import Both, Bound, Condition, Within, demand
from storagering.formats.expressions import Expression, evaluate_mask, parse_expression
from storagering.formats.forms import empty_array
from storagering.formats.proof import prove
from storagering.types import Array, Manifest, Schema

#: Integers from here on are rounded in statistics, which hold float64.
_EXACT = 2.0**53


def parse_selection(where: str, schema: Schema) -> Expression:
    """A selection, if it is one of these columns, whatever is in them.

    Raises:
        SpecError: it is not.
    """
    expression = parse_expression(where, schema.names)
    needed = schema.select(expression.names or schema.names[:1])
    evaluate_mask(expression, {column.name: empty_array(column) for column in needed.columns})
    return expression


def judge_chunks(dataset: Dataset, expression: Expression) -> list[bool | None]:
    """Of each chunk, whether a selection holds for all of its entries, or for none; None if that takes a look at them.

    Raises:
        ChecksumError: the table of statistics is damaged.
    """
    manifest = dataset.manifest
    tables = read_statistics_table(dataset.path, manifest, expression.names)
    found = [prove(expression, manifest.schema, table) for table in tables]
    condition = demand(expression, manifest.schema)
    if condition is None or None not in found:
        return found
    possible = chunks_that_may_match(dataset, condition)
    return [verdict if may else False for verdict, may in zip(found, possible, strict=True)]


def chunks_that_may_match(dataset: Dataset, condition: Condition) -> Array:
    """Of each chunk (bool), whether it may hold an entry that meets the condition.

    Raises:
        ChecksumError: the table of statistics is damaged.
    """
    names = tuple(dict.fromkeys(part.column for part in _leaves(condition)))
    search = _Search(dataset, _read_zones(dataset, names), _open_indexes(dataset, names))
    return search.of(condition).chunks


def _leaves(condition: Condition) -> list[Within]:
    if isinstance(condition, Within):
        return [condition]
    return [leaf for part in condition.parts for leaf in _leaves(part)]


@dataclass(frozen=True)
class _Zones:
    """One column, chunk by chunk: bounds (float64) of its values, infinite where they tell nothing."""

    low: Array
    high: Array

    def meet(self, low: Bound, high: Bound) -> Array:
        """Of each chunk, whether it may hold a value between two bounds."""
        if isinstance(low, str) or isinstance(high, str):
            return np.ones(len(self.low), np.bool_)
        down, up = np.nextafter(float(low), -np.inf), np.nextafter(float(high), np.inf)  # integers may be rounded
        found: Array = (self.high >= down) & (self.low <= up)
        return found


@dataclass(frozen=True)
class _Candidates:
    """What may meet a condition: chunks, and the very entries where an index tells them."""

    chunks: Array
    entries: Any = None


class _Search:
    def __init__(self, dataset: Dataset, zones: dict[str, _Zones], indexes: dict[str, BitmapIndex]) -> None:
        self._dataset, self._zones, self._indexes = dataset, zones, indexes
        self._everything = np.ones(len(dataset.manifest.chunks), np.bool_)

    def of(self, condition: Condition) -> _Candidates:
        if isinstance(condition, Within):
            zones = self._zones.get(condition.column)
            chunks = self._everything if zones is None else zones.meet(condition.low, condition.high)
            return self._narrow(chunks, self._look_up(condition))
        found = [self.of(part) for part in condition.parts]
        entries = [one.entries for one in found if one.entries is not None]
        if isinstance(condition, Both):
            chunks = reduce(np.logical_and, (one.chunks for one in found), self._everything)
            return self._narrow(chunks, reduce(lambda a, b: a & b, entries) if entries else None)
        chunks = reduce(np.logical_or, (one.chunks for one in found), ~self._everything)
        known = bool(entries) and len(entries) == len(found)
        return _Candidates(chunks, reduce(lambda a, b: a | b, entries) if known else None)

    def _look_up(self, condition: Within) -> Any:
        index = self._indexes.get(condition.column)
        if index is None:
            return None
        try:
            return index.find(condition.low, condition.high)
        except StorageringError as error:
            _tell_damage(self._dataset, condition.column, error)
            return None

    def _narrow(self, chunks: Array, entries: Any) -> _Candidates:
        """Those of the chunks that hold one of the entries."""
        if entries is None:
            return _Candidates(chunks)
        holding = chunks.copy()
        for number in np.flatnonzero(chunks):
            chunk = self._dataset.manifest.chunks[number]
            holding[number] = entries.range_cardinality(chunk.start, chunk.stop) > 0
        return _Candidates(holding, entries)


def _read_zones(dataset: Dataset, names: tuple[str, ...]) -> dict[str, _Zones]:
    manifest = dataset.manifest
    plain = {c.name for c in manifest.schema.columns if c.kind == "flat"}
    wanted = [name for name in names if name in plain]
    table = read_statistics(dataset.path, manifest, wanted) if wanted else None
    return {} if table is None else {name: _zones_of(table, name, manifest) for name in wanted}


def _zones_of(table: pa.Table, name: str, manifest: Manifest) -> _Zones:
    """Bounds of the chunks in which all values are known to be finite, and there are any."""
    own = table.filter(pc.equal(table["column"], name))
    numbers = {key: own[key].to_numpy() for key in ("chunk", "count", "nan_count", "inf_count", "min", "max")}
    low, high = np.full(len(manifest.chunks), -np.inf), np.full(len(manifest.chunks), np.inf)
    sizes = np.array([chunk.num_entries for chunk in manifest.chunks])[numbers["chunk"]]
    known = (numbers["count"] == sizes) & (numbers["nan_count"] == 0) & (numbers["inf_count"] == 0)
    known &= ~(np.isnan(numbers["min"]) | np.isnan(numbers["max"]))
    low[numbers["chunk"][known]], high[numbers["chunk"][known]] = numbers["min"][known], numbers["max"][known]
    return _Zones(
        np.where(np.abs(low) < _EXACT, low, np.nextafter(low, -np.inf)),
        np.where(np.abs(high) < _EXACT, high, np.nextafter(high, np.inf)),
    )


def _open_indexes(dataset: Dataset, names: tuple[str, ...]) -> dict[str, BitmapIndex]:
    found = {}
    for column in dataset.schema.select(names).columns:
        try:
            index = open_index(dataset.cache, dataset.manifest, column)
        except StorageringError as error:
            _tell_damage(dataset, column.name, error)
            continue
        if index is not None:
            found[column.name] = index
    return found


def _tell_damage(dataset: Dataset, column: str, error: StorageringError) -> None:
    remedy = f"'storagering catalog index {dataset.name} {column}' makes it anew"
    if isinstance(error, MissingExtraError):
        remedy = "it is of no use until then"
    warnings.warn(f"the index of column {column!r} is not used: {error}; {remedy}", stacklevel=2)
