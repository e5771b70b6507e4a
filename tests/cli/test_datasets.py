from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storagering.testing.toys import toy_columns, write_toy_rntuple

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def test_an_empty_cache(run: Command) -> None:
    outcome = run("ls")
    assert (outcome.code, outcome.out) == (0, "")
    assert "convert" in outcome.err
    assert run("ls", "--json").json == []


def test_ls(run: Command, toys: Path) -> None:
    run("convert", toys, "--name", "again", "--format", "parquet")
    lines = run("ls").out.splitlines()
    assert lines[0].split()[:3] == ["name", "entries", "columns"]
    assert [line.split()[0] for line in lines[1:]] == ["again", "toys"]
    found = {summary["name"]: summary for summary in run("ls", "--json").json}
    assert found["toys"]["entries"] == 400
    assert found["again"]["format"] == "parquet"


def test_a_damaged_dataset_does_not_hide_the_others(shell: Command, run: Command, toys: Path, cache: Path) -> None:
    run("convert", toys, "--name", "bad", "--columns", "nJet")
    (cache / "datasets" / "bad" / "manifest.json").write_text("{}")
    outcome = shell("ls")
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["name", "toys"]
    assert "'bad' is left out" in outcome.err
    assert run("info", "bad").code == 3


def test_info(run: Command, toys: Path) -> None:
    lines = run("info", "toys").out.splitlines()
    assert f"{toys}  Events" in "\n".join(lines)
    column = next(line for line in lines if line.startswith("MET_pt")).split()
    values = toy_columns(400)["MET_pt"]
    assert column[:3] == ["MET_pt", "flat", "float32"]
    assert [float(x) for x in column[3:]] == pytest.approx(
        [values.min(), values.max(), values.mean(), values.std()], rel=1e-4
    )


def test_info_as_json(run: Command, toys: Path) -> None:
    found = run("info", "toys", "--json").json
    columns = {column["name"]: column for column in found["columns"]}
    values = toy_columns(400)["MET_pt"].astype(float)
    assert columns["MET_pt"]["mean"] == pytest.approx(values.mean())
    assert columns["Jet_pt"]["kind"] == "jagged"
    assert columns["Jet_pt"]["count"] == columns["Jet_eta"]["count"]
    assert found["sources"][0]["entries"] == 400
    assert found["spec"]["tree"] is None
    assert found["skipped"] == []


def test_info_of_columns_without_numbers(run: Command, tmp_path: Path) -> None:
    write_toy_rntuple(tmp_path / "n.root", entries=20)
    run("convert", tmp_path / "n.root", "--name", "n")
    lines = run("info", "n").out.splitlines()
    assert next(line for line in lines if line.startswith("trigger")).split() == ["trigger", "string", "string"]


def test_info_of_none_lists_the_nearest(run: Command, toys: Path) -> None:
    outcome = run("info", "toy")
    assert outcome.code == 2
    assert "'toys'" in outcome.err


def test_remove(run: Command, toys: Path, cache: Path) -> None:
    outcome = run("remove", "toys")
    assert (outcome.code, outcome.out) == (0, "")
    assert not list((cache / "datasets").iterdir())
    assert run("ls", "--json").json == []
    assert run("sql", "SELECT count(*) AS n FROM datasets", "--json").json == [{"n": 0}]
    assert run("remove", "toys").code == 2
    assert run("remove", "../locks").code == 2
