"""Compiled steps of the bound on what any cache can hit."""

from __future__ import annotations

import numpy as np

from storagering.compiling import compiled
from storagering.types import Array


@compiled
def dual_value(
    capacity: float, prices: Array, starts: Array, stops: Array, sizes: Array, values: Array, load: Array
) -> float:
    """What the best choice of intervals is worth when space is paid for: never less than without prices.

    Args:
        prices: of one byte in each gap between two accesses (g), at least 0.
        starts, stops: gaps of each interval (k), from the first on and before the last.
        sizes, values: bytes that an interval takes, and what it is worth (k).
        load: filled, bytes of the intervals that are worth their price, in each gap (g).
    """
    paid = np.zeros(len(prices) + 1)
    for gap in range(len(prices)):
        paid[gap + 1] = paid[gap] + prices[gap]
    total = capacity * paid[-1]
    changes = np.zeros(len(prices) + 1)
    for number in range(len(starts)):
        gain = values[number] - sizes[number] * (paid[stops[number]] - paid[starts[number]])
        if gain > 0:
            total += gain
            changes[starts[number]] += sizes[number]
            changes[stops[number]] -= sizes[number]
    running = 0.0
    for gap in range(len(prices)):
        running += changes[gap]
        load[gap] = running
    return float(total)


@compiled
def step_prices(capacity: float, prices: Array, load: Array, excess: float) -> None:
    """Move prices against the load, by Polyak's step for a value that is ``excess`` above the one aimed at."""
    norm = 0.0
    for gap in range(len(prices)):
        slope = capacity - load[gap]
        if prices[gap] > 0 or slope < 0:
            norm += slope * slope
    if norm > 0:
        for gap in range(len(prices)):
            prices[gap] = max(0.0, prices[gap] - excess / norm * (capacity - load[gap]))
