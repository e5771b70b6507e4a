"""Compiled replay of a cache that evicts what has the lowest rank: a heap, kept through all accesses.

LRU, LFU, GreedyDual, popularity, prediction and Belady's rule are this one cache, with other ranks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from storagering.compiling import compiled
from storagering.types import Array

BYTES, COUNT, TICK = 0, 1, 2


class Shelf(NamedTuple):
    """A cache: which of m items are in it, and their ranks.

    Attributes:
        heap: items that are there (m), the one to go first at 0.
        places: of each item in the heap (m), -1 if it is not there.
        ranks: of each item that is there (m); the lowest goes first.
        used: when it was last used (m), counted; breaks ties, the earliest goes first.
        uses: since it came (m).
        totals: bytes there, number of items there, accesses so far.
        inflation: GreedyDual's clock (1).
    """

    heap: Array
    places: Array
    ranks: Array
    used: Array
    uses: Array
    totals: Array
    inflation: Array


class Rules(NamedTuple):
    """What the cache goes by: an item's rank is set at every access, to

    ``given + worth * (uses if counting else 1) + (inflation if aging else 0)``.

    Attributes:
        capacity: bytes.
        low: bytes to which an eviction goes down.
        choosy: an item comes in only if what it would push out has lower ranks than its ``prior``.
    """

    capacity: int
    low: int
    aging: bool
    counting: bool
    choosy: bool


def empty_shelf(items: int) -> Shelf:
    """A cache with nothing in it, of so many items that there are."""
    return Shelf(
        np.zeros(items, np.int64),
        np.full(items, -1, np.int64),
        np.zeros(items, np.float64),
        np.zeros(items, np.int64),
        np.zeros(items, np.int64),
        np.zeros(3, np.int64),
        np.zeros(1, np.float64),
    )


@compiled
def _before(shelf: Shelf, one: int, other: int) -> bool:
    if shelf.ranks[one] != shelf.ranks[other]:
        return bool(shelf.ranks[one] < shelf.ranks[other])
    return bool(shelf.used[one] < shelf.used[other])


@compiled
def _rise(shelf: Shelf, place: int) -> None:
    item = shelf.heap[place]
    while place > 0:
        above = (place - 1) // 2
        other = shelf.heap[above]
        if not _before(shelf, item, other):
            break
        shelf.heap[place] = other
        shelf.places[other] = place
        place = above
    shelf.heap[place] = item
    shelf.places[item] = place


@compiled
def _sink(shelf: Shelf, place: int) -> None:
    item, count = shelf.heap[place], shelf.totals[COUNT]
    while True:
        below = 2 * place + 1
        if below >= count:
            break
        if below + 1 < count and _before(shelf, shelf.heap[below + 1], shelf.heap[below]):
            below += 1
        other = shelf.heap[below]
        if not _before(shelf, other, item):
            break
        shelf.heap[place] = other
        shelf.places[other] = place
        place = below
    shelf.heap[place] = item
    shelf.places[item] = place


@compiled
def _put(shelf: Shelf, item: int, size: int) -> None:
    place = shelf.totals[COUNT]
    shelf.heap[place] = item
    shelf.totals[COUNT] = place + 1
    shelf.totals[BYTES] += size
    _rise(shelf, place)


@compiled
def _pop(shelf: Shelf, sizes: Array) -> int:
    item = shelf.heap[0]
    shelf.places[item] = -1
    shelf.totals[COUNT] -= 1
    shelf.totals[BYTES] -= sizes[item]
    if shelf.totals[COUNT] > 0:
        shelf.heap[0] = shelf.heap[shelf.totals[COUNT]]
        _sink(shelf, 0)
    return int(item)


@compiled
def sort_shelf(shelf: Shelf) -> None:
    """Put the heap in order again, after ranks were changed."""
    for place in range(shelf.totals[COUNT] // 2 - 1, -1, -1):
        _sink(shelf, place)


@compiled
def _make_room(shelf: Shelf, rules: Rules, sizes: Array, size: int, prior: float, evicted: Array, gone: int) -> int:
    """Number of items evicted in all when so many bytes fit, -1 if they must not come in."""
    if size > rules.capacity:
        return -1
    if shelf.totals[BYTES] + size <= rules.capacity:
        return gone
    goal, first = max(0, min(rules.low, rules.capacity - size)), gone
    while shelf.totals[BYTES] > goal:
        if rules.choosy and shelf.ranks[shelf.heap[0]] >= prior:
            for number in range(first, gone):
                _put(shelf, evicted[number], sizes[evicted[number]])
            return -1
        evicted[gone] = _pop(shelf, sizes)
        gone += 1
    shelf.inflation[0] = shelf.ranks[evicted[gone - 1]]
    return gone


@compiled
def replay_ranked(
    shelf: Shelf,
    rules: Rules,
    items: Array,
    sizes: Array,
    worth: Array,
    given: Array,
    prior: Array,
    hits: Array,
    evicted: Array,
) -> int:
    """Let accesses to ``items`` (n) pass through the cache, which stays as they leave it.

    Args:
        sizes, worth: of each item (m).
        given: parts of the ranks (n).
        prior: for choosy rules, what an item is worth before this access (n).
        hits: filled, whether the item was there (n).
        evicted: filled, what went, in order; as long as n and the number of items that are there.

    Returns:
        How many went.
    """
    gone = 0
    for number in range(len(items)):
        item = items[number]
        shelf.totals[TICK] += 1
        there = shelf.places[item] >= 0
        hits[number] = there
        if not there:
            now = _make_room(shelf, rules, sizes, sizes[item], prior[number], evicted, gone)
            if now < 0:
                continue
            gone = now
            shelf.uses[item] = 0
        shelf.uses[item] += 1
        shelf.used[item] = shelf.totals[TICK]
        times = shelf.uses[item] if rules.counting else 1
        shelf.ranks[item] = given[number] + worth[item] * times
        if rules.aging:
            shelf.ranks[item] = shelf.inflation[0] + shelf.ranks[item]
        if there:
            _rise(shelf, shelf.places[item])
            _sink(shelf, shelf.places[item])
        else:
            _put(shelf, item, sizes[item])
    return gone


@compiled
def decay_counts(items: Array, first: int, half_life: float, ranks: Array, before: Array, after: Array) -> None:
    """Counts of accesses that halve every ``half_life`` accesses, as ranks that need no change between accesses.

    A count c at access t has the rank log2(c) + t / half_life, which decay leaves as it is (as in Lee et al., LRFU,
    2001). The logarithm keeps it from growing beyond what a number holds.

    Args:
        items: accessed (n), the first of them as access number ``first``.
        ranks: of each item (m), -inf for those never accessed; brought up to date.
        before, after: filled, the rank of each access's item before it and after it (n).
    """
    for number in range(len(items)):
        item = items[number]
        now = (first + number) / half_life
        before[number] = ranks[item]
        ranks[item] = now + np.log2(1.0 + 2.0 ** (ranks[item] - now))
        after[number] = ranks[item]
