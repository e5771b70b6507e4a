"""Counting codes of 16 or 19 bits."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from storagering.cache.sketch_kernels import GROUP, collect, tally
from storagering.types import Array

#: Numbers that are made words at once.
_BLOCK = 1 << 18

_own = threading.local()

Words = Callable[[Array], Array]
"""Makes words (uint32) of numbers; their leading bits are the codes."""


def tally_codes(numbers: Array, words: Words, bits: int) -> tuple[Array, Array]:
    """The leading bits of ``words(numbers)`` that there are, rising, and how often each (both int64).

    Args:
        bits: of a code; words have 32.
    """
    if not hasattr(_own, "tables"):  # each thread has its own, for it may count while another does
        _own.tables = {}
    counts, seen = _own.tables.pop(bits, None) or (np.zeros(4 << bits, np.uint32), np.zeros((1 << bits) // GROUP, bool))
    for at in range(0, len(numbers), _BLOCK):
        tally(words(numbers[at : at + _BLOCK]), 32 - bits, counts, seen)
    found = collect(counts, seen)
    _own.tables[bits] = counts, seen  # only now: all counts are 0 again
    return found
