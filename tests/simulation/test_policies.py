"""Policies: as published, as the cache's own room has them, and never better than the optimum."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.simulation.small import best_hits, held_after, published_arc, traces

from storagering.cache.leases import Lease
from storagering.cache.ledger import Ledger, Resident, set_popularity, touch_chunks
from storagering.cache.room import POLICIES as ROOM_POLICIES
from storagering.cache.room import Limits, Room, Tier
from storagering.errors import SpecError
from storagering.simulation.generated import KINDS, make_trace
from storagering.simulation.optimum import find_optimum
from storagering.simulation.policies import POLICIES, Knowledge, replay
from storagering.simulation.predicting import Scores
from storagering.simulation.trace import Trace, next_uses
from storagering.types import Array

LETTING_ALL_IN = [policy for policy in POLICIES if policy not in ("predictive", "belady")]


def of(items: Sequence[int], sizes: Sequence[int] | None = None) -> Trace:
    """A trace of these items, of size 1 without others."""
    count = max(items, default=0) + 1
    given_sizes = np.ones(count) if sizes is None else np.array(sizes)
    return Trace(np.arange(len(items)), np.array(items), given_sizes, np.zeros(count), np.zeros(len(items)))


@settings(max_examples=40, deadline=None)
@given(trace=traces(sites=2), capacity=st.integers(1, 20))
def test_no_policy_hits_more_than_the_optimum(trace: Trace, capacity: int) -> None:
    check_optimum(trace, capacity)


@pytest.mark.soak
@settings(max_examples=3000, deadline=None)
@given(trace=traces(most=300, items=30, largest=40, sites=3), capacity=st.integers(1, 200))
def test_no_policy_hits_more_than_the_optimum_however_often_it_is_tried(trace: Trace, capacity: int) -> None:
    check_optimum(trace, capacity)


def check_optimum(trace: Trace, capacity: int) -> None:
    """No policy does better, by hits or by bytes."""
    optimum = find_optimum(trace, capacity)
    for policy in POLICIES:
        one = replay(trace, capacity, policy)
        assert one.hits.sum() <= optimum.hits, policy
        assert trace.sizes[trace.items[one.hits]].sum() <= optimum.hit_bytes, policy


@settings(max_examples=50, deadline=None)
@given(trace=traces(largest=1), capacity=st.integers(1, 9))
def test_no_policy_hits_more_than_belady_with_items_of_one_size(trace: Trace, capacity: int) -> None:
    optimum = find_optimum(trace, capacity)
    assert optimum.exact
    assert optimum.hits == replay(trace, capacity, "belady").hits.sum()
    for policy in POLICIES:
        assert replay(trace, capacity, policy).hits.sum() <= optimum.hits, policy


@settings(max_examples=50, deadline=None)
@given(trace=traces(most=12, items=4, largest=4), capacity=st.integers(1, 8))
def test_the_optimum_is_never_below_what_trying_everything_finds(trace: Trace, capacity: int) -> None:
    most = best_hits(tuple(trace.items.tolist()), tuple(trace.sizes.tolist()), capacity)
    optimum = find_optimum(trace, capacity)
    assert optimum.hits >= most
    assert not optimum.exact or optimum.hits == most


@settings(max_examples=50, deadline=None)
@given(trace=traces(most=12, items=4, largest=1), capacity=st.integers(1, 4))
@example(of([0, 1, 0, 1, 0, 1]), 1)  # without leaving out what is read nothing would be hit
def test_with_items_of_one_size_the_optimum_is_exact(trace: Trace, capacity: int) -> None:
    most = best_hits(tuple(trace.items.tolist()), (1,) * trace.num_items, capacity)
    assert find_optimum(trace, capacity).hits == most


@pytest.mark.parametrize("kind", KINDS)
def test_no_policy_hits_more_than_the_optimum_on_longer_traces(kind: str) -> None:
    trace = make_trace(kind, seed=3, accesses=4000, items=400)
    capacity = trace.footprint_bytes // 12
    optimum = find_optimum(trace, capacity)
    hits = {policy: int(replay(trace, capacity, policy).hits.sum()) for policy in POLICIES}
    assert max(hits.values()) <= optimum.hits <= len(trace) - len(np.unique(trace.items))
    assert hits["lru"] > 0
    assert hits["belady"] > hits["lru"]


def test_the_bound_is_near_what_can_be_reached() -> None:
    trace = make_trace("mixture", seed=1, accesses=5000, items=500)
    capacity = trace.footprint_bytes // 10
    belady = replay(trace, capacity, "belady")
    reached = int(trace.sizes[trace.items[belady.hits]].sum())
    assert reached <= find_optimum(trace, capacity).hit_bytes <= 1.1 * reached


@settings(max_examples=40, deadline=None)
@given(trace=traces(), capacity=st.integers(1, 20))
def test_what_came_and_did_not_go_is_there(trace: Trace, capacity: int) -> None:
    for policy in LETTING_ALL_IN:
        one = replay(trace, capacity, policy)
        held = held_after(trace, one.hits, one.evicted, capacity)
        assert sum(trace.sizes[item] for item in held) <= capacity


@settings(max_examples=40, deadline=None)
@given(items=st.lists(st.integers(0, 9), max_size=120), capacity=st.integers(1, 6))
def test_arc_is_the_published_one(items: list[int], capacity: int) -> None:
    assert replay(of(items), capacity, "arc").hits.tolist() == published_arc(items, capacity)


class _Shelf:
    """The cache's own ledger and room, over files that are only names."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.ledger, self.gone = Ledger(root / "ledger.sqlite"), list[int]()
        tier = Tier(root, self.ledger, lambda: 0, lambda: False, lambda _: "", self._remove)
        self.room, self.lease = Room(tier, limits), Lease(root, "testing")
        self.held: set[int] = set()

    def _remove(self, _dataset: str, files: Sequence[str]) -> None:
        self.gone += [int(file) for file in files]
        self.held -= {int(file) for file in files}

    def read(self, trace: Trace, item: int, cost: float) -> bool:
        """Whether it was there; it is now, if it can be."""
        dataset, file, nbytes = f"d{trace.groups[item]}", str(item), int(trace.sizes[item])
        if item in self.held:
            with self.ledger.transaction() as database:
                touch_chunks(database, dataset, [file])
            return True
        if nbytes <= (self.room.quota_bytes or 0):
            self.room.claim(self.lease.id, file, nbytes)
            self.room.settle(self.lease.id, file, [Resident(dataset, file, nbytes, cost)])
            self.held.add(item)
        return False


