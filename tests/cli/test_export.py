"""``storagering export`` and ``copy``, and their functions in Python."""

from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
import uproot
from tests.cli.conftest import Command

import storagering as sr
from storagering.cli.export import FORMATS
from storagering.errors import CorruptDataError, SchemaError, SpecError
from storagering.formats import writers
from storagering.testing.toys import toy_columns, write_toy_rntuple, write_toy_tree

TOYS = toy_columns(400)


def test_the_formats_are_those_of_the_writers() -> None:
    assert writers.FORMATS == FORMATS


@pytest.mark.parametrize("to", FORMATS)
def test_export_tells_what_it_wrote(run: Command, toys: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / "out"
    done = run("export", "toys", "--to", to, out, "--json")
    assert done.code == 0, done.err
    size = sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) if out.is_dir() else out.stat().st_size
    assert (done.json["entries"], done.json["columns"], done.json["nbytes"]) == (400, len(TOYS), size)
    assert done.json["format"] == to
    assert done.json["skipped"] == []
    assert done.json["ratio"] == pytest.approx(done.json["raw_bytes"] / size, abs=1e-3)


@pytest.mark.parametrize("to", ["root", "rntuple"])
def test_a_dataset_becomes_its_source_again(run: Command, toys: Path, tmp_path: Path, to: str) -> None:
    done = run("export", "toys", "--to", to, tmp_path / "out.root")
    assert done.code == 0
    assert "400" in done.out
    assert "ratio" in done.out
    with uproot.open(tmp_path / "out.root") as file, uproot.open(toys) as original:
        for name in TOYS:
            got, want = file["Events"][name].array(), original["Events"][name].array()
            assert got.type == want.type
            assert ak.array_equal(got, want)


def test_columns_and_entries_are_chosen(run: Command, toys: Path, tmp_path: Path) -> None:
    words = ["--columns", "Jet_*", "MET_pt", "--exclude", "Jet_id", "--where", "any(Jet_pt > 60)"]
    done = run("export", "toys", "--to", "parquet", tmp_path / "a", *words, "--start", 50, "--stop", 333)
    assert done.code == 0, done.err
    keep = ak.any(TOYS["Jet_pt"][50:333] > 60, axis=1)
    table = pq.read_table(tmp_path / "a")
    assert table.column_names == ["MET_pt", "Jet_pt", "Jet_eta"]
    assert table["MET_pt"].to_pylist() == TOYS["MET_pt"][50:333][keep].tolist()
    assert table["Jet_eta"].to_pylist() == TOYS["Jet_eta"][50:333][keep].tolist()
    done = run("export", "toys", "--to", "parquet", tmp_path / "b", "--columns", "run", "--where", "passed")
    assert pq.read_table(tmp_path / "b")["run"].to_pylist() == TOYS["run"][TOYS["passed"]].tolist()


def test_copy_needs_no_cache(run: Command, toy: Path, tmp_path: Path, cache: Path) -> None:
    done = run("copy", toy, "--to", "rntuple", tmp_path / "a.root", "--where", "run == 362000", "--stop", 300, "--json")
    assert done.code == 0, done.err
    assert done.json["entries"] == 300
    assert run("copy", tmp_path / "a.root", "--to", "root", tmp_path / "b.root").code == 0
    with uproot.open(tmp_path / "b.root") as file:
        assert set(file["Events"].keys()) == set(TOYS)
        assert ak.array_equal(file["Events"]["Jet_pt"].array(), TOYS["Jet_pt"][:300])
    assert not cache.exists()


def test_what_a_format_cannot_hold_is_told(run: Command, tmp_path: Path) -> None:
    write_toy_rntuple(tmp_path / "in.root", entries=50)
    done = run("copy", tmp_path / "in.root", "--to", "root", tmp_path / "out.root")
    assert done.code == 0
    assert "2 column(s) were skipped" in done.err
    assert "hits" in done.err
    assert "--to rntuple" in done.err
    words = ["copy", tmp_path / "in.root", "--to", "root", tmp_path / "b.root"]
    done = run(*words, "--on-bad-column", "fail")
    assert done.code == 2
    assert "'hits'" in done.err
    assert not (tmp_path / "b.root").exists()
    done = run(*words, "--columns", "hits")
    assert done.code == 2
    assert "no column is left" in done.err


def test_wrong_calls(run: Command, toys: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for words, what in (
        (["export", "toy", "--to", "root", out], "nearest names: 'toys'"),
        (["export", "toys", "--to", "csv", out], "invalid choice"),
        (["export", "toys", "--to", "root", out, "--columns", "Jett_pt"], "nearest names: 'Jet_pt'"),
        (["export", "toys", "--to", "root", out, "--where", "Jett_pt > 1"], "Jett_pt"),
        (["export", "toys", "--to", "root", out, "--start", -1], "count from the start"),
        (["export", "toys", "--to", "root", out, "--compression", "rar"], "root has zstd"),
        (["export", "toys", "--to", "root", "s3://bucket/out.root"], "local paths only"),
        (["export", "toys", "--to", "root", tmp_path / "no" / "out"], "no folder"),
        (["copy", tmp_path / "absent.root", out, "--to", "root"], "no such file"),
    ):
        done = run(*words)
        assert done.code == 2, words
        assert what in done.err
    out.write_text("precious")
    done = run("export", "toys", "--to", "root", out)
    assert done.code == 4
    assert "--force" in done.err
    assert out.read_text() == "precious"
    assert run("export", "toys", "--to", "root", out, "--force").code == 0


def test_several_files_are_not_copied(run: Command, tmp_path: Path) -> None:
    for name in "ab":
        write_toy_rntuple(tmp_path / f"{name}.root", entries=2)
    done = run("copy", f"{tmp_path}/*.root", tmp_path / "x", "--to", "root")
    assert done.code == 2
    assert "one file, not 2" in done.err


def test_columns_of_one_name_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,a,b\n1,2,3\n")
    done = sr.copy(tmp_path / "x.csv", tmp_path / "x.parquet", to="parquet")
    assert [(s.name, s.reason) for s in done.skipped] == [("a", "another column of this name comes before it")]
    with pytest.raises(SchemaError, match="column 'a' cannot be read: another column of this name"):
        sr.copy(tmp_path / "x.csv", tmp_path / "y.parquet", to="parquet", on_bad_column="fail")
    assert sr.copy(tmp_path / "x.csv", tmp_path / "z.parquet", to="parquet", columns=["b"]).skipped == ()


def test_a_damaged_source_leaves_nothing(tmp_path: Path) -> None:
    toy = tmp_path / "toy.root"
    write_toy_tree(toy, entries=4000, compression="zlib")
    with uproot.open(toy) as file:
        basket = file["Events"]["MET_pt"].basket_key(2)
        at = basket.data_cursor.index
    data = bytearray(toy.read_bytes())
    data[at : at + 40] = bytes(40)
    toy.write_bytes(data)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(CorruptDataError, match="MET_pt"):
        sr.copy(toy, tmp_path / "out.root", to="rntuple")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_in_python(toys: Path, tmp_path: Path) -> None:
    exported = sr.export("toys", tmp_path / "out.npz", to="npz", columns=["run"], stop=7)
    assert exported.out == tmp_path / "out.npz"
    assert exported.entries == 7
    assert np.array_equal(np.load(exported.out)["run"], TOYS["run"][:7])
    with pytest.raises(SchemaError, match="nope"):
        sr.export("toys", tmp_path / "x", to="npz", columns=["nope"])
    with pytest.raises(SpecError, match="cannot write 'csv'"):
        sr.export("toys", tmp_path / "x", to="csv")  # type: ignore[arg-type]
