"""Cutting, joining and permuting batches against Awkward Array doing the same."""

from itertools import pairwise

import awkward as ak
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.formats.batches import cut_batch, join_batches, size_of, take_batch
from storagering.formats.forms import to_awkward, to_batch
from storagering.testing.contracts import make_batch, sample_columns, sample_unions
from storagering.testing.schemas import tables
from storagering.testing.sparse_contract import sample_images
from storagering.types import Batch

ENTRIES = 60
CUTS = [(0, 60), (0, 0), (60, 60), (0, 1), (59, 60), (7, 31), (31, 60)]


@pytest.fixture(scope="module")
def batch() -> Batch:
    return make_batch(sample_columns(ENTRIES) | sample_unions(ENTRIES))


def assert_equal(got: Batch, want: Batch) -> None:
    assert got.num_entries == want.num_entries
    for column in want.schema.columns:
        for have, expected in zip(got.check().arrays[column.name], want.arrays[column.name], strict=True):
            assert (have.dtype, have.shape) == (expected.dtype, expected.shape), column.name
            assert have.tobytes() == expected.tobytes(), column.name


@pytest.mark.parametrize(("start", "stop"), CUTS)
def test_a_cut_equals_a_slice(batch: Batch, start: int, stop: int) -> None:
    arrays = to_awkward(batch)[start:stop]
    want = to_batch(batch.schema, {name: arrays[name] for name in batch.schema.names}, stop - start)
    assert_equal(cut_batch(batch, start, stop), want)


@pytest.mark.parametrize("cuts", [[0, 60], [0, 20, 60], [0, 1, 1, 30, 60, 60]])
def test_cuts_join_again(batch: Batch, cuts: list[int]) -> None:
    parts = [cut_batch(batch, a, b) for a, b in pairwise(cuts)]
    joined = join_batches(batch.schema, parts)
    assert_equal(joined, batch)
    assert size_of(joined) == size_of(batch)


def test_shared_offsets_stay_shared() -> None:
    counts = np.random.default_rng(0).poisson(2.0, 50)
    jets = {n: ak.unflatten(np.arange(counts.sum()), counts) for n in ("pt", "eta")}
    batch = make_batch(jets)
    batch = Batch(batch.schema, 50, {n: (batch.arrays["pt"][0], batch.arrays[n][1]) for n in jets})
    parts = [cut_batch(batch, 0, 20), cut_batch(batch, 20, 50)]
    for found in (*parts, join_batches(batch.schema, parts)):
        assert found.arrays["pt"][0] is found.arrays["eta"][0]


def test_values_of_a_cut_are_not_copied() -> None:
    batch = make_batch({"x": np.arange(10.0), "jets": ak.Array([[1.0, 2.0], [3.0]] * 5)})
    part = cut_batch(batch, 2, 9)
    assert np.shares_memory(part.arrays["x"][0], batch.arrays["x"][0])
    assert np.shares_memory(part.arrays["jets"][1], batch.arrays["jets"][1])


def shuffled(entries: int, seed: int = 0) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(entries)


@pytest.mark.parametrize("rows", [shuffled(ENTRIES), shuffled(ENTRIES)[:7], np.zeros(0, np.int64), np.array([5, 5, 0])])
def test_taking_equals_indexing(batch: Batch, rows: npt.NDArray[np.int64]) -> None:
    arrays = to_awkward(batch)[rows]
    want = to_batch(batch.schema, {name: arrays[name] for name in batch.schema.names}, len(rows))
    assert_equal(take_batch(batch, rows), want)


@given(tables(), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_permutation_and_back_is_nothing(batch: Batch, seed: int) -> None:
    rows = shuffled(batch.num_entries, seed)
    there = take_batch(batch, rows).check()
    back = take_batch(there, np.argsort(rows))
    assert ak.array_equal(to_awkward(back), to_awkward(batch), equal_nan=True, same_content_types=True)


def test_taking_sparse_columns() -> None:
    images = sample_images(ENTRIES, ["f4", "u1"])
    rows = shuffled(ENTRIES)[:40]
    found = take_batch(make_batch(images, sparse=["*"]), rows).check()
    assert_equal(found, make_batch({name: ak.Array(array)[rows] for name, array in images.items()}, sparse=["*"]))


def test_taken_columns_share_their_offsets() -> None:
    jets = {n: ak.Array([[1.0], [], [2.0, 3.0]]) for n in ("pt", "eta")}
    batch = make_batch(jets)
    batch = Batch(batch.schema, 3, {n: (batch.arrays["pt"][0], batch.arrays[n][1]) for n in jets})
    found = take_batch(batch, np.array([2, 0, 1]))
    assert found.arrays["pt"][0] is found.arrays["eta"][0]
    assert found.arrays["eta"][1].tolist() == [2.0, 3.0, 1.0]
