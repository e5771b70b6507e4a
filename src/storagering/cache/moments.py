"""Means and sums of squares, added up in an order that is the same on all machines.

Numbers are taken in blocks, a block as rows of 256 numbers, which are added column by column; the 256 sums are added as
rows of 16, and those one after the other. So the bits do not depend on how many numbers a processor adds at once.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np

from storagering.cache.sketch_kernels import LANES, add_up
from storagering.types import Array

#: Numbers that are taken at once: they are read twice, and stay in the processor's cache.
_BLOCK = 1 << 17
_FOLDED = 16

Moments = tuple[int, float, float]
"""How many numbers, their mean, and the sum of their squared distances from it."""


def find_moments(numbers: Array) -> tuple[float, float]:
    """The mean of finite numbers, of which there are some, and the sum of their squared distances from it.

    They are not finite if the numbers are near the end of the range of float64.
    """
    found: Moments = (0, 0.0, 0.0)
    as_it_is = numbers.dtype in (np.float32, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, len(numbers), _BLOCK):
            block = np.ascontiguousarray(numbers[start : start + _BLOCK], None if as_it_is else np.float64)
            mean = _sum(block) / len(block)
            found = pool(found, (len(block), mean, _sum(block, mean)))
    return found[1], found[2]


def pool(a: Moments, b: Moments) -> Moments:
    """Those of two sets of numbers together, of which the second one is not empty."""
    (n, mean, squares), (m, other, others) = a, b  # Chan, Golub & LeVeque 1983
    delta = other - mean
    return n + m, mean + delta * m / (n + m), squares + others + delta * delta * n * m / (n + m)


def _sum(numbers: Array, mean: float | None = None) -> float:
    lanes = np.zeros(LANES)
    add_up(numbers, lanes, mean)
    return reduce(add, np.add.reduce(lanes.reshape(-1, _FOLDED), axis=0).tolist(), 0.0)
