"""Sparse columns: bit for bit the dense ones that they stand for, and nothing kept but what has bits."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.cache.statistics import describe_batch
from storagering.errors import CorruptDataError, SpecError
from storagering.formats.batches import cut_batch, join_batches, raw_size_of, size_of
from storagering.formats.forms import empty_array, to_awkward, to_batch
from storagering.formats.precision import round_batch, with_precision
from storagering.formats.sparse import dense_schema, put_back, sparse_batch, with_sparse
from storagering.testing.contracts import bits, make_batch, sample_columns
from storagering.testing.schemas import random_numbers
from storagering.testing.sparse_contract import sample_images
from storagering.types import Array, Batch

_DTYPES = ("bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")
ENTRIES = 60


@st.composite
def images(draw: st.DrawFn) -> Array:
    """Arrays of any shape and type, with any bits in a share of their places; negative zeros among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(0, 6)), *draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    dtype = np.dtype(draw(st.sampled_from(_DTYPES)))
    image = random_numbers(rng, str(dtype), int(np.prod(shape))).reshape(shape).copy()
    image[rng.random(shape) < 0.2] = -0.0 if dtype.kind in "fc" else 0
    image[rng.random(shape) < draw(st.sampled_from([0, 0.5, 0.9, 1]))] = 0
    return image


@given(image=images())
@settings(deadline=None, max_examples=150)
def test_any_bits_come_back_and_no_zeros_are_kept(image: Array) -> None:
    dense, sparse = make_batch({"image": image}), make_batch({"image": image}, sparse=["image"]).check()
    (column,) = sparse.schema.columns
    offsets, places, values = sparse.arrays["image"]
    assert bits((put_back(column, sparse.arrays["image"]),)) == bits(dense.arrays["image"])
    raw = np.ascontiguousarray(image).view(np.uint8).reshape(-1, image.dtype.itemsize)
    lit = raw.any(axis=1).reshape(len(image), int(np.prod(image.shape[1:])))
    assert np.diff(offsets).tolist() == lit.sum(axis=1).tolist()
    assert places.tolist() == np.nonzero(lit)[1].tolist()
    assert values.tobytes() == raw[lit.reshape(-1)].tobytes()
    assert to_awkward(sparse).image.type == to_awkward(dense).image.type
    back = to_batch(dense.schema, {"image": to_awkward(sparse).image}, len(image))
    assert bits(back.arrays["image"]) == bits(dense.arrays["image"])
    assert bits(sparse_batch(sparse.schema, dense).arrays["image"]) == bits(sparse.arrays["image"])


def test_kinds_shapes_and_types() -> None:
    columns = sample_columns(3) | sample_images(3)
    plain = make_batch(columns).schema
    schema = with_sparse(plain, ["image_*", "fixed_f4"])
    for column, before in zip(schema.columns, plain.columns, strict=True):
        if not column.name.startswith(("image_", "fixed_f4")):
            assert column == before
            continue
        assert (column.kind, column.dtype, column.shape, column.form) == (
            "sparse",
            before.dtype,
            before.shape,
            before.form,
        )
        assert column.is_numeric
        assert [(p.name, p.role, p.shape) for p in column.parts] == [
            ("counts", "counts", ()),
            ("places", "places", ()),
            ("values", "data", ()),
        ]
        wide = "<u4" if column.name == "image_wide" else "<u2"
        assert [p.dtype for p in column.parts] == ["<i8", wide, before.parts[0].dtype]
        assert ak.to_list(empty_array(column)) == []
    assert dense_schema(schema) == plain
    assert make_batch({"image": np.zeros((1, 256, 256))}, ["*"]).schema.columns[0].parts[1].dtype == "<u2"
    assert make_batch({"jets": [[1.0]], "text": ["a"]}).schema.columns[1].shape == ()


def test_refusals() -> None:
    schema = make_batch(sample_columns(3) | {"images": np.zeros((3, 2, 2))}).schema
    with pytest.raises(SpecError, match=r"sparse 'imges' matches no column of fixed shape.*'images'"):
        with_sparse(schema, ["images", "imges"])
    with pytest.raises(SpecError, match="no column of fixed shape"):
        with_sparse(schema, ["flat_f4"])
    column = schema.columns[-1]
    huge = replace(column, parts=(replace(column.parts[0], shape=(1 << 20, 1 << 13)),))
    with pytest.raises(SpecError, match="8,589,934,592 places"):
        with_sparse(replace(schema, columns=(huge,)), ["*"])


