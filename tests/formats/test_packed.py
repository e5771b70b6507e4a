"""Batches as plain bytes come back as they were."""

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings

from storagering.errors import CorruptDataError
from storagering.formats.packed import pack_batch, unpack_batch
from storagering.testing.contracts import make_batch, sample_columns, sample_unions
from storagering.testing.schemas import tables
from storagering.types import Batch


def packed(batch: Batch) -> bytes:
    return b"".join(pack_batch(batch))


def check_round_trip(batch: Batch) -> None:
    found = unpack_batch(batch.schema, packed(batch)).check()
    assert len(found) == len(batch)
    for name, arrays in batch.arrays.items():
        for have, want in zip(found.arrays[name], arrays, strict=True):
            assert (have.dtype, have.shape, have.tobytes()) == (want.dtype, want.shape, want.tobytes())


def test_every_kind_of_column() -> None:
    check_round_trip(make_batch(sample_columns(30) | sample_unions(30)))


@given(tables())
@settings(max_examples=30, deadline=None)
def test_any_batch(batch: Batch) -> None:
    check_round_trip(batch)


def test_offsets_that_are_shared_are_packed_once() -> None:
    jets = {n: ak.Array([[1.0], [], [2.0, 3.0]]) for n in ("pt", "eta")}
    batch = make_batch(jets)
    shared = Batch(batch.schema, 3, {n: (batch.arrays["pt"][0], batch.arrays[n][1]) for n in jets})
    assert len(packed(shared)) == len(packed(batch)) - batch.arrays["pt"][0].nbytes
    found = unpack_batch(shared.schema, packed(shared))
    assert found.arrays["pt"][0] is found.arrays["eta"][0]


@pytest.mark.parametrize("cut", [0, 7, 30])
def test_bytes_that_are_no_batch_are_refused(cut: int) -> None:
    batch = make_batch({"x": np.arange(10.0)})
    with pytest.raises(CorruptDataError, match="do not hold a batch of 1 columns"):
        unpack_batch(batch.schema, packed(batch)[:cut])
