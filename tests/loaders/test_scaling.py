"""Standardised batches against NumPy on the whole columns."""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import torch
from tests.loaders.numbered import columns_of

import storagering as sr
from storagering.errors import ResumeMismatchError, SpecError
from storagering.loaders.torch import DataLoader


@pytest.mark.parametrize("shuffle", ["block", "exact", None])
def test_columns_get_mean_0_and_deviation_1(events: sr.Dataset, shuffle: Any) -> None:
    groups = {"x": ["pt", "eta", "one"], "pt": "pt", "number": "number"}
    with DataLoader(events, 70, groups, standardise=["x"], shuffle=shuffle) as loader:
        assert list(loader.scaling) == ["x"]
        scaling = loader.scaling["x"]
        batches = list(loader)
    x, pt, number = (torch.cat([b[key] for b in batches]).numpy() for key in ("x", "pt", "number"))
    columns = columns_of()
    np.testing.assert_array_equal(pt, columns["pt"][number])
    np.testing.assert_allclose(scaling.mean, [columns[c].mean(dtype=np.float64) for c in ("pt", "eta", "one")])
    np.testing.assert_allclose(scaling.std[:2], [columns[c].std(dtype=np.float64) for c in ("pt", "eta")])
    assert scaling.std[2] == 1  # of a constant
    expected = (columns["eta"][number] - scaling.mean[1]) / scaling.std[1]
    np.testing.assert_allclose(x[:, 1], expected, atol=1e-5)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(x.std(0), [1, 1, 0], atol=1e-4)


@pytest.mark.parametrize("jagged", ["flat", "padded"])
def test_true_means_all_floats_and_padding_stays_0(toy_files: list[Path], jagged: Any) -> None:
    made = sr.convert(str(toy_files[0]), name="toy", chunk_bytes=8192, workers=1)
    groups = {"jets": ["Jet_pt", "Jet_eta"], "image": "image", "number": "nVtx", "id": "event"}
    with DataLoader(made, 40, groups, standardise=True, jagged=jagged, shuffle=None, tail="pad") as loader:
        assert set(loader.scaling) == {"jets", "image"}
        batches = list(loader)
    truth = made.arrays(["Jet_pt", "image"])
    jets = ak.to_numpy(ak.flatten(truth.Jet_pt))
    found = [b["jets"][b["jets_mask"]] if jagged == "padded" else b["jets"] for b in batches]
    np.testing.assert_allclose(torch.cat(found)[:, 0], (jets - jets.mean()) / jets.std(), atol=1e-4)
    if jagged == "padded":
        assert all(not b["jets"][~b["jets_mask"]].any() for b in batches)
    image = ak.to_numpy(truth.image)
    whole = torch.cat([b["image"][b["mask"]] for b in batches])
    np.testing.assert_allclose(whole, (image - image.mean()) / image.std(), atol=1e-4)
    assert not batches[-1]["mask"].all()
    assert not batches[-1]["image"][~batches[-1]["mask"]].any()


def test_columns_without_finite_values_stay(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    nothing = np.array([np.nan, np.inf, np.nan], np.float32)
    pq.write_table(pa.table({"x": nothing, "y": np.array([1, 2, 3], np.float32)}), tmp_path / "odd.parquet")
    made = sr.convert(str(tmp_path / "odd.parquet"), name="odd", workers=1)
    with DataLoader(made, 3, ["x", "y"], standardise=True, shuffle=None) as loader:
        (batch,) = loader
        assert (loader.scaling["x"].mean, loader.scaling["x"].std) == ((0.0,), (1.0,))
    np.testing.assert_array_equal(batch["x"], nothing)
    np.testing.assert_allclose(batch["y"], [-(1.5**0.5), 0, 1.5**0.5], rtol=1e-6)


def test_refusals_and_state(events: sr.Dataset) -> None:
    for keys, message in (
        (["number"], "no group 'number' of floats that"),
        (["nope"], "nope"),
        ("pt", "a list of keys"),
    ):
        with pytest.raises(SpecError, match=message):
            DataLoader(events, 50, ["number", "pt"], standardise=keys)
    state = DataLoader(events, 50, ["pt"], standardise=["pt"]).state_dict()
    with pytest.raises(ResumeMismatchError, match="standardise"):
        DataLoader(events, 50, ["pt"]).load_state_dict(state)
