"""A cache that learns by what to rank: decayed counts, under the half-life that did best of late.

Counts that decay fast follow what is new, like LRU; slow ones keep what is used most, like LFU. How fast popularity
drifts nobody knows beforehand, so small caches under several half-lives run beside the large one.
"""

from __future__ import annotations

import numpy as np

from storagering.simulation.kernels import COUNT, Rules, decay_counts, empty_shelf, replay_ranked, sort_shelf
from storagering.simulation.trace import Trace
from storagering.types import Array

_HALF_LIVES = tuple(float(16**power) for power in range(6))  # accesses: the first is LRU, the last nearly LFU
_WINDOW = 1024  # accesses between two looks at who does best
_KEPT = 0.9  # of an expert's record from one look to the next
_MARGIN = 1.01  # by which another must be better before it is believed
_SAMPLED_ITEMS, _SAMPLED_PLACES = 2048, 64


class _Expert:
    """A small cache of sampled items, under one half-life, with or without a guard at the door.

    A sample of the items in a cache as much smaller hits as large a share (Waldspurger et al., Cache modeling and
    optimization using miniature simulations, 2017). The guard lets in only what was worth more, before this access,
    than what would go (as TinyLFU does; Einziger et al. 2017): a scan then leaves the cache as it is.

    Args:
        half_life: number of it.
        worth: of each sampled item, added to its rank.
        costs: of missing each sampled item.
    """

    def __init__(self, half_life: int, rules: Rules, sizes: Array, worth: Array, costs: Array) -> None:
        self.half_life, self.choosy, self.by_size, self.record = half_life, rules.choosy, bool(worth.any()), 0.0
        self._shelf, self._sizes, self._worth, self._costs = empty_shelf(len(sizes)), sizes, worth, costs
        self._rules = rules

    def learn(self, items: Array, before: Array, after: Array) -> None:
        """Pass sampled accesses through it."""
        hits = np.zeros(len(items), np.bool_)
        evicted = np.empty(len(items) + int(self._shelf.totals[COUNT]), np.int64)
        prior = before + self._worth[items]
        replay_ranked(self._shelf, self._rules, items, self._sizes, self._worth, after, prior, hits, evicted)
        self.record = _KEPT * self.record + float(self._costs[items[hits]].sum())


class _Ranks:
    """Decayed counts of all items under every half-life, as ranks."""

    def __init__(self, items: int) -> None:
        self._first = 0
        self.now = np.full((len(_HALF_LIVES), items), -np.inf)
        self.before, self.after = np.empty((2, len(_HALF_LIVES), _WINDOW))

    def learn(self, items: Array) -> None:
        """Count these accesses, and keep what was thought of each item before and after its own."""
        for number, half_life in enumerate(_HALF_LIVES):
            decay_counts(items, self._first, half_life, self.now[number], self.before[number], self.after[number])
        self._first += len(items)


def replay_predicting(trace: Trace, capacity: int, costs: Array) -> tuple[Array, Array]:
    """The hits (n) of a cache that evicts what has the lowest decayed count, and what it evicted.

    Half-life, guard and whether an item counts by its cost for each byte are those of the expert that saved most of
    late; only the past is used.

    Args:
        costs: of missing each item (m).
    """
    if not len(trace):
        return np.zeros(0, np.bool_), np.zeros(0, np.int64)
    sample, share = _sampled(trace, capacity)
    numbers = np.cumsum(sample) - 1
    by_size = np.log2(costs / trace.sizes)
    worths = [np.zeros(trace.num_items), by_size][: 1 + bool(np.ptp(by_size))]
    small = capacity if share == 1 else max(1, int(capacity * share))
    experts = [
        _Expert(n, Rules(small, small, False, False, choosy), trace.sizes[sample], worth[sample], costs[sample])
        for worth in worths
        for n in range(len(_HALF_LIVES))
        for choosy in (False, True)
    ]
    chosen, shelf, ranks, gone = experts[2], empty_shelf(trace.num_items), _Ranks(trace.num_items), []
    hits = np.zeros(len(trace), np.bool_)
    for start in range(0, len(trace), _WINDOW):
        items = trace.items[start : start + _WINDOW]
        ranks.learn(items)
        worth, now = worths[chosen.by_size], hits[start : start + _WINDOW]
        evicted = np.empty(len(items) + int(shelf.totals[COUNT]), np.int64)
        rules = Rules(capacity, capacity, False, False, chosen.choosy)
        after = ranks.after[chosen.half_life, : len(items)]
        prior = ranks.before[chosen.half_life, : len(items)] + worth[items]
        gone.append(evicted[: replay_ranked(shelf, rules, items, trace.sizes, worth, after, prior, now, evicted)])
        seen = np.flatnonzero(sample[items])
        for expert in experts:
            expert.learn(
                numbers[items[seen]], ranks.before[expert.half_life][seen], ranks.after[expert.half_life][seen]
            )
        best = max(experts, key=lambda expert: expert.record)
        if best.record > _MARGIN * chosen.record:
            chosen = best
            shelf.ranks[:] = ranks.now[best.half_life] + worths[best.by_size]
            sort_shelf(shelf)
    return hits, np.concatenate([*gone, np.zeros(0, np.int64)])


def _sampled(trace: Trace, capacity: int) -> tuple[Array, float]:
    """Which items experts look at (m), and their share of all bytes: a few thousand, and enough to fill some places."""
    places = capacity / trace.sizes.mean()
    one_in = max(1, min(trace.num_items // _SAMPLED_ITEMS, int(places / _SAMPLED_PLACES)))
    hashes = (np.arange(trace.num_items, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    sample = hashes % np.uint64(one_in) == 0
    return sample, 1.0 if one_in == 1 else float(trace.sizes[sample].sum() / trace.sizes.sum())
