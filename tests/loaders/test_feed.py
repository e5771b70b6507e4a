import numpy as np
import pytest

import storagering as sr
from storagering.errors import SchemaError
from storagering.loaders.feed import make_groups
from storagering.testing.contracts import make_batch


def test_requests(dataset: sr.Dataset) -> None:
    everything = make_groups(dataset.schema, None)
    assert {g.key for g in everything} == set(dataset.schema.names)
    names = make_groups(dataset.schema, ["weight", "MET_pt"])
    assert [g.key for g in names] == ["weight", "MET_pt"]
    stack, alone = make_groups(dataset.schema, {"x": ["MET_pt", "nVtx"], "w": "weight"})
    assert (stack.stacked, stack.row_shape, stack.dtype) == (True, (2,), np.dtype("f4"))
    assert (alone.stacked, alone.row_shape, alone.dtype) == (False, (), np.dtype("f8"))


def test_sparse_columns_are_dense_in_a_batch() -> None:
    image = np.zeros((2, 3, 4), "u2")
    schema = make_batch({"image": image, "x": np.zeros(2), "other": image[:, :, :1]}, sparse=["image"]).schema
    group, flat, fixed = make_groups(schema, None)
    assert (group.sparse, group.jagged, group.row_shape, group.dtype) == (True, False, (3, 4), np.dtype("i4"))
    assert (flat.sparse, fixed.sparse, fixed.row_shape) == (False, False, (3, 1))
    with pytest.raises(SchemaError, match="cannot be stacked"):
        make_groups(schema, {"x": ["image"]})
    with pytest.raises(SchemaError, match="no tensor can hold it"):
        make_groups(make_batch({"z": np.zeros((2, 2), "c8")}, ["z"]).schema, ["z"])


def test_unsigned_integers_become_signed(dataset: sr.Dataset) -> None:
    run, event = make_groups(dataset.schema, ["run", "event"])
    assert (run.dtype, event.dtype) == (np.dtype("i8"), np.dtype("i8"))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (["MET_p"], "nearest names: 'MET_pt'"),
        ("MET_pt", "give a list"),
        (["MET_pt", "MET_pt"], "twice"),
        ({"x": ["MET_pt", "Jet_pt"]}, "mixes kinds"),
        ({"x": ["image"]}, "cannot be stacked"),
        ({"x": []}, "names no columns"),
    ],
)
def test_refusals(dataset: sr.Dataset, request_: object, words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        make_groups(dataset.schema, request_)  # type: ignore[arg-type]
