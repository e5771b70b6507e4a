"""The toy ROOT files hold what `toy_columns` says, however they are cut."""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from storagering.errors import InputError
from storagering.testing.toys import toy_columns, write_toy_rntuple, write_toy_tree


def check(read: Any, columns: dict[str, Any]) -> None:
    assert set(read.fields) == set(columns)
    for name, expected in columns.items():
        assert ak.array_equal(ak.to_packed(read[name]), expected, dtype_exact=True), name


@pytest.mark.parametrize("compression", ["zstd", "zlib", "lz4", "lzma", None])
def test_tree(tmp_path: Path, compression: str | None) -> None:
    write_toy_tree(tmp_path / "a.root", entries=103, seed=4, compression=compression, basket_entries=25)
    with uproot.open(tmp_path / "a.root") as file:
        tree = file["Events"]
        assert {branch.num_baskets for branch in tree.branches} == {5}
        check(tree.arrays(), toy_columns(103, 4))


def test_tree_has_one_counter_and_fixed_shapes(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "a.root", entries=10)
    with uproot.open(tmp_path / "a.root") as file:
        tree = file["Events"]
        assert tree["Jet_pt"].count_branch.name == tree["Jet_id"].count_branch.name == "nJet"
        assert tree["image"].typename == "float[4][4]"
        assert tree["MET_pt"].num_baskets == 4


def test_rntuple(tmp_path: Path) -> None:
    write_toy_rntuple(tmp_path / "a.root", entries=103, seed=4, cluster_entries=25)
    with uproot.open(tmp_path / "a.root") as file:
        ntuple = file["Events"]
        assert len(ntuple.cluster_summaries) == 5
        check(ntuple.arrays(), toy_columns(103, 4, nested=True))


def test_no_entries(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "tree.root", entries=0)
    write_toy_rntuple(tmp_path / "ntuple.root", entries=0)
    for name in ("tree.root", "ntuple.root"):
        with uproot.open(tmp_path / name) as file:
            assert file["Events"].num_entries == 0


def test_columns_follow_from_the_seed() -> None:
    first, again, other = toy_columns(50, 1), toy_columns(50, 1), toy_columns(50, 2)
    assert all(ak.array_equal(first[name], again[name]) for name in first)
    assert not ak.array_equal(first["Jet_pt"], other["Jet_pt"])
    assert set(toy_columns(50, 1, nested=True)) - set(first) == {"hits", "Muon", "trigger"}


def test_columns_are_what_they_promise() -> None:
    columns = toy_columns(500, 1)
    assert columns["event"].min() > 2**53
    assert columns["weight"].min() < 0
    assert np.all(ak.num(columns["Jet_pt"]) == columns["nJet"])
    assert ak.all(columns["Jet_pt"][:, 1:] <= columns["Jet_pt"][:, :-1])


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="entries is -1"):
        write_toy_tree(tmp_path / "a.root", entries=-1)
    with pytest.raises(InputError, match="zstd, zlib, lz4, lzma"):
        write_toy_tree(tmp_path / "a.root", entries=1, compression="rar")
    with pytest.raises(InputError, match="give 1 or more"):
        write_toy_rntuple(tmp_path / "a.root", entries=1, cluster_entries=0)
