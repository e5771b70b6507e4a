"""Weights: what they come to, entry by entry, against NumPy on the whole columns."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.loaders.numbered import columns_of

import storagering as sr
from storagering.errors import ResumeMismatchError, SchemaError, SpecError
from storagering.loaders.torch import DataLoader
from storagering.loaders.weights import Weights
from storagering.types import Array

EDGES = [0.0, 50, 100, 200, 400, 800]


def weights_of(events: sr.Dataset, weights: Weights, **options: Any) -> Array:
    """The weight that each entry was delivered with, NaN for those that were not."""
    found = np.full(events.num_entries, np.nan)
    with DataLoader(events, 70, ["number"], weights=weights, **options) as loader:
        for batch in loader:
            assert set(batch) == {"number", "weight"}
            assert batch["weight"].dtype.is_floating_point
            assert batch["weight"].shape == batch["number"].shape
            assert batch["weight"].element_size() == 4
            found[batch["number"].numpy()] = batch["weight"].numpy()
    return found


def histogram(weights: Array, which: Array, edges: Any = EDGES) -> Array:
    return np.histogram(columns_of()["pt"][which], edges, weights=weights[which])[0]


@pytest.mark.parametrize("shuffle", ["block", "exact", None])
def test_a_column_of_weights_is_taken_as_it_is(events: sr.Dataset, shuffle: Any) -> None:
    found = weights_of(events, Weights(column="own"), shuffle=shuffle)
    np.testing.assert_array_equal(found, columns_of()["own"].astype(np.float32))


def test_factors_of_classes(events: sr.Dataset) -> None:
    found = weights_of(events, Weights(column="own", classes={1: 4.0}))
    columns = columns_of()
    expected = columns["own"] * np.where(columns["label"] == 1, 4.0, 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("own", [None, "own"])
def test_balanced_classes_have_equal_sums(events: sr.Dataset, own: str | None) -> None:
    found = weights_of(events, Weights(column=own, classes="balanced"))
    columns = columns_of()
    sums = [found[columns["label"] == c].sum() for c in (0, 1)]
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-5)
    np.testing.assert_allclose(sum(sums), columns["own"].sum() if own else events.num_entries, rtol=1e-5)


def test_flat_in_one_variable(events: sr.Dataset) -> None:
    found = weights_of(events, Weights(bins={"pt": EDGES}, clip=1e6))
    columns = columns_of()
    for c in (0, 1):
        sums = histogram(found, columns["label"] == c)
        np.testing.assert_allclose(sums, sums[0], rtol=1e-4)
        inside = (columns["label"] == c) & (columns["pt"] <= EDGES[-1])
        np.testing.assert_allclose(sums.sum(), inside.sum(), rtol=1e-5)
    outside = columns["pt"] > EDGES[-1]
    assert outside.any()
    assert not found[outside].any()


def test_the_distribution_of_a_reference_class_in_two_variables(events: sr.Dataset) -> None:
    bins = {"pt": [0.0, 100, 300, 5000], "eta": [-10.0, 0.0, 10.0]}
    found = weights_of(events, Weights(column="own", bins=bins, target=1, clip=1e6, classes="balanced"))
    columns = columns_of()
    shapes = []
    for c, weights in ((0, found), (1, found), (1, columns["own"])):
        which = columns["label"] == c
        counts = np.histogram2d(
            columns["pt"][which], columns["eta"][which], [bins["pt"], bins["eta"]], weights=weights[which]
        )[0]
        shapes.append(counts / counts.sum())
    np.testing.assert_allclose(shapes[0], shapes[2], rtol=1e-4)
    np.testing.assert_allclose(shapes[1], shapes[2], rtol=1e-4)
    np.testing.assert_allclose(found[columns["label"] == 0].sum(), found[columns["label"] == 1].sum(), rtol=1e-5)


def test_the_largest_weights_are_clipped(events: sr.Dataset) -> None:
    columns = columns_of()
    free, cut = (weights_of(events, Weights(bins={"pt": EDGES}, clip=clip)) for clip in (1e6, 1.5))
    for c in (0, 1):
        which = (columns["label"] == c) & (columns["pt"] <= EDGES[-1])
        assert free[which].max() > 1.7
        assert cut[which].max() == pytest.approx(1.5)
        np.testing.assert_allclose(cut[which].sum(), which.sum(), rtol=1e-5)


def test_weights_are_those_of_the_entries_that_take_part(events: sr.Dataset) -> None:
    columns = columns_of()
    taking = columns["pt"] < 100
    found = weights_of(events, Weights(classes="balanced"), where="pt < 100")
    assert (np.isnan(found) == ~taking).all()
    np.testing.assert_allclose(np.nansum(found[columns["label"] == 1]), taking.sum() / 2, rtol=1e-5)


def test_padding_has_no_weight(events: sr.Dataset) -> None:
    weights = Weights(classes={0: 2.0})
    for shuffle in ("block", "exact"):
        *_, last = DataLoader(events, 300, ["number"], weights=weights, tail="pad", shuffle=shuffle)
        assert not last["mask"].all()
        assert (last["weight"] > 0).tolist() == last["mask"].tolist()


def test_the_same_weights_on_every_rank_and_thread(events: sr.Dataset) -> None:
    weights = Weights(column="own", bins={"pt": EDGES}, classes="balanced")
    whole = weights_of(events, weights, threads=4)
    for rank in (0, 1):
        part = weights_of(events, weights, rank=rank, world_size=2, threads=1)
        np.testing.assert_array_equal(part[~np.isnan(part)], whole[~np.isnan(part)])


def test_names_of_classes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pq.write_table(pa.table({"x": np.arange(50)}), tmp_path / f"{name}.parquet")
    made = sr.convert({"top": str(tmp_path / "a.parquet"), "qcd": str(tmp_path / "b.parquet")}, name="two", workers=1)
    with DataLoader(made, 100, ["label"], weights=Weights(classes={"qcd": 3.0, "top": 0.5})) as loader:
        for batch in loader:
            assert batch["weight"].tolist() == [(0.5, 3.0)[c] for c in batch["label"].tolist()]
    with pytest.raises(SpecError, match="no class 'tob'"):
        DataLoader(made, weights=Weights(classes={"tob": 1.0}))


def test_they_are_part_of_the_state(events: sr.Dataset) -> None:
    weights = Weights(classes="balanced")
    state = json.loads(json.dumps(DataLoader(events, 50, weights=weights).state_dict()))
    DataLoader(events, 50, weights=Weights(classes="balanced")).load_state_dict(state)
    with pytest.raises(ResumeMismatchError, match="weights"):
        DataLoader(events, 50).load_state_dict(state)


def test_what_is_wrong_is_named(events: sr.Dataset) -> None:
    for wrong, message in (
        ({}, "give a column"), ({"classes": "even"}, "'balanced'"), ({"classes": {0: -1.0}}, "at least 0"),
        ({"bins": {"pt": [1, 0]}}, "rise"), ({"bins": {"a": [0, 1], "b": [0, 1], "c": [0, 1]}}, "one or two"),
        ({"column": "own", "target": 1}, "needs bins"), ({"column": "own", "clip": 0.5}, "at least 1"),
    ):  # fmt: skip
        with pytest.raises(SpecError, match=message):
            Weights(**wrong)
    with pytest.raises(SchemaError, match="no column 'ownn'"):
        DataLoader(events, weights=Weights(column="ownn"))
    with pytest.raises(SchemaError, match="jagged"):
        DataLoader(events, weights=Weights(column="jets"))
    with pytest.raises(SchemaError, match="no column 'kind' of classes"):
        DataLoader(events, weights=Weights(classes="balanced", label="kind"))
    with pytest.raises(SpecError, match="class 0 has no entry in any bin"):
        DataLoader(events, weights=Weights(bins={"pt": [-2, -1]}))
    with pytest.raises(SpecError, match="no entry of class 7"):
        DataLoader(events, weights=Weights(bins={"pt": EDGES}, target=7))
    with pytest.raises(SchemaError, match="the key 'weight'"):
        DataLoader(events, columns={"weight": "own"}, weights=Weights(column="own"))
    with pytest.raises(SpecError, match=r"made with Weights"):
        DataLoader(events, weights="own")  # type: ignore[arg-type]
