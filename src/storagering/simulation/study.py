"""Policies side by side on traces, against the optimum; strategies of placement side by side in worlds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from storagering.errors import InternalError, SpecError
from storagering.simulation.optimum import find_optimum
from storagering.simulation.policies import POLICIES, Replay, replay
from storagering.simulation.sites import Outcome, simulate_sites
from storagering.simulation.strategies import STRATEGIES
from storagering.simulation.trace import Trace
from storagering.simulation.world import World

OPTIMUM = "optimum"
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean, standard deviation and range over traces."""

    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """What one policy hits with caches of one size.

    Attributes:
        policy: its name; ``optimum`` for what none can do better than.
        share: the cache's size, as a share of the bytes of all items that are accessed.
        capacity: bytes, the mean over the traces.
        exact: whether the optimum can be reached; else it is a bound. True for policies.
        traces: number of them.
    """

    policy: str
    share: float
    capacity: int
    hit_ratio: Spread
    byte_hit_ratio: Spread
    exact: bool
    traces: int


def compare_policies(
    traces: Sequence[Trace],
    *,
    policies: Sequence[str] = POLICIES,
    shares: Sequence[float] = SHARES,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[Point, ...]:
    """Replay traces through caches of several sizes under several policies, and find the optimum of each.

    Args:
        traces: of one kind and several seeds, over which means and spreads are taken.
        shares: sizes of the caches (of each site), as shares of a trace's `footprint_bytes`.
        progress: called with the number of (trace, size) that are done.

    Raises:
        SpecError: no traces or an empty one, no such policy, or a share that is not above 0.
        InternalError: a policy did better than the optimum, which is a bug.
    """
    if not traces or not all(len(trace) for trace in traces):
        raise SpecError("there is nothing to replay: give a trace with accesses")
    if not shares or not all(share > 0 for share in shares):
        raise SpecError(f"sizes {', '.join(map(str, shares))}: give shares above 0, e.g. 0.1")
    points = []
    for number, share in enumerate(shares):
        capacities, ratios, exact = [], [], True
        for turn, trace in enumerate(traces):
            capacity = max(1, int(share * trace.footprint_bytes))
            found, reachable = _ratios(trace, capacity, policies)
            capacities.append(capacity)
            ratios.append(found)
            exact &= reachable
            progress(number * len(traces) + turn + 1)
        for at, policy in enumerate([*policies, OPTIMUM]):
            hits, nbytes = (_spread([found[at][n] for found in ratios]) for n in (0, 1))
            size = int(np.mean(capacities))
            points.append(Point(policy, share, size, hits, nbytes, exact or policy != OPTIMUM, len(traces)))
    return tuple(points)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a strategy of placement comes to: see `sites.Outcome`."""

    strategy: str
    worlds: int
    mean_wait: Spread
    hit_ratio: Spread
    traffic: Spread
    origin_traffic: Spread
    placed: Spread


def compare_strategies(
    worlds: Sequence[World], strategies: Sequence[str] = STRATEGIES, progress: Callable[[int], None] = lambda _: None
) -> tuple[Summary, ...]:
    """Simulate worlds under several strategies of placement.

    Args:
        worlds: of several seeds, over which means and spreads are taken.
        progress: called with the number of simulations that are done.

    Raises:
        SpecError: no worlds, or no such strategy.
        InternalError: bytes or jobs were lost or doubled, which is a bug.
    """
    if not worlds:
        raise SpecError("there is nothing to simulate: give a world")
    summaries: list[Summary] = []
    for name in strategies:
        outcomes: list[Outcome] = []
        for world in worlds:
            outcomes.append(simulate_sites(world, name))
            progress(len(summaries) * len(worlds) + len(outcomes))
        summaries.append(
            Summary(
                name,
                len(worlds),
                _spread([one.mean_wait for one in outcomes]),
                _spread([one.hit_ratio for one in outcomes]),
                _spread([one.traffic for one in outcomes]),
                _spread([one.origin_traffic for one in outcomes]),
                _spread([one.placed for one in outcomes]),
            )
        )
    return tuple(summaries)


def _ratios(trace: Trace, capacity: int, policies: Sequence[str]) -> tuple[list[tuple[float, float]], bool]:
    """(hit ratio, byte hit ratio) of each policy and of the optimum, and whether that is exact."""
    optimum = find_optimum(trace, capacity)
    replays = [replay(trace, capacity, policy) for policy in policies]
    for one in replays:
        _check(trace, one, optimum.hits)
    ratios = [(one.hit_ratio, one.byte_hit_ratio) for one in replays]
    return [*ratios, (optimum.hits / len(trace), optimum.hit_bytes / trace.accessed_bytes)], optimum.exact


def _check(trace: Trace, one: Replay, most: int) -> None:
    if int(one.hits.sum()) > most:
        raise InternalError(
            f"policy {one.policy!r} hit {int(one.hits.sum()):,} of {len(trace):,} accesses with {one.capacity:,} "
            f"bytes, and the optimum is {most:,}"
        )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values)), float(min(values)), float(max(values)))
