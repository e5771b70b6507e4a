"""``storagering inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import uproot

from storagering.testing.toys import write_toy_rntuple

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def facts_of(text: str) -> dict[str, str]:
    """Name and value of the lines before the table of columns."""
    lines = text.partition("\ncolumn ")[0].splitlines()
    return dict(line.split("  ", 1) for line in lines if line)


def test_a_tree_as_a_table(run: Command, toy: Path) -> None:
    out = run("inspect", toy).out
    facts = {name: value.strip() for name, value in facts_of(out).items()}
    assert facts["file"] == str(toy)
    assert (facts["table"], facts["format"], facts["entries"]) == ("Events", "ttree", "400")
    assert facts["clusters"] == "4 of 100 entries"
    assert facts["title"] == "Toy events of Storagering"
    lines = out.splitlines()
    header = next(n for n, line in enumerate(lines) if line.startswith("column "))
    assert lines[header].split() == ["column", "type", "compression", "blocks", "stored", "decoded", "ratio"]
    assert next(line for line in lines if line.startswith("event ")).split()[:4] == ["event", "uint64_t", "zstd", "5"]
    assert lines[-1].startswith("11 column(s)")
    assert "B" in lines[-1]


def test_order_of_the_columns(run: Command, toy: Path) -> None:
    found = run("inspect", toy, "--sort", "size", "--json").json["tables"][0]
    sizes = [column["stored_bytes"] for column in found["columns"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == found["stored_bytes"]
    names = [c["name"] for c in run("inspect", toy, "--sort", "name", "--json").json["tables"][0]["columns"]]
    assert names == sorted(names, key=str.lower)


def test_an_rntuple_as_json(run: Command, tmp_path: Path) -> None:
    write_toy_rntuple(tmp_path / "n.root", entries=90, cluster_entries=40)
    found = run("inspect", tmp_path / "n.root", "--json").json
    (table,) = found["tables"]
    assert (table["format"], table["entries"], table["bounds"]) == ("rntuple", 90, [0, 40, 80, 90])
    columns = {column["name"]: column for column in table["columns"]}
    assert columns["event"]["decoded_bytes"] == 8 * 90
    assert columns["trigger"] == columns["trigger"] | {"type": "std::string", "blocks": 6, "compression": "zstd 5"}
    assert found["nbytes"] == (tmp_path / "n.root").stat().st_size


def test_several_trees_and_one_of_them(run: Command, tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "two.root") as file:
        for name in ("signal", "background"):
            file.mktree(name, {"x": np.int64}).extend({"x": np.arange(3)})
    both, one = run("inspect", tmp_path / "two.root"), run("inspect", tmp_path / "two.root", "--tree", "signal")
    assert "signal" in both.out
    assert "background" in both.out
    assert "background" not in one.out
    wrong = run("inspect", tmp_path / "two.root", "--tree", "sygnal")
    assert (wrong.code, wrong.out) == (2, "")
    assert "nearest names: 'signal'" in wrong.err


@pytest.mark.parametrize(("name", "code"), [("absent.root", 2), ("text.root", 3)])
def test_what_cannot_be_inspected(run: Command, tmp_path: Path, name: str, code: int) -> None:
    (tmp_path / "text.root").write_bytes(b"\x00 neither a tree nor a table")
    outcome = run("inspect", tmp_path / name)
    assert outcome.code == code
    assert name in outcome.err
