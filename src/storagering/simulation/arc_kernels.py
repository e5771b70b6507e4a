"""Compiled replay of ARC: four lists through all items, in the order of their last use."""

from __future__ import annotations

import numpy as np

from storagering.compiling import compiled
from storagering.types import Array

# T1, T2: what is there, used once or more often since it came; B1, B2: what has left them, by name only.
_NOWHERE, _T1, _T2, _B1, _B2 = -1, 0, 1, 2, 3


@compiled
def _unlink(item: int, size: int, lists: Array, links: Array, held: Array) -> None:
    before, after = links[0, item], links[1, item]
    links[1, before] = after
    links[0, after] = before
    held[lists[item]] -= size
    lists[item] = _NOWHERE


@compiled
def _append(item: int, to: int, size: int, lists: Array, links: Array, held: Array) -> None:
    """As the most recently used of a list; each list is a ring through an end of its own, after all items."""
    end = len(lists) + to
    last = links[0, end]
    links[0, item], links[1, item] = last, end
    links[1, last] = item
    links[0, end] = item
    lists[item] = to
    held[to] += size


@compiled
def _oldest(of: int, lists: Array, links: Array) -> int:
    return int(links[1, len(lists) + of])


@compiled
def _replace(in_b2: bool, goal: float, lists: Array, links: Array, held: Array, sizes: Array) -> int:
    """REPLACE of the paper: what leaves the cache is remembered."""
    from_t1 = held[_T1] > 0 and (held[_T1] > goal or (in_b2 and held[_T1] == goal) or held[_T2] == 0)
    source = _T1 if from_t1 else _T2
    item = _oldest(source, lists, links)
    _unlink(item, sizes[item], lists, links, held)
    _append(item, source + 2, sizes[item], lists, links, held)
    return item


@compiled
def _forget(of: int, lists: Array, links: Array, held: Array, sizes: Array) -> int:
    item = _oldest(of, lists, links)
    _unlink(item, sizes[item], lists, links, held)
    return item


@compiled
def replay_arc(capacity: int, items: Array, sizes: Array, hits: Array, evicted: Array) -> int:
    """Let accesses to ``items`` (n) pass through an empty ARC cache (Megiddo and Modha, FAST 2003, figure 4).

    With items of one size it is ARC as published. With others, lists are as long as their bytes, a step is as large as
    the item, and items leave until there is room; items larger than the cache never come in.

    Args:
        capacity: bytes.
        sizes: of each item (m).
        hits: filled, whether the item was there (n).
        evicted: filled, what went, in order (n).

    Returns:
        How many went.
    """
    count = len(sizes)
    lists = np.full(count, _NOWHERE, np.int64)
    links = np.empty((2, count + 4), np.int64)
    for end in range(count, count + 4):
        links[0, end] = links[1, end] = end
    held = np.zeros(4, np.int64)
    goal, gone = 0.0, 0
    for number in range(len(items)):
        item = items[number]
        size, where = sizes[item], lists[item]
        hits[number] = where in (_T1, _T2)
        if size > capacity:
            continue
        if where == _B1:
            goal = min(float(capacity), goal + size * max(1.0, held[_B2] / held[_B1]))
        elif where == _B2:
            goal = max(0.0, goal - size * max(1.0, held[_B1] / held[_B2]))
        elif where == _NOWHERE:
            while held[_T1] + held[_B1] + size > capacity:
                if held[_B1] > 0:
                    _forget(_B1, lists, links, held, sizes)
                else:
                    evicted[gone] = _forget(_T1, lists, links, held, sizes)
                    gone += 1
            while held.sum() + size > 2 * capacity and held[_B2] > 0:
                _forget(_B2, lists, links, held, sizes)
        if not hits[number]:
            while held[_T1] + held[_T2] + size > capacity:
                evicted[gone] = _replace(where == _B2, goal, lists, links, held, sizes)
                gone += 1
        if where != _NOWHERE:
            _unlink(item, size, lists, links, held)
        _append(item, _T1 if where == _NOWHERE else _T2, size, lists, links, held)
    return gone
