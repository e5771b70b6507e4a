"""``layout="rows"``: all that is done with datasets works, and the values are those of the usual layout."""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest

from storagering import append, convert, export, fill, open_dataset, sql, verify
from storagering.cache.dataset import Dataset
from storagering.cli import main
from storagering.errors import ChecksumError, SpecError
from storagering.loaders.torch import DataLoader
from storagering.testing.toys import write_toy_tree


@pytest.fixture
def toy(tmp_path: Path) -> str:
    write_toy_tree(tmp_path / "toy.root", entries=1000, basket_entries=100)
    return str(tmp_path / "toy.root")


def make(toy: str, name: str = "rows", **options: Any) -> Dataset:
    usual: dict[str, Any] = {"layout": "rows", "chunk_bytes": 20_000, "workers": 1}
    return convert(toy, name=name, **usual | options)


def test_the_values_are_the_same_and_take_less_room(toy: str) -> None:
    rows, columns = make(toy), make(toy, "usual", layout="columns", profile="fast")
    assert len(rows.manifest.chunks) > 2
    for name in columns.schema.names:
        assert ak.array_equal(rows.arrays([name]), columns.arrays([name]), equal_nan=True), name
    flat = [c.name for c in rows.schema.columns if c.kind == "flat"]
    for chunk in rows.manifest.chunks:
        packed = rows.open_chunk(chunk).packed_rows()
        assert packed is not None
        assert list(packed.fields) == flat
        raw = sum(np.dtype(c.parts[0].dtype).itemsize for c in rows.schema.columns if c.kind == "flat")
        assert 4 * packed.words.shape[1] < raw
    assert rows.manifest.statistics == columns.manifest.statistics


def test_tables_exports_and_batches_are_the_same(toy: str, tmp_path: Path) -> None:
    make(toy), make(toy, "usual", layout="columns")
    query = "SELECT count(*), sum(event), max(MET_pt), sum(nJet) FROM {} WHERE MET_pt > 20"
    assert sql(query.format("rows")).to_pylist() == sql(query.format("usual")).to_pylist()
    for name in ("rows", "usual"):
        export(name, str(tmp_path / f"{name}.parquet"), to="parquet")
    first, second = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("rows", "usual"))
    assert first.equals(second)
    wanted = {"x": ["MET_pt", "weight", "nJet"], "event": "event", "jets": ["Jet_pt"]}
    batches = []
    for name in ("rows", "usual"):
        with DataLoader(name, batch_size=64, columns=wanted, jagged="padded", seed=3) as loader:
            batches.append(list(loader))
    for one, other in zip(*batches, strict=True):
        assert all(one[key].equal(other[key]) for key in other)


def test_damage_is_found_and_repaired(toy: str) -> None:
    dataset = make(toy)
    assert verify("rows") == ()
    path = dataset.path / dataset.manifest.chunks[1].file
    whole = path.read_bytes()
    packed = dataset.open_chunk(dataset.manifest.chunks[1]).packed_rows()
    assert packed is not None
    damaged = bytearray(whole)
    damaged[whole.index(packed.words[:9].tobytes()) + 5] ^= 4
    path.unlink()  # others have it mapped
    path.write_bytes(damaged)
    with pytest.raises(ChecksumError, match=r"column 'event' is damaged"):
        dataset.arrays(["event"])
    assert dataset.arrays(["Jet_pt"]).Jet_pt[0] is not None
    assert [fault.file for fault in verify("rows")] == [path.name]
    assert verify("rows", repair=True) == ()
    assert path.read_bytes() == whole


def test_more_is_appended_in_the_same_layout(toy: str, tmp_path: Path) -> None:
    make(toy)
    write_toy_tree(tmp_path / "more.root", entries=300, seed=5)
    dataset = append("rows", str(tmp_path / "more.root"), workers=1)
    assert dataset.manifest.spec.layout == "rows"
    assert dataset.open_chunk(dataset.manifest.chunks[-1]).packed_rows() is not None
    assert sql("SELECT count(*) FROM rows").column(0).to_pylist() == [1300]


def test_workers_and_filling_change_nothing(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(toy).manifest.digest
    monkeypatch.setenv("STORAGERING_CACHE", str(tmp_path / "other"))
    assert make(toy, workers=2).manifest.digest == first
    monkeypatch.setenv("STORAGERING_CACHE", str(tmp_path / "third"))
    with fill(toy, name="rows", layout="rows", chunk_bytes=20_000) as data, DataLoader(data, 50, ["event"]) as loader:
        assert sum(len(batch["event"]) for batch in loader) == 1000
        assert data.wait().manifest.digest == first


def test_it_is_asked_for_and_told_on_the_command_line(toy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", toy, "--name", "rows", "--layout", "rows", "--workers", "1"]) == 0
    assert "(zarr, small, rows)" in capsys.readouterr().out
    assert open_dataset("rows").manifest.spec.layout == "rows"
    assert main(["info", "rows"]) == 0
    assert "(zarr, small, rows)" in capsys.readouterr().out
    assert main(["convert", toy, "--name", "rows", "--workers", "1"]) == 2
    assert "layout: rows there, columns" in capsys.readouterr().err
    assert main(["convert", toy, "--name", "other", "--layout", "rows", "--format", "parquet"]) == 2
    assert "goes with format='zarr' only" in capsys.readouterr().err


def test_parquet_has_no_rows_and_without_flat_columns_nothing_changes(toy: str) -> None:
    with pytest.raises(SpecError, match="'zarr' only, not 'parquet'"):
        make(toy, format="parquet")
    dataset = make(toy, columns=["Jet_*"])
    assert dataset.open_chunk(dataset.manifest.chunks[0]).packed_rows() is None
    assert dataset.num_entries == 1000
