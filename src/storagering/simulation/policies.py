"""A trace through a cache under a policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from storagering.errors import SpecError, nearest_names
from storagering.simulation.arc_kernels import replay_arc
from storagering.simulation.experts import replay_predicting
from storagering.simulation.kernels import COUNT, Rules, Shelf, empty_shelf, replay_ranked, sort_shelf
from storagering.simulation.predicting import Scores, predict_scores
from storagering.simulation.trace import Trace, next_uses
from storagering.types import Array


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """What a cache made of a trace of n accesses.

    Attributes:
        capacity: bytes, at each site.
        hits: whether each access found its item there (n).
        evicted: items that went, in order, site after site.
        hit_ratio, byte_hit_ratio: shares of the accesses, and of their bytes; 0 for an empty trace.
    """

    policy: str
    capacity: int
    hits: Array
    evicted: Array
    hit_ratio: float
    byte_hit_ratio: float


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """What a policy is told beside the trace.

    Attributes:
        low_water: share of the capacity to which an eviction goes down.
        costs: of having each item again (m), above 0, for GreedyDual and ``predictive``; all alike without it.
        scores: expected uses of each dataset, for ``popularity``; predicted from the trace's past without it.
    """

    low_water: float = 1.0
    costs: Array | None = None
    scores: Scores | None = None


_Policy = Callable[[Trace, int, Knowledge], tuple[Array, Array]]


def replay(trace: Trace, capacity: int, policy: str, knowledge: Knowledge | None = None) -> Replay:
    """Let a trace pass through an empty cache at each of its sites.

    All policies but ``predictive`` and ``belady`` let in everything that is not larger than the cache.

    - ``lru``, ``lfu`` (uses since it came), ``greedy-dual`` (clock + cost / size; Cao and Irani 1997), ``popularity``
      (expected uses of the dataset): as the cache's own policies, eviction for eviction.
    - ``gdsf``: GreedyDual-Size-Frequency, clock + uses * cost / size (Cherkasova 1998).
    - ``arc``: Megiddo and Modha 2003.
    - ``predictive``: decayed counts with a half-life that is learnt (`predicting`).
    - ``belady``: knows the future; keeps what is used next soonest.

    Args:
        capacity: bytes of the cache, at each site.

    Raises:
        SpecError: no such policy, no capacity, or costs or scores that do not fit the trace.
    """
    if policy not in _POLICIES:
        raise SpecError(f"policy {policy!r}{nearest_names(policy, _POLICIES)}")
    knowledge = knowledge or Knowledge()
    _check(trace, capacity, knowledge)
    hits, gone = np.zeros(len(trace), np.bool_), []
    for places, own in trace.by_site():
        hits[places], evicted = _POLICIES[policy](own, int(capacity), knowledge)
        gone.append(evicted)
    hit_bytes = int(trace.sizes[trace.items[hits]].sum())
    return Replay(
        policy,
        int(capacity),
        hits,
        np.concatenate([*gone, np.zeros(0, np.int64)]),
        float(hits.mean()) if len(hits) else 0.0,
        hit_bytes / max(1, trace.accessed_bytes),
    )


def _check(trace: Trace, capacity: int, knowledge: Knowledge) -> None:
    if capacity < 1:
        raise SpecError(f"a cache of {capacity} bytes: give at least 1")
    if not 0 < knowledge.low_water <= 1:
        raise SpecError(f"low_water={knowledge.low_water}: give a share above 0 and up to 1")
    if knowledge.costs is not None and (len(knowledge.costs) != trace.num_items or not (knowledge.costs > 0).all()):
        raise SpecError(f"{len(knowledge.costs)} costs for {trace.num_items} items: give one above 0 for each")
    groups = int(trace.groups.max(initial=-1)) + 1
    if knowledge.scores is not None and knowledge.scores.values.shape[1] < groups:
        raise SpecError(f"scores of {knowledge.scores.values.shape[1]} datasets for a trace of {groups}")


def _ranked(
    trace: Trace, capacity: int, knowledge: Knowledge, given: Array, worth: Array, **how: bool
) -> tuple[Array, Array]:
    flags = (how.get("aging", False), how.get("counting", False), how.get("choosy", False))
    rules = Rules(capacity, int(capacity * knowledge.low_water), *flags)
    hits, evicted = np.zeros(len(trace), np.bool_), np.empty(len(trace), np.int64)
    shelf = empty_shelf(trace.num_items)
    gone = replay_ranked(shelf, rules, trace.items, trace.sizes, worth, given, given, hits, evicted)
    return hits, evicted[:gone].copy()


def _lru(trace: Trace, capacity: int, knowledge: Knowledge) -> tuple[Array, Array]:
    return _ranked(trace, capacity, knowledge, np.arange(len(trace), dtype=np.float64), np.zeros(trace.num_items))


def _lfu(trace: Trace, capacity: int, knowledge: Knowledge) -> tuple[Array, Array]:
    return _ranked(trace, capacity, knowledge, np.zeros(len(trace)), np.ones(trace.num_items), counting=True)


def _greedy_dual(trace: Trace, capacity: int, knowledge: Knowledge) -> tuple[Array, Array]:
    return _ranked(trace, capacity, knowledge, np.zeros(len(trace)), _worth(trace, knowledge), aging=True)


def _gdsf(trace: Trace, capacity: int, knowledge: Knowledge) -> tuple[Array, Array]:
    worth = _worth(trace, knowledge)
    return _ranked(trace, capacity, knowledge, np.zeros(len(trace)), worth, aging=True, counting=True)


def _worth(trace: Trace, knowledge: Knowledge) -> Array:
    """Cost by size; costs that are alike make it prefer small items, which is what raises the share of hits."""
    return _costs(trace, knowledge) / trace.sizes


def _costs(trace: Trace, knowledge: Knowledge) -> Array:
    costs = np.full(trace.num_items, trace.sizes.mean()) if knowledge.costs is None else knowledge.costs
    return np.ascontiguousarray(costs, dtype=np.float64)


def _belady(trace: Trace, capacity: int, knowledge: Knowledge) -> tuple[Array, Array]:
    following = next_uses(trace.items)
    given = np.where(following < len(trace), -following, -np.inf)
    return _ranked(trace, capacity, knowledge, given, np.zeros(trace.num_items), choosy=True)


def _arc(trace: Trace, capacity: int, _knowledge: Knowledge) -> tuple[Array, Array]:
    hits, evicted = np.zeros(len(trace), np.bool_), np.empty(len(trace), np.int64)
    gone = replay_arc(capacity, trace.items, trace.sizes, hits, evicted)
    return hits, evicted[:gone].copy()


def _popularity(trace: Trace, capacity: int, knowledge: Knowledge) -> tuple[Array, Array]:
    scores = knowledge.scores or predict_scores(trace)
    rules = Rules(capacity, int(capacity * knowledge.low_water), False, False, False)
    shelf, worth = empty_shelf(trace.num_items), np.zeros(trace.num_items)
    hits, gone = np.zeros(len(trace), np.bool_), []
    edges = [0, *np.searchsorted(trace.times, scores.times).tolist(), len(trace)]
    for number, (start, stop) in enumerate(pairwise(edges)):
        if start < stop:
            # Nothing is known before the first scores: all datasets count alike.
            of_group = scores.values[number - 1] if number else np.zeros(scores.values.shape[1])
            of_item = of_group[trace.groups]
            _rank_anew(shelf, of_item)
            items, evicted = trace.items[start:stop], np.empty(stop - start + int(shelf.totals[COUNT]), np.int64)
            given = of_item[items]
            count = replay_ranked(shelf, rules, items, trace.sizes, worth, given, given, hits[start:stop], evicted)
            gone.append(evicted[:count])
    return hits, np.concatenate([*gone, np.zeros(0, np.int64)])


def _rank_anew(shelf: Shelf, ranks: Array) -> None:
    shelf.ranks[:] = ranks
    sort_shelf(shelf)


def _predictive(trace: Trace, capacity: int, knowledge: Knowledge) -> tuple[Array, Array]:
    return replay_predicting(trace, capacity, _costs(trace, knowledge))


_POLICIES: dict[str, _Policy] = {
    "lru": _lru,
    "lfu": _lfu,
    "greedy-dual": _greedy_dual,
    "gdsf": _gdsf,
    "arc": _arc,
    "popularity": _popularity,
    "predictive": _predictive,
    "belady": _belady,
}
POLICIES = tuple(_POLICIES)
