"""Cutting and joining batches against Awkward Array doing the same."""

from itertools import pairwise

import awkward as ak
import numpy as np
import pytest

from storagering.formats.batches import cut_batch, join_batches, size_of
from storagering.formats.forms import to_awkward, to_batch
from storagering.testing.contracts import make_batch, sample_columns, sample_unions
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
