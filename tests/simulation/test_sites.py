"""Sites: nothing is lost, doubled or faster than its link."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.errors import SpecError
from storagering.simulation.network import Clock, Link, Transfer
from storagering.simulation.site_cache import SiteCache
from storagering.simulation.sites import Outcome, simulate_sites
from storagering.simulation.strategies import STRATEGIES
from storagering.simulation.study import compare_strategies
from storagering.simulation.world import ORIGIN, Connection, Job, Site, World, make_worlds

DAY = 86_400.0


@st.composite
def worlds(draw: st.DrawFn) -> World:
    names = [f"s{n}" for n in range(draw(st.integers(1, 3)))]
    sites = tuple(Site(name, draw(st.integers(0, 60)), draw(st.integers(1, 3))) for name in names)
    rates = st.floats(1e-4, 10.0)
    ways = [Connection(ORIGIN, name, draw(rates), draw(st.sampled_from([0.0, 2.0]))) for name in names]
    ways += [Connection(a, b, draw(rates), 0.5) for a in names for b in names if a != b and draw(st.booleans())]
    datasets = {f"d{n}": tuple(draw(st.lists(st.integers(1, 30), max_size=3))) for n in range(4)}
    jobs = draw(
        st.lists(
            st.builds(
                Job,
                st.floats(0, 3 * DAY),
                st.sampled_from(names),
                st.sampled_from(sorted(datasets)),
                st.sampled_from([0.0, 1.0, 500.0]),
            ),
            max_size=25,
        )
    )
    return World(sites, tuple(ways), datasets, tuple(jobs))


def check(world: World, outcome: Outcome) -> None:
    """What must be true of every simulation."""
    assert Counter(record.job for record in outcome.jobs) == Counter(world.jobs)
    for record in outcome.jobs:
        computed = sum(world.datasets[record.job.dataset]) * record.job.seconds_per_byte
        assert record.job.arrival <= record.start <= record.end
        assert record.end - record.start >= computed - 1e-6 * max(1.0, record.end)
        assert record.waited == pytest.approx(record.end - record.job.arrival - computed, abs=1e-3)
    received = defaultdict[str, int](int)
    over = defaultdict[tuple[str, str], list[Transfer]](list)
    for transfer in outcome.transfers:
        received[transfer.target] += transfer.nbytes
        over[transfer.source, transfer.target].append(transfer)
    for flow in outcome.flows:
        assert flow.received == received[flow.site]
        assert flow.filled - flow.evicted == flow.held >= 0
        assert flow.filled <= flow.received
        assert flow.held <= next(site.capacity for site in world.sites if site.name == flow.site)
    for way, sent in outcome.sent.items():
        assert sent == pytest.approx(sum(transfer.nbytes for transfer in over[way]), rel=1e-6)
    rates = {(one.source, one.target): one.bandwidth for one in world.connections}
    for way, transfers in over.items():
        for begin in {transfer.start for transfer in transfers}:
            # What began and ended within any time can't be more than the link carries in it.
            within = 0
            for transfer in transfers:  # in the order of their ends
                within += transfer.nbytes if transfer.start >= begin else 0
                assert within <= rates[way] * max(0.0, transfer.end - begin) * (1 + 1e-6) + 1e-3 * bool(within)
    running = defaultdict[str, list[tuple[float, int]]](list)
    for record in outcome.jobs:
        running[record.job.site] += [(record.start, 1), (record.end, -1)]
    for site in world.sites:
        busy = 0
        for _, change in sorted(running[site.name]):
            busy += change
            assert busy <= site.cpus


@settings(max_examples=40, deadline=None)
@given(world=worlds(), strategy=st.sampled_from(STRATEGIES))
def test_nothing_is_lost_or_doubled(world: World, strategy: str) -> None:
    check(world, simulate_sites(world, strategy))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_nothing_is_lost_in_a_larger_world(strategy: str) -> None:
    world = make_worlds(1, jobs=200, datasets=40, sites=3)[0]
    outcome = simulate_sites(world, strategy)
    check(world, outcome)
    again = simulate_sites(make_worlds(1, jobs=200, datasets=40, sites=3)[0], strategy)
    assert (again.jobs, again.transfers, again.flows) == (outcome.jobs, outcome.transfers, outcome.flows)


def test_caches_save_traffic_and_prediction_brings_what_will_be_read() -> None:
    found = {one.strategy: one for one in compare_strategies(make_worlds(3, jobs=300, datasets=50))}
    assert found["none"].hit_ratio.high == 0
    assert found["reactive"].traffic.mean < 0.95 * found["none"].traffic.mean
    assert found["predictive"].hit_ratio.mean > found["reactive"].hit_ratio.mean
    assert found["predictive"].placed.low > 0
    assert found["reactive"].placed.high == 0
    assert found["none"].worlds == 3


def test_a_job_waits_for_its_cpu_and_its_files() -> None:
    jobs = (Job(0.0, "s", "d", 2.0), Job(1.0, "s", "d", 2.0))
    world = World((Site("s", 100, 1),), (Connection(ORIGIN, "s", 5.0, 1.0),), {"d": (10,)}, jobs)
    first, second = simulate_sites(world, "reactive").jobs
    assert (first.start, first.end, first.waited) == (0.0, 1 + 2 + 20, 3.0)
    assert (second.start, second.end, second.waited) == (23.0, 43.0, 22.0)  # the file lies there then
    outcome = simulate_sites(world, "none")
    assert [record.end for record in outcome.jobs] == [23.0, 46.0]
    assert outcome.hit_ratio == 0


def test_those_who_wait_for_one_file_wait_for_one_transfer() -> None:
    jobs = tuple(Job(0.0, "s", "d", 0.0) for _ in range(3))
    world = World((Site("s", 100, 3),), (Connection(ORIGIN, "s", 5.0, 0.0),), {"d": (10,)}, jobs)
    outcome = simulate_sites(world, "reactive")
    assert outcome.traffic == 10
    assert {record.end for record in outcome.jobs} == {2.0}


def test_files_come_from_where_there_is_most_bandwidth() -> None:
    jobs = (Job(0.0, "a", "d", 0.0), Job(10.0, "b", "d", 0.0))
    ways = (Connection(ORIGIN, "a", 5.0), Connection(ORIGIN, "b", 5.0), Connection("a", "b", 50.0))
    world = World((Site("a", 100, 1), Site("b", 100, 1)), ways, {"d": (10,)}, jobs)
    assert [one.source for one in simulate_sites(world, "reactive").transfers] == [ORIGIN, "a"]


def test_transfers_share_a_link_in_equal_parts() -> None:
    clock, ended = Clock(), list[Transfer]()
    link = Link(clock, "a", "b", 10.0, 0.0)
    clock.at(0.0, link.send, 100, "read", ended.append)
    clock.at(5.0, link.send, 20, "read", ended.append)
    clock.run()
    # Until 5 s the first has 50 bytes; then both get 5 bytes a second, until the second has its 20.
    assert [(one.nbytes, one.start, one.end) for one in ended] == [(20, 5.0, 9.0), (100, 0.0, 12.0)]
    assert link.sent == 120
    assert link.waiting == 0


@pytest.mark.parametrize("policy", ["lru", "lfu", "greedy-dual", "popularity"])
def test_what_is_pinned_stays_in_a_site_cache(policy: str) -> None:
    scores = {"a": 1.0, "b": 2.0, "c": 3.0}
    cache = SiteCache(10, policy, lambda file: scores[str(file)])
    assert cache.put("a", 5)
    assert cache.put("b", 5)
    cache.pin("a")
    assert cache.put("c", 5)
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)
    assert not cache.put("b", 6)
    cache.unpin("a")
    assert cache.put("b", 5)
    assert "a" not in cache
    assert (cache.filled, cache.evicted, cache.held) == (20, 10, 10)
    with pytest.raises(SpecError, match="choose one of lru"):
        SiteCache(1, "mru")


def test_what_makes_no_sense_is_refused() -> None:
    site, way = Site("s", 1, 1), Connection(ORIGIN, "s", 1.0)
    for arguments, told in [
        (((site, site), (way,), {}, ()), "a name of its own"),
        (((Site(ORIGIN, 1, 1),), (way,), {}, ()), "none 'origin'"),
        (((site,), (), {}, ()), "no connection from the origin"),
        (((site,), (way, way), {}, ()), "give each once"),
        (((Site("s", 1, 0),), (way,), {}, ()), "at least one CPU"),
        (((site,), (way,), {"dat": (1,)}, (Job(0, "s", "data", 1),)), "nearest names: 'dat'"),
        (((site,), (way,), {"d": (1,)}, (Job(-1, "s", "d", 1),)), "arrives at -1"),
        (((site,), (way,), {"d": (0,)}, ()), "less than one byte"),
    ]:
        with pytest.raises(SpecError, match=told):
            World(*arguments)
    with pytest.raises(SpecError, match="bandwidth=0"):
        simulate_sites(World((site,), (Connection(ORIGIN, "s", 0.0),), {}, ()), "none")
    with pytest.raises(SpecError, match="nearest names: 'reactive'"):
        simulate_sites(World((site,), (way,), {}, ()), "reactiv")
    with pytest.raises(SpecError, match="0 worlds"):
        make_worlds(0)
    with pytest.raises(SpecError, match="give a world"):
        compare_strategies([])
