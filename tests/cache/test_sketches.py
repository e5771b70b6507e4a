"""Sketches of parts add up to that of the whole, in any order, and survive their way between processes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.cache import sketches as module
from storagering.cache.sketches import (
    NOTHING,
    Sketches,
    SketchSum,
    collect_sketches,
    decode_sketches,
    encode_sketches,
    merge_sketches,
    sketch_batch,
)
from storagering.testing.contracts import make_batch, sample_columns
from storagering.types import Array

NUMBERS = [0.0, -0.0, 1.5, 1.5001, -7.0, 1e300, np.nan, np.inf]


def same(one: Sketches, other: Sketches) -> bool:
    pairs = ((one.keys, other.keys), (one.counts, other.counts), (one.values, other.values))
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)


def tells_the_same(one: Sketches, other: Sketches) -> bool:
    """What of the values is known is known only of all."""
    pairs = [(one.of(number), other.of(number)) for number in range(3)]
    values = all(a.values.tolist() == b.values.tolist() for a, b in pairs)
    return one.keys.tolist() == other.keys.tolist() and one.counts.tolist() == other.counts.tolist() and values


def sketch(numbers: Array) -> Sketches:
    return sketch_batch(make_batch({"a": np.ones(len(numbers)), "x": numbers, "y": -numbers}))


@given(
    st.lists(
        st.lists(st.sampled_from([0.0, -0.0, 1.5, 1.5001, -7.0, 1e300, np.nan, np.inf]), max_size=8),
        min_size=1,
        max_size=6,
    ),
    st.randoms(use_true_random=False),
    st.sampled_from([1, 1 << 16]),
)
@settings(max_examples=50, deadline=None)
def test_parts_add_up_in_any_order(parts: list[list[float]], random: object, waiting: int) -> None:
    made = [sketch(np.array(part)) for part in parts]
    whole = sketch(np.array([x for part in parts for x in part]))
    assert tells_the_same(merge_sketches(made), whole)
    random.shuffle(made)  # type: ignore[attr-defined]
    total = SketchSum()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WAITING", waiting)
        for part in made:
            total.add(decode_sketches(encode_sketches(part)))
    assert tells_the_same(total.total(), whole)


def test_many_numbers_add_up() -> None:
    numbers = np.random.default_rng(0).standard_cauchy(20_000).astype("f4")
    total = SketchSum()
    for part in np.array_split(numbers, 13):
        total.add(sketch(part))
    assert tells_the_same(total.total(), sketch(numbers))
    assert total.total().of(1).counts.sum() == 20_000
    assert (total.total().of(1).counts == total.total().of(2).counts[::-1]).all()


def test_on_their_way_they_stay_as_they_are() -> None:
    found = sketch_batch(make_batch(sample_columns(100)))
    assert same(decode_sketches(encode_sketches(found)), found)
    assert same(decode_sketches(encode_sketches(NOTHING)), NOTHING)
    assert same(decode_sketches(b""), NOTHING)
    many = Sketches(found.keys, found.counts << 40, found.values)
    assert same(decode_sketches(encode_sketches(many)), many)
    numbered = [(n, found.of(n)) for n in range(len(sample_columns(1)))]
    again = collect_sketches(numbered)
    assert (again.keys == found.keys).all()
    assert (again.counts == found.counts).all()
    for number, one in numbered:
        assert again.of(number).values.tolist() == one.values.tolist()


def test_a_sparse_column_has_the_sketch_of_the_dense_one() -> None:
    images = np.where(np.random.default_rng(0).random((40, 6, 6)) < 0.1, 2.5, 0).astype("f4")
    images[0, 0, 0] = -0.0  # is stored
    dense, sparse = (make_batch({"image": images}, sparse=names) for names in ([], ["image"]))
    assert sparse.schema.columns[0].kind == "sparse"
    assert same(sketch_batch(sparse), sketch_batch(dense))
    assert sketch_batch(sparse).of(0).values.tolist() == [0.0, 2.5]
    dark = make_batch({"image": np.zeros((3, 4, 4), "f4")}, sparse=["image"])
    assert sketch_batch(dark).of(0).counts.tolist() == [48]


def test_columns_without_numbers_have_none() -> None:
    found = sketch_batch(make_batch({"s": ["a", "b"], "x": np.ones(2)}))
    assert not len(found.of(0).buckets)
    assert found.of(1).values.tolist() == [1.0]
