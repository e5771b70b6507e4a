import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storagering.loaders.plan import BatchCut, Shuffle, in_split, plan_epoch

sizes = st.lists(st.integers(0, 50), min_size=0, max_size=12)
shuffles = st.sampled_from(["block", "exact", None])


def sequence(
    chunk_entries: list[int], shuffle: Shuffle, *, seed: int = 0, epoch: int = 0, mix_chunks: int = 3
) -> list[int]:
    """Entry numbers of an epoch in the order of use."""
    first = np.concatenate([[0], np.cumsum(chunk_entries)])
    plan = plan_epoch(chunk_entries, seed=seed, epoch=epoch, shuffle=shuffle, mix_chunks=mix_chunks)
    order: list[int] = []
    for window, chunks in enumerate(plan.windows):
        numbers = np.concatenate([np.arange(first[c], first[c + 1]) for c in chunks] or [np.arange(0)])
        order += numbers[plan.rows(window)].tolist()
    assert plan.num_entries == len(order)
    return order


@given(sizes, shuffles, st.integers(0, 5), st.integers(0, 5), st.integers(1, 5))
def test_each_entry_exactly_once(chunks: list[int], shuffle: Shuffle, seed: int, epoch: int, mix: int) -> None:
    order = sequence(chunks, shuffle, seed=seed, epoch=epoch, mix_chunks=mix)
    assert sorted(order) == list(range(sum(chunks)))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    chunks = [40] * 10
    for shuffle in ("block", "exact"):
        same = sequence(chunks, shuffle, seed=1, epoch=2)
        assert same == sequence(chunks, shuffle, seed=1, epoch=2)
        assert same != sequence(chunks, shuffle, seed=1, epoch=3)
        assert same != sequence(chunks, shuffle, seed=2, epoch=2)
    assert sequence(chunks, None) == list(range(400))


def test_order_is_the_recorded_one() -> None:
    """A change of this order makes saved loader states wrong: it needs a new fingerprint."""
    assert sequence([3, 2, 4], "block", seed=7, epoch=1, mix_chunks=2) == [2, 0, 1, 4, 3, 8, 6, 7, 5]
    assert sequence([3, 2, 4], "exact", seed=7, epoch=1) == [0, 7, 1, 8, 6, 4, 3, 2, 5]


def test_exact_is_uniform() -> None:
    """Where entry 0 lands over many epochs is flat: chi2 of 10 bins within 5 sigma."""
    places = [sequence([5, 5], "exact", epoch=epoch).index(0) for epoch in range(2000)]
    chi2 = ((np.bincount(places, minlength=10) - 200.0) ** 2 / 200.0).sum()
    assert chi2 < 9 + 5 * np.sqrt(18)


def test_windows_are_of_similar_size() -> None:
    plan = plan_epoch([10] * 17, seed=0, epoch=0, shuffle="block", mix_chunks=16)
    assert [len(w) for w in plan.windows] == [8, 9]


@given(st.integers(0, 200), st.integers(1, 17), st.integers(1, 5), st.booleans())
def test_ranks_cover_the_sequence_in_equal_steps(entries: int, batch: int, world: int, drop_last: bool) -> None:
    cuts = [BatchCut(entries, batch, rank, world, drop_last) for rank in range(world)]
    assert len({len(cut) for cut in cuts}) == 1
    seen = [n for step in range(len(cuts[0])) for cut in cuts for n in range(*cut.entries(step))]
    assert seen == list(range(entries - entries % (batch * world) if drop_last else entries))
    for step in range(len(cuts[0]) - 1):
        assert all(stop - start == batch for start, stop in (cut.entries(step) for cut in cuts))


@given(sizes, st.integers(0, 300), st.integers(0, 300))
def test_pieces_are_the_range(chunks: list[int], start: int, length: int) -> None:
    plan = plan_epoch(chunks, seed=0, epoch=0, shuffle="block", mix_chunks=2)
    start, stop = min(start, plan.num_entries), min(start + length, plan.num_entries)
    found = [plan.starts[w] + n for w, a, b in plan.pieces(start, stop) for n in range(a, b)]
    assert found == list(range(start, stop))


def test_splits_are_disjoint_complete_and_of_the_right_size() -> None:
    train, test = in_split(0, 100_000, (0.0, 0.8)), in_split(0, 100_000, (0.8, 1.0))
    assert not (train & test).any()
    assert (train | test).all()
    assert train.mean() == pytest.approx(0.8, abs=0.01)
    np.testing.assert_array_equal(train[500:600], in_split(500, 600, (0.0, 0.8)))
