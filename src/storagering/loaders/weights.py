"""Weights of entries: how they are asked for, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import msgspec
import numpy as np

from storagering.compiling import compiled
from storagering.errors import SpecError
from storagering.types import Array, sha256_hex

#: The column of classes that ``--label`` makes.
LABEL = "label"


@dataclass(frozen=True)
class Weights:
    """How entries are weighted: by their own weights, their classes, and where they lie in one or two variables.

    The weight of an entry is the product of all that is given. Sums below are over the entries that take part, each
    with its own weight from ``column``.

    Attributes:
        column: of each entry's own weight; 1 without it.
        classes: {class: factor}, where a class that is not named has 1; or ``"balanced"``: all classes have the same
            sum of weights, and all together what they had before. A class is its name or its number.
        bins: {column: edges} of one or two variables, in which each class gets the distribution ``target`` and keeps
            its sum. Entries outside all bins have the weight 0; the last edge belongs to the last bin.
        target: ``"flat"``: all bins that hold anything have the same sum; or the class whose distribution all get.
        clip: the most that ``bins`` may make of a weight: rare entries should not decide what is learnt. The rest of
            the class makes up for what is cut.
        label: column of the classes' numbers. If the dataset has no column ``label``, all are of one class.
    """

    column: str | None = None
    classes: Mapping[str | int, float] | Literal["balanced"] | None = None
    bins: Mapping[str, Sequence[float]] | None = None
    target: str | int = "flat"
    clip: float = 10.0
    label: str = LABEL

    def __post_init__(self) -> None:
        edges = [np.asarray(e, np.float64) for e in (self.bins or {}).values()]
        checks = {
            "give a column, classes or bins": bool(self.column or self.classes or self.bins),
            f"classes={self.classes!r}: {{class: factor}} or 'balanced'": not isinstance(self.classes, str)
            or self.classes == "balanced",
            "a factor of a class is at least 0": isinstance(self.classes, str)
            or all(factor >= 0 for factor in (self.classes or {}).values()),
            "bins are of one or two variables": len(edges) <= 2,
            "edges of bins rise, and are at least two": all(len(e) > 1 and (np.diff(e) > 0).all() for e in edges),
            f"target={self.target!r} needs bins": self.target == "flat" or bool(self.bins),
            f"clip={self.clip}: at least 1": self.clip >= 1,
        }
        for message, fine in checks.items():
            if not fine:
                raise SpecError(f"weights: {message}")

    @property
    def needs_classes(self) -> bool:
        """Whether there have to be classes."""
        return self.classes is not None or self.target != "flat" or self.label != LABEL

    @property
    def fingerprint(self) -> str:
        """A hash: equal descriptions, and only they, have equal ones."""
        return sha256_hex(msgspec.json.encode(self, order="deterministic"))[:16]


@dataclass(frozen=True)
class Weigher:
    """Gives entries their weights.

    Attributes:
        column: of their own weights, or None.
        label: column of classes, None if all are of class 0.
        edges: of the bins of each variable.
        classes: (C,) numbers of the classes, rising.
        table: (C, bins) the factor of each class in each bin, row by row.
        other: the factor of classes that are not in the table.
    """

    column: str | None
    label: str | None
    edges: Mapping[str, Array]
    classes: Array
    table: Array
    other: float = 1.0

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that it needs."""
        return tuple(dict.fromkeys(name for name in (self.column, self.label, *self.edges) if name is not None))

    def weigh(self, columns: Mapping[str, Array], count: int) -> Array:
        """The weights (float64) of so many entries.

        Args:
            columns: ``names``, each (count,).
        """
        places = find_bins(self.edges, columns, count)
        own = np.ones(count) if self.column is None else columns[self.column].astype(np.float64)
        labels = np.zeros(count, np.int64) if self.label is None else columns[self.label].astype(np.int64)
        multiply(own, places, labels, self.classes, self.table, self.other)
        return own


def find_bins(edges: Mapping[str, Array], columns: Mapping[str, Array], count: int) -> Array:
    """The bin of each entry, row by row; -1 outside all (as NaN is)."""
    places = np.zeros(count, np.int64)
    for name, own in edges.items():
        add_bins(own, columns[name].astype(np.float64), places)
    return places


@compiled
def add_bins(edges: Array, values: Array, places: Array) -> None:
    """Make of the bin in one variable the one in two: ``places * bins + bin``, or -1."""
    bins = len(edges) - 1
    for number in range(len(values)):
        value = values[number]
        if places[number] < 0 or not edges[0] <= value <= edges[bins]:
            places[number] = -1
            continue
        low, high = 0, bins
        while high - low > 1:
            middle = (low + high) // 2
            if edges[middle] <= value:
                low = middle
            else:
                high = middle
        places[number] = places[number] * bins + low


@compiled
def multiply(weights: Array, places: Array, labels: Array, classes: Array, table: Array, other: float) -> None:
    """Multiply weights by the table's numbers for their classes and bins; by 0 outside all bins."""
    for number in range(len(weights)):
        row = np.searchsorted(classes, labels[number])
        if places[number] < 0:
            weights[number] = 0.0
        elif row < len(classes) and classes[row] == labels[number]:
            weights[number] *= table[row, places[number]]
        else:
            weights[number] *= other
