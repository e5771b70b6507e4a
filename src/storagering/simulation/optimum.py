"""What no cache can do better than, knowing the future.

Between two accesses to one item lies an interval; the second access is a hit just if the item is in the cache all the
time between. So the hits of a cache, whatever it lets in, are intervals that never take more than its capacity at once,
and the optimum is the largest such set.

- With items of one size Belady's rule (keep what is used next soonest, also against what comes in) finds it exactly:
  intervals in order of their starts, and where one is too many the one that ends last goes, is optimal for any number
  of places (Faigle and Nawijn, Note on scheduling intervals on-line, 1995).
- With others it is NP-hard (Chrobak et al., Caching is hard even in the fault model, 2012). Instead, space is given a
  price in each gap between two accesses: intervals that are worth more than they pay, plus the price of all the space
  there is, are by weak duality never less than the optimum, whatever the prices. One price for all gaps is PFOO-L of
  Berger, Beckmann, Harchol-Balter, Practical bounds on optimal caching with variable object sizes (2018), a lower bound
  of misses; from there on subgradient steps lower the bound towards that of the linear relaxation, their FOO.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from storagering.simulation.bound_kernels import dual_value, step_prices
from storagering.simulation.policies import replay
from storagering.simulation.trace import Trace, next_uses
from storagering.types import Array

_ROUNDS = 40
_PATIENCE = 4
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Optimum:
    """The most that any cache of a size can hit on a trace.

    Attributes:
        hits: accesses.
        hit_bytes: bytes; by another cache, as no one need be best at both.
        exact: whether these can be reached; else they are bounds.
    """

    hits: int
    hit_bytes: int
    exact: bool


def find_optimum(trace: Trace, capacity: int) -> Optimum:
    """The optimum of a cache of so many bytes at each site, which may leave out what it reads.

    Raises:
        SpecError: no capacity.
    """
    belady = replay(trace, capacity, "belady")
    if trace.is_uniform:
        return Optimum(int(belady.hits.sum()), int(trace.sizes[trace.items][belady.hits].sum()), exact=True)
    hits, nbytes = 0, 0
    for places, own in trace.by_site():
        sizes = trace.sizes[own.items]
        reached = belady.hits[places]
        hits += _bound(own, capacity, np.ones(len(own)), float(reached.sum()))
        nbytes += _bound(own, capacity, sizes.astype(np.float64), float(sizes[reached].sum()))
    return Optimum(hits, nbytes, exact=False)


def _bound(trace: Trace, capacity: int, values: Array, reached: float) -> int:
    """No more than this can be had, if each access (n) is worth so much and a cache has reached so much."""
    following = next_uses(trace.items)
    starts = np.flatnonzero((following < len(trace)) & (trace.sizes[trace.items] <= capacity))
    if not len(starts):
        return 0
    sizes, worth = trace.sizes[trace.items[starts]].astype(np.float64), values[starts]
    intervals = (starts, following[starts], sizes, worth)
    prices = np.full(len(trace) - 1, _one_price(capacity * (len(trace) - 1.0), *intervals))
    load = np.empty_like(prices)
    best = min(float(worth.sum()), dual_value(float(capacity), prices, *intervals, load))
    value, pace, since = best, 1.0, 0
    for _ in range(_ROUNDS):
        if best < reached + 1:
            break
        step_prices(float(capacity), prices, load, pace * (value - reached))
        value = dual_value(float(capacity), prices, *intervals, load)
        since = 0 if value < best else since + 1
        best = min(best, value)
        if since == _PATIENCE:
            pace, since = pace / 2, 0
    return int(np.floor(best * (1 + _ROUNDING) + _ROUNDING))


def _one_price(space: float, starts: Array, stops: Array, sizes: Array, values: Array) -> float:
    """The price at which the intervals that are worth it take as much space as there is in all gaps together."""
    volumes = sizes * (stops - starts)
    order = np.argsort(volumes / values, kind="stable")
    fitting = int(np.searchsorted(np.cumsum(volumes[order]), space, side="right"))
    return 0.0 if fitting == len(order) else float(values[order[fitting]] / volumes[order[fitting]])
