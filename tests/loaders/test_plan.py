import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.loaders.orders import batches_of, sequence_of

from storagering.loaders.kernels import permuted, shuffle_segments
from storagering.loaders.plan import EpochPlan, Shuffle, Tail, in_split, plan_epoch

SHUFFLES: tuple[Shuffle, ...] = ("block", "exact", None)
TAILS: tuple[Tail, ...] = ("short", "drop", "pad", "wrap")
sizes = st.lists(st.integers(0, 50), min_size=0, max_size=12)


def make(entries: list[int], batch_size: int = 8, **options: Any) -> EpochPlan:
    chosen = {"window_entries": 40, "seed": 0, "epoch": 0, **options}
    return plan_epoch(entries, batch_size=batch_size, **chosen)


def strata_of(entries: list[int], parts: int) -> list[list[int]]:
    return [list(range(n, len(entries), parts)) for n in range(parts)]


@settings(max_examples=150, deadline=None)
@given(
    sizes, st.integers(1, 90), st.sampled_from(SHUFFLES), st.sampled_from(TAILS), st.integers(1, 5), st.integers(0, 9)
)
def test_each_entry_once(entries: list[int], batch: int, shuffle: Shuffle, tail: Tail, parts: int, seed: int) -> None:
    plan = make(entries, batch, shuffle=shuffle, tail=tail, strata=strata_of(entries, parts), seed=seed)
    found, total = batches_of(plan), sum(entries)
    assert len(found) == plan.num_steps == (total // batch if tail == "drop" else -(-total // batch))
    assert all(len(b) == batch for b in found[:-1])
    assert all(len(b) == batch for b in found[-1:]) or tail == "short"
    numbers = sorted(n for b in found for n in b.tolist() if n >= 0)
    if tail == "drop":
        assert len(set(numbers)) == len(numbers) == total - total % batch
    else:
        assert set(numbers) == set(range(total))
        assert len(numbers) == (plan.num_steps * batch if tail == "wrap" else total)


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(1, 6), st.sampled_from(SHUFFLES), st.sampled_from(TAILS), st.integers(1, 4))
def test_a_global_batch_is_the_same_for_every_world_size(
    entries: list[int], sixteenths: int, shuffle: Shuffle, tail: Tail, parts: int
) -> None:
    plan = make(entries, 24 * sixteenths, shuffle=shuffle, tail=tail, strata=strata_of(entries, parts))
    whole = [sorted(batch.tolist()) for batch in batches_of(plan)]
    for world in (2, 3, 4, 8):
        ranks = [batches_of(plan, rank, world) for rank in range(world)]
        assert {len(batches) for batches in ranks} == {plan.num_steps}
        together = [sorted(np.concatenate(parts).tolist()) for parts in zip(*ranks, strict=True)]
        assert together == whole
        if tail != "short":
            assert {len(batch) for batches in ranks for batch in batches} <= {plan.batch_size // world}


def test_ranks_read_only_what_they_need() -> None:
    """With 64 streams, the ranks of any world size that divides them share none of a mixed dataset's entries."""
    plan = make([1000] * 16, 1024, window_entries=8000)
    for world in (2, 8, 64):
        read = [
            {(p.unit, n) for p in plan.share(0, rank, world).pieces for n in range(p.start, p.stop)}
            for rank in range(world)
        ]
        assert sum(map(len, read)) == len(set().union(*read)) == 8 * 1024


def test_order_depends_on_seed_and_epoch_alone() -> None:
    for shuffle in ("block", "exact"):
        same = sequence_of(make([40] * 10, shuffle=shuffle, seed=1, epoch=2))
        assert same == sequence_of(make([40] * 10, shuffle=shuffle, seed=1, epoch=2))
        assert same != sequence_of(make([40] * 10, shuffle=shuffle, seed=1, epoch=3))
        assert same != sequence_of(make([40] * 10, shuffle=shuffle, seed=2, epoch=2))
    assert sequence_of(make([40] * 10, shuffle=None)) == list(range(400))


def test_order_is_the_recorded_one() -> None:
    """A change of this order makes saved loader states wrong: it needs a new ORDER_VERSION."""
    assert sequence_of(make([3, 2, 4], 4, seed=7, epoch=1, strata=[[0], [1, 2]])) == [3, 5, 6, 1, 2, 4, 0, 8, 7]
    assert sequence_of(make([3, 2, 4], 4, seed=7, epoch=1, shuffle="exact")) == [3, 4, 0, 6, 2, 1, 5, 8, 7]


@pytest.mark.parametrize("shuffle", ["block", "exact"])
def test_shuffles_are_uniform(shuffle: Shuffle) -> None:
    """Which batch entry 0 comes in is flat over many epochs: chi2 of 10 bins within 5 sigma."""
    found = []
    for epoch in range(1000):
        plan = make([80, 80], 16, shuffle=shuffle, epoch=epoch)
        found.append(next(step for step, batch in enumerate(batches_of(plan)) if 0 in batch))
    chi2 = ((np.bincount(found, minlength=10) - 100.0) ** 2 / 100.0).sum()
    assert chi2 < 9 + 5 * np.sqrt(18)


def test_permutations_of_all_sizes() -> None:
    for size in (1, 2, 3, 64, 65, 1000, 100_003):
        found = np.empty(size, np.int64)
        permuted(np.arange(size), size, np.uint64(5), found)
        assert sorted(found.tolist()) == list(range(size))
        if size > 60:  # neighbours, and places and values, are not correlated
            assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 5 / np.sqrt(size)
            assert abs(np.corrcoef(found, np.arange(size))[0, 1]) < 5 / np.sqrt(size)
    counts: dict[tuple[int, ...], int] = {}
    for key in range(2400):
        values = np.arange(4)
        shuffle_segments(values, np.array([0, 4]), 0, np.uint64(key))
        counts[tuple(values.tolist())] = counts.get(tuple(values.tolist()), 0) + 1
    assert len(counts) == 24
    assert sum((n - 100) ** 2 / 100 for n in counts.values()) < 23 + 5 * np.sqrt(46)


def test_strata_come_in_proportion() -> None:
    """Every window, and every batch as well as can be, has the shares of the whole, however small a stratum is."""
    entries = [1000] * 12 + [10, 300]
    strata = [list(range(8)), [8, 9, 10, 11], [12, 13]]
    plan = make(entries, 128, window_entries=2000, strata=strata)
    kind = np.repeat([0] * 8 + [1] * 4 + [2, 2], entries)
    total = sum(entries)
    for number in range(plan.num_windows - 1):
        share = plan.share(number, 0, 1)
        count = share.bounds[-1]
        sizes = [sum(p.stop - p.start for p in share.pieces if p.unit in units) for units in strata]
        assert sizes == pytest.approx([count * n / total for n in (8000, 4000, 310)], abs=1.01)
    shares = np.array([np.bincount(kind[batch], minlength=3) for batch in batches_of(plan)[:-1]]) / 128
    ideal = np.array([8000, 4000]) / total
    noise = shares[:, :2].std(axis=0) / np.sqrt(ideal * (1 - ideal) / 128)
    assert (noise < 1.2).all()


def test_any_step_is_found_at_once() -> None:
    plan = make([100_000] * 500, 1000, window_entries=600_000)
    whole = plan.share(83, 0, 1)
    assert plan.window_of(83 * 600 + 7) == (83, 7)
    assert plan.units(83) == [piece.unit for piece in whole.pieces]
    assert len(whole.pieces) <= 8


def test_an_order_that_is_given_is_kept() -> None:
    order = [3, 0, 2, 1]
    plan = make([10, 20, 30, 40], 10, window_entries=40, order=order)
    assert plan.strata == (tuple(order),)
    assert plan.units(0) == [3]
    assert sorted(itertools.chain(*batches_of(plan))) == list(range(100))


def test_splits_are_disjoint_complete_and_of_the_right_size() -> None:
    train, test = in_split(0, 100_000, (0.0, 0.8)), in_split(0, 100_000, (0.8, 1.0))
    assert not (train & test).any()
    assert (train | test).all()
    assert train.mean() == pytest.approx(0.8, abs=0.01)
    np.testing.assert_array_equal(train[500:600], in_split(500, 600, (0.0, 0.8)))
