"""Collections: columns with the same lists share one array of offsets, on disk and in memory."""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest

from storagering.api import convert
from storagering.cache.dataset import Dataset
from storagering.loaders.feed import make_groups
from storagering.loaders.torch import DataLoader
from storagering.testing.toys import toy_columns, write_toy_rntuple, write_toy_tree

JETS = ["Jet_pt", "Jet_eta", "Jet_id"]


@pytest.fixture(params=["tree", "rntuple"])
def toy(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    write = write_toy_tree if request.param == "tree" else write_toy_rntuple
    write(tmp_path / "toy.root", entries=1000)
    return str(tmp_path / "toy.root")


def stored_bytes(dataset: Dataset) -> int:
    return sum(chunk.nbytes for chunk in dataset.manifest.chunks)


@pytest.mark.parametrize("options", [{}, {"where": "nVtx > 30"}, {"precision": {"Jet_*": 8}}])
def test_offsets_are_decoded_once(toy: str, options: dict[str, Any]) -> None:
    dataset = convert(toy, name="toy", chunk_bytes=20_000, define={"tight": "Jet_pt[Jet_pt > 60]"}, **options)
    assert len(dataset.manifest.chunks) > 1
    for chunk in dataset.manifest.chunks:
        reader = dataset.open_chunk(chunk)
        first, *others = (reader.read_offsets(name) for name in JETS)
        assert all(other is first for other in others)
        assert all(reader.read_column(name)[0] is first for name in JETS)
        assert reader.read_offsets("tight") is not first
    for batch in dataset.batches(JETS):
        assert len({id(batch.arrays[name][0]) for name in JETS}) == 1


def test_counts_are_stored_once(toy: str) -> None:
    alone = [stored_bytes(convert(toy, name=f"c{n}", columns=[name])) for n, name in enumerate(JETS)]
    counts = stored_bytes(convert(toy, name="n", columns=["nJet"]))
    assert stored_bytes(convert(toy, name="all", columns=JETS)) < sum(alone) - counts


@pytest.mark.parametrize("store", ["zarr", "parquet"])
def test_collections_are_zipped_and_stacked(toy: str, store: Any) -> None:
    dataset = convert(toy, name="toy", format=store, chunk_bytes=20_000)
    arrays, columns = dataset.arrays(JETS), toy_columns(1000)
    jets = ak.zip({name.removeprefix("Jet_"): arrays[name] for name in JETS})
    assert ak.array_equal(jets.pt[jets.id > 2], columns["Jet_pt"][columns["Jet_id"] > 2])
    (group,) = make_groups(dataset.schema, {"jets": JETS})
    assert group.jagged
    with DataLoader(dataset, batch_size=100, columns={"jets": JETS}, jagged="padded", shuffle=None) as loader:
        batch = next(iter(loader))
    lead = ak.to_numpy(ak.pad_none(columns["Jet_eta"][:100], 1)[:, 0])
    assert np.array_equal(batch["jets"][:, 0, 1].numpy(), np.ma.filled(lead, 0).astype(np.float32))