@pytest.fixture(scope="module")
def both() -> tuple[Batch, Batch]:
    columns = sample_images(ENTRIES)
    return make_batch(columns), make_batch(columns, ["*"])


def assert_equal(got: Batch, want: Batch) -> None:
    assert {n: bits(got.check().arrays[n]) for n in want.schema.names} == {
        n: bits(want.arrays[n]) for n in want.schema.names
    }


@pytest.mark.parametrize("cuts", [[0, 60], [0, 20, 60], [0, 1, 1, 30, 60, 60]])
def test_cuts_are_those_of_the_dense_ones_and_join_again(both: tuple[Batch, Batch], cuts: list[int]) -> None:
    dense, sparse = both
    parts = [cut_batch(sparse, a, b) for a, b in pairwise(cuts)]
    for part, (a, b) in zip(parts, pairwise(cuts), strict=True):
        assert_equal(part, sparse_batch(sparse.schema, cut_batch(dense, a, b)))
        assert raw_size_of(part) >= size_of(part) * (b > a)
    assert_equal(join_batches(sparse.schema, parts), sparse)


def test_sizes(both: tuple[Batch, Batch]) -> None:
    dense, sparse = both
    assert raw_size_of(dense) == size_of(dense)
    own = {c.name: sum(a.nbytes for a in sparse.arrays[c.name]) for c in sparse.schema.columns}
    whole = {c.name: dense.arrays[c.name][0].nbytes for c in dense.schema.columns}
    assert size_of(sparse) == sum(own.values()) < size_of(dense)
    assert raw_size_of(sparse) == sum(max(own[n], whole[n]) for n in own)
    assert raw_size_of(Batch(sparse.schema, 0)) == 0


def test_statistics_count_what_is_not_kept(both: tuple[Batch, Batch]) -> None:
    for got, want in zip(*(describe_batch(batch) for batch in reversed(both)), strict=True):
        assert (got is None) == (want is None)
        if got is not None and want is not None:
            same = ("count", "nan_count", "inf_count", "zero_count", "min", "max")
            assert [getattr(got, f) for f in same] == [getattr(want, f) for f in same]
            assert (got.mean is None) == (want.mean is None)
            if got.mean is not None:  # doubles near the end of their range have none
                largest = max(abs(want.min or 0), abs(want.max or 0))
                assert got.mean == pytest.approx(want.mean, rel=1e-12, abs=1e-15 * largest)
                assert got.std == pytest.approx(want.std, rel=1e-12)
    full = make_batch({"image": np.ones((3, 4))}, ["*"])
    assert describe_batch(full)[0] == describe_batch(make_batch({"image": np.ones((3, 4))}))[0]


def test_values_are_rounded_like_dense_ones(both: tuple[Batch, Batch]) -> None:
    dense, sparse = ((with_precision(b.schema, [("*", 5)]), b) for b in both)
    rounded = [round_batch(Batch(schema, ENTRIES, batch.arrays)) for schema, batch in (dense, sparse)]
    for column in rounded[1].schema.columns:
        got = put_back(column, rounded[1].arrays[column.name])
        assert bits((got,)) == bits(rounded[0].arrays[column.name]), column.name
    assert rounded[1].schema.columns[10].mantissa_bits == 5


def _broken(places: Any, values: Any, offsets: Any) -> Batch:
    batch = make_batch({"image": np.array([[0, 1], [2, 3]], "f4")}, ["*"])
    arrays = np.array(offsets, "i8"), np.array(places, "u2"), np.array(values, "f4")
    return Batch(batch.schema, 2, {"image": arrays})


@pytest.mark.parametrize(
    ("places", "values", "offsets", "words"),
    [
        ([1, 0, 2], [1, 2, 3], [0, 1, 3], r"place 2 is not in arrays of shape \(2,\)"),
        ([1, 0], [1, 2, 3], [0, 1, 3], "3 values do not fit"),
        ([1, 0, 1], [1, 2, 3], [0, 1, 2], "3 values do not fit"),
        ([1, 0, 1], [1, 2, 3], [0, 4, 3], "3 values do not fit"),
        ([1, 0, 1], [1, 2, 3], [1, 1, 3], "3 values do not fit"),
        ([1, 0, 1], [1, 2, 3], [0, 3], "1 entries, not 2"),
    ],
)
def test_parts_that_do_not_fit_are_found(places: Any, values: Any, offsets: Any, words: str) -> None:
    _broken([1, 0, 1], [1, 2, 3], [0, 1, 3]).check()
    with pytest.raises(CorruptDataError, match=words):
        _broken(places, values, offsets).check()