@pytest.mark.parametrize(("policy", "low_water"), list(zip(ROOM_POLICIES, [0.6, 1.0, 1.0, 0.6], strict=True)))
def test_policies_evict_what_the_real_room_evicts(tmp_path: Path, policy: str, low_water: float) -> None:
    random = np.random.default_rng(7)
    sizes, costs = random.integers(1, 9, 14), random.integers(1, 50, 14).astype(float)
    items = np.minimum(random.geometric(0.15, 70) - 1, 13)
    trace = Trace(np.arange(70), items, sizes, np.arange(14) % 4, np.zeros(70))
    scores = Scores(np.array([0.0, 35.0]), random.random((2, 4)))
    shelf = _Shelf(tmp_path, Limits(quota_bytes=25, low_water=low_water, policy=policy))
    hits = []
    for at, item in enumerate(items.tolist()):
        if at in (0, 35):
            with shelf.ledger.transaction() as database:
                set_popularity(database, [(f"d{n}", float(s)) for n, s in enumerate(scores.values[at // 35])])
        hits.append(shelf.read(trace, item, costs[item]))
    one = replay(trace, 25, policy, Knowledge(low_water=low_water, costs=costs, scores=scores))
    assert one.hits.tolist() == hits
    # The room names what goes at once dataset by dataset; the replay in order.
    assert sorted(one.evicted.tolist()) == sorted(shelf.gone)
    assert len(shelf.gone) > 20
    assert low_water < 1 or np.mean(one.evicted == shelf.gone) > 0.5


@pytest.mark.parametrize("seed", range(5))
def test_prediction_beats_lru_when_popularity_drifts(seed: int) -> None:
    trace = make_trace("drift", seed=seed, accesses=20_000, items=1600)
    for share in (0.05, 0.2):
        capacity = int(share * trace.footprint_bytes)
        predictive, lru = (replay(trace, capacity, policy).hit_ratio for policy in ("predictive", "lru"))
        assert predictive > lru + 0.01


def test_prediction_keeps_a_part_of_what_is_read_again_and_again() -> None:
    trace = of(list(range(100)) * 60)
    assert replay(trace, 50, "lru").hit_ratio == 0
    assert replay(trace, 50, "predictive").hit_ratio > 0.3


@settings(max_examples=40, deadline=None)
@given(trace=traces(most=200), cut=st.integers(0, 200), capacity=st.integers(1, 20))
def test_policies_do_not_know_the_future(trace: Trace, cut: int, capacity: int) -> None:
    past = trace.take(np.arange(min(cut, len(trace))))
    scores = Scores(np.array([3.0]), np.array([[1.0, 3.0, 2.0]]))
    for policy in POLICIES[:-1]:
        whole, part = (replay(one, capacity, policy, Knowledge(scores=scores)).hits for one in (trace, past))
        assert whole[: len(past)].tolist() == part.tolist(), policy


def test_sites_have_caches_of_their_own() -> None:
    trace = Trace(np.arange(4), np.zeros(4), np.ones(1), np.zeros(1), np.array([0, 1, 0, 1]))
    assert replay(trace, 1, "lru").hits.tolist() == [False, False, True, True]
    assert find_optimum(trace, 1).hits == 2


def test_what_is_larger_than_the_cache_stays_outside() -> None:
    trace = of([0, 1, 1, 0, 0], [2, 9])
    for policy in POLICIES:
        assert replay(trace, 3, policy).hits.tolist() == [False, False, False, True, True], policy


def test_an_empty_trace_is_no_trouble() -> None:
    for policy in POLICIES:
        assert replay(of([]), 3, policy).hit_ratio == 0
    assert find_optimum(of([]), 3).hits == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"policy": "lri"}, "nearest names: 'lru'"),
        ({"capacity": 0}, "a cache of 0 bytes"),
        ({"knowledge": Knowledge(low_water=1.5)}, "low_water=1.5"),
        ({"knowledge": Knowledge(costs=np.ones(3))}, "3 costs for 2 items"),
        ({"knowledge": Knowledge(costs=np.zeros(2))}, "above 0"),
        ({"knowledge": Knowledge(scores=Scores(np.zeros(1), np.zeros((1, 0))))}, "scores of 0 datasets"),
    ],
)
def test_what_cannot_be_replayed_is_refused(change: dict[str, object], told: str) -> None:
    arguments: dict[str, object] = {"capacity": 3, "policy": "lru", "knowledge": None} | change
    with pytest.raises(SpecError, match=told):
        replay(of([0, 1]), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("part", "values", "told"),
    [
        ("times", [1, 0], "never fall"),
        ("times", [0, np.nan], "never fall"),
        ("items", [0, 2], "beyond the 2"),
        ("items", [0], "one of each"),
        ("sizes", [1, 0], "below 1"),
        ("groups", [0, -1], "negative group"),
    ],
)
def test_a_trace_that_does_not_fit_together_is_refused(part: str, values: list[float], told: str) -> None:
    parts: dict[str, Array] = {name: np.zeros(2) for name in ("times", "items", "groups", "sites")}
    parts["sizes"] = np.ones(2)
    with pytest.raises(SpecError, match=told):
        Trace(**{**parts, part: np.array(values)})


def test_scores_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(SpecError, match="a row for each"):
        Scores(np.zeros(2), np.zeros((1, 3)))
    with pytest.raises(SpecError, match="finite"):
        Scores(np.zeros(1), np.full((1, 3), np.nan))


def test_next_uses() -> None:
    assert next_uses(np.array([3, 1, 3, 3, 1])).tolist() == [2, 4, 3, 5, 5]
    assert next_uses(np.array([], dtype=int)).tolist() == []
