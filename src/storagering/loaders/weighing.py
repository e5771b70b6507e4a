"""Finding the tables of weights: histograms from one pass over the columns that they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import numpy as np

from storagering.errors import SchemaError, SpecError, nearest_names
from storagering.loaders.scan import Columns, scan
from storagering.loaders.supply import ChunkSupply
from storagering.loaders.taking import Taking
from storagering.loaders.weights import Weigher, Weights, find_bins
from storagering.types import Array, Chunk, Schema

Histograms = dict[int, Array]


def find_weigher(
    weights: Weights, names_of_classes: tuple[str, ...], supply: ChunkSupply, taking: Taking, threads: int
) -> Weigher:
    """What gives the entries that take part their weights; the same for any number of threads and ranks.

    Raises:
        SchemaError: a column is missing or not one number for each entry.
        SpecError: a class is unknown, or has nothing to be weighted.
    """
    weigher = _without_table(weights, supply.schema)
    if weights.bins is None and not isinstance(weights.classes, str):
        factors = {_number_of(name, names_of_classes): f for name, f in (weights.classes or {}).items()}
        table = np.array([[factors[number]] for number in sorted(factors)]).reshape(-1, 1)
        return replace(weigher, classes=np.array(sorted(factors), np.int64), table=table)
    found = _fill(weigher, supply, taking, threads)
    numbers = sorted(found)
    for number in numbers:
        if not (found[number] > 0).any():
            raise SpecError(f"weights: class {_name_of(number, names_of_classes)} has no entry in any bin")
    table = _shape(weights, found, names_of_classes)
    for row, number in zip(table, numbers, strict=True):
        row *= _factor(weights, found, number, names_of_classes)
    return replace(weigher, classes=np.array(numbers, np.int64), table=table, other=0.0)


def _without_table(weights: Weights, schema: Schema) -> Weigher:
    has_label = weights.label in schema.names
    if weights.needs_classes and not has_label:
        raise SchemaError(
            f"weights: no column {weights.label!r} of classes{nearest_names(weights.label, schema.names)}; convert "
            "with --label CLASS=SOURCE, or name the column with Weights(label=...)"
        )
    label = weights.label if has_label and (weights.needs_classes or weights.bins) else None
    edges = {name: np.asarray(e, np.float64) for name, e in (weights.bins or {}).items()}
    weigher = Weigher(weights.column, label, edges, np.zeros(0, np.int64), np.ones((0, 1)))
    for column in schema.select(weigher.names).columns:
        kinds = "iub" if column.name == label else "iubf"
        if column.kind != "flat" or np.dtype(column.parts[-1].dtype).kind not in kinds:
            wanted = "whole number" if column.name == label else "number"
            raise SchemaError(
                f"weights: column {column.name!r} is {column.kind} {column.dtype}, not one {wanted} an entry"
            )
    return weigher


def _fill(weigher: Weigher, supply: ChunkSupply, taking: Taking, threads: int) -> Histograms:
    """The sum of entries' own weights in each bin, class by class; of no class if there is no entry."""
    bins = prod(len(edges) - 1 for edges in weigher.edges.values())

    def visit(chunk: Chunk, columns: Columns) -> Histograms:
        rows = taking.rows(chunk)
        own = {name: np.asarray(columns[name]) for name in weigher.names}
        own = own if rows is None else {name: array[rows] for name, array in own.items()}
        count = chunk.num_entries if rows is None else len(rows)
        places = find_bins(weigher.edges, own, count)
        entry_weights = np.ones(count) if weigher.column is None else own[weigher.column].astype(np.float64)
        labels = np.zeros(count, np.int64) if weigher.label is None else own[weigher.label]
        found = {}
        for label in np.unique(labels).tolist():
            which = (places >= 0) & (labels == label)
            found[int(label)] = np.bincount(places[which], entry_weights[which], minlength=bins)
        return found

    units = range(len(supply.entries))
    counted = zip(units, taking.count(supply), strict=True)
    chunks = [chunk for unit, entries in counted if entries for chunk in supply.chunks(unit)]
    total: Histograms = {}
    for part in scan(supply, weigher.names, chunks, threads, visit):
        for label, histogram in part.items():
            total[label] = total.get(label, 0) + histogram
    return total


def _shape(weights: Weights, found: Histograms, names: tuple[str, ...]) -> Array:
    """(classes, bins) factors that give each class the distribution wanted, and leave its sum what it is."""
    numbers = sorted(found)
    if weights.bins is None:
        return np.ones((len(numbers), 1))
    wanted: Array = np.ones(1)
    if weights.target != "flat":
        reference = _number_of(weights.target, names)
        if reference not in found:
            raise SpecError(f"weights: no entry of class {weights.target!r}, which is the target")
        wanted = np.maximum(found[reference], 0)
    rows = []
    for number in numbers:
        own = np.maximum(found[number], 0)
        factors = np.divide(wanted, own, out=np.zeros(len(own)), where=own > 0)
        if not (factors > 0).any():
            raise SpecError(f"weights: class {_name_of(number, names)} shares no bin with the target")
        rows.append(_clip(factors * (own.sum() / (factors * own).sum()), own, weights.clip))
    return np.array(rows).reshape(len(numbers), -1)


def _clip(factors: Array, sums: Array, most: float) -> Array:
    """Factors of at most ``most`` that leave the sum what it is: those that are below it grow together."""
    while (over := factors > most).any():
        cut = over | (factors == most)
        rest = (factors * sums)[~cut].sum()
        left = sums.sum() - most * sums[cut].sum()
        factors = np.where(cut, most, factors * (left / rest if rest > 0 else 0.0))
    return factors


def _factor(weights: Weights, found: Histograms, number: int, names: tuple[str, ...]) -> float:
    if weights.classes == "balanced":
        return float(sum(h.sum() for h in found.values()) / len(found) / found[number].sum())
    given = weights.classes if isinstance(weights.classes, Mapping) else {}
    factors = {_number_of(name, names): factor for name, factor in given.items()}
    return factors.get(number, 1.0)


def _number_of(name: str | int, names: tuple[str, ...]) -> int:
    if isinstance(name, int):
        return name
    if name not in names:
        raise SpecError(f"weights: no class {name!r}{nearest_names(name, names)}")
    return names.index(name)


def _name_of(number: int, names: tuple[str, ...]) -> str:
    return repr(names[number]) if 0 <= number < len(names) else str(number)
