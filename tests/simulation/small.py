"""Small traces, drawn by Hypothesis, and what is true of them by brute force."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache

import numpy as np
from hypothesis import strategies as st

from storagering.simulation.trace import Trace
from storagering.types import Array


@st.composite
def traces(draw: st.DrawFn, *, most: int = 60, items: int = 8, largest: int = 6, sites: int = 1) -> Trace:
    """Traces of some accesses to a few items; of one size if ``largest`` is 1."""
    chosen = draw(st.lists(st.integers(0, items - 1), max_size=most))
    sizes = draw(st.lists(st.integers(1, largest), min_size=items, max_size=items))
    groups = draw(st.lists(st.integers(0, 2), min_size=items, max_size=items))
    at = draw(st.lists(st.integers(0, sites - 1), min_size=len(chosen), max_size=len(chosen)))
    return Trace(np.arange(len(chosen)), np.array(chosen), np.array(sizes), np.array(groups), np.array(at))


def best_hits(items: tuple[int, ...], sizes: tuple[int, ...], capacity: int) -> int:
    """The most hits of any cache that may leave out what it reads: all that it could hold is tried."""

    @cache
    def best(at: int, held: frozenset[int]) -> int:
        if at == len(items):
            return 0
        item = items[at]
        there = held | {item}
        # After the access any part of what it held and read may stay, if it fits.
        stay: list[frozenset[int]] = [frozenset()]
        for one in there:
            stay += [kept | {one} for kept in stay]
        fitting = [kept for kept in stay if sum(sizes[one] for one in kept) <= capacity]
        return (item in held) + max(best(at + 1, kept) for kept in fitting)

    return best(0, frozenset())


def published_arc(items: list[int], capacity: int) -> list[bool]:
    """Figure 4 of Megiddo and Modha (FAST 2003), line by line, for items of size 1."""
    t1, t2, b1, b2 = (OrderedDict[int, None]() for _ in range(4))
    goal, hits = 0.0, []

    def replace(in_b2: bool) -> None:
        if t1 and ((in_b2 and len(t1) == goal) or len(t1) > goal):
            b1[t1.popitem(last=False)[0]] = None
        else:
            b2[t2.popitem(last=False)[0]] = None

    for item in items:
        hits.append(item in t1 or item in t2)
        if item in t1 or item in t2:
            t1.pop(item, None)
            t2.pop(item, None)
            t2[item] = None
        elif item in b1:
            goal = min(capacity, goal + max(1.0, len(b2) / len(b1)))
            replace(in_b2=False)
            del b1[item]
            t2[item] = None
        elif item in b2:
            goal = max(0.0, goal - max(1.0, len(b1) / len(b2)))
            replace(in_b2=True)
            del b2[item]
            t2[item] = None
        else:
            if len(t1) + len(b1) == capacity:
                if len(t1) < capacity:
                    b1.popitem(last=False)
                    replace(in_b2=False)
                else:
                    t1.popitem(last=False)
            elif len(t1) + len(t2) + len(b1) + len(b2) >= capacity:
                if len(t1) + len(t2) + len(b1) + len(b2) == 2 * capacity:
                    b2.popitem(last=False)
                replace(in_b2=False)
            t1[item] = None
    return hits


def held_after(trace: Trace, hits: Array, evicted: Array, capacity: int) -> set[int]:
    """What a cache that lets in all that fits must hold at the end, if these are its hits and what went."""
    held: set[int] = set()
    gone = list(evicted)
    for item, hit in zip(trace.items.tolist(), hits.tolist(), strict=True):
        assert hit == (item in held)
        if not hit and trace.sizes[item] <= capacity:
            while sum(trace.sizes[one] for one in held) + trace.sizes[item] > capacity:
                held.remove(gone.pop(0))
            held.add(item)
    assert not gone
    return held
