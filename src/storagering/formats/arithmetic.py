"""Functions of the expression language that NumPy does not have, or not for lists."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np

from storagering.errors import SpecError


def deltaphi(phi1: Any, phi2: Any) -> Any:
    """The angle from phi2 to phi1 in [-π, π); an angle already there keeps its bits."""
    angle = phi1 - phi2
    wrapped = angle - 2 * np.pi * np.floor((angle + np.pi) / (2 * np.pi))
    # Rounding can leave the subtraction on the wrong side of either end.
    wrapped = np.maximum(_choose(wrapped)(wrapped >= np.pi, wrapped - 2 * np.pi, wrapped), -np.pi)
    # NumPy's own float, unlike Python's, would make single-precision columns double.
    return wrapped if isinstance(wrapped, ak.Array) else float(wrapped)


def deltar(eta1: Any, phi1: Any, eta2: Any, phi2: Any) -> Any:
    """The distance in eta and phi."""
    return np.hypot(eta1 - eta2, deltaphi(phi1, phi2))


def clip(x: Any, low: Any, high: Any) -> Any:
    """At least ``low``, at most ``high``; NaN stays."""
    return np.minimum(np.maximum(x, low), high)


def cast(dtype: str) -> Any:
    """A function that gives the same numbers in another type."""

    def call(x: Any) -> Any:
        if not isinstance(x, ak.Array):
            raise SpecError(
                f"{dtype}() takes an expression with a column in it: a constant has the type of what it meets"
            )
        return ak.values_astype(x, dtype)

    return call


def class_of(*flags: Any) -> Any:
    """The number of the one argument that is true (or 1), counted from 0.

    Raises:
        SpecError: for some entry none is, or several are.
    """
    members = [flag == 1 for flag in flags]
    number = sum(member * (np.int64(i) + 1) for i, member in enumerate(members))
    several = sum(member * np.int64(1) for member in members)
    if not ak.all(several == 1, axis=None) if isinstance(several, ak.Array) else several != 1:
        what = "no class" if ak.any(several == 0, axis=None) else "several classes"
        raise SpecError(f"an entry belongs to {what}; leave such entries out by the selection")
    return number - np.int64(1)


def largest_of(*values: Any) -> Any:
    """The number of the largest argument, counted from 0; of the first of these if several are alike."""
    best, number = values[0], np.int64(0)
    for i, value in enumerate(values[1:], 1):
        larger = value > best
        best, number = _choose(larger)(larger, value, best), _choose(larger)(larger, np.int64(i), number)
    return number


def bin_of(x: Any, *edges: Any) -> Any:
    """The number of the bin that holds x, counted from 0; what lies outside belongs to the first or last bin.

    Raises:
        SpecError: fewer than two edges, or they do not rise.
    """
    bounds = np.asarray(_constants("bin_of", edges))
    if len(bounds) < 2 or not (np.diff(bounds) > 0).all():
        raise SpecError("bin_of(x, ...) takes the edges of at least one bin, from low to high")

    def find(numbers: Any) -> Any:
        return np.clip(np.digitize(numbers, bounds) - 1, 0, len(bounds) - 2)

    return _on_numbers(find, x)


def pick(index: Any, *values: Any) -> Any:
    """The value of that number, counted from 0.

    Raises:
        SpecError: there is none of that number.
    """
    table = np.asarray(_constants("pick", values))

    def find(numbers: Any) -> Any:
        if numbers.dtype.kind not in "iu" or (numbers.size and not 0 <= numbers.min() <= numbers.max() < len(table)):
            raise SpecError(f"pick(i, ...) takes integers from 0 to {len(table) - 1} for its {len(table)} values")
        return table[numbers]

    return _on_numbers(find, index)


def _constants(name: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    if any(isinstance(value, ak.Array) for value in values):
        raise SpecError(f"{name}() takes a column first and only constants after it")
    return values


def _on_numbers(function: Any, x: Any) -> Any:
    """Apply a function of NumPy arrays to the numbers inside."""
    if not isinstance(x, ak.Array):
        return function(np.asarray(x))

    def action(layout: Any, **_: Any) -> Any:
        return ak.contents.NumpyArray(function(np.asarray(layout.data))) if layout.is_numpy else None

    return ak.transform(action, ak.to_packed(x))  # or the function sees numbers of entries that were dropped


def _choose(value: Any) -> Any:
    return ak.where if isinstance(value, ak.Array) else np.where
