"""``storagering append``, as the shell sees it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storagering.testing.toys import write_toy_tree

if TYPE_CHECKING:
    from tests.cli.conftest import Command


@pytest.fixture
def further(tmp_path: Path) -> Path:
    """A second file of 100 events."""
    path = tmp_path / "toy-2.root"
    write_toy_tree(path, entries=100, seed=2)
    return path


def test_append(run: Command, toys: Path, further: Path) -> None:
    outcome = run("append", "toys", further, "--workers", 1)
    assert outcome.code == 0
    assert "100 entries in" in outcome.out
    rows = run("sql", "SELECT count(*) AS n, count(DISTINCT event) AS m FROM toys", "--json").json
    assert rows[0]["n"] == 500


def test_as_json_and_with_what_is_there_already(run: Command, toys: Path, further: Path) -> None:
    first = run("append", "toys", toys, further, "--workers", 1, "--json").json
    assert (first["entries"], first["appended"], first["version"], first["built"]) == (500, 100, 2, True)
    again = run("append", "toys", toys, further, "--json")
    assert "has all of these sources already: nothing to do" in again.err
    assert again.json["built"] is False
    assert again.json["version"] == 2


def test_classes(run: Command, toy: Path, further: Path) -> None:
    assert run("convert", "--label", f"a={toy}", "--label", f"b={further}", "--name", "two", "--workers", 1).code == 0
    third = toy.with_name("third.root")
    write_toy_tree(third, entries=30, seed=3)
    assert run("append", "two", "--label", f"b={third}", "--workers", 1).code == 0
    rows = run("sql", "SELECT label, count(*) AS n FROM two GROUP BY label ORDER BY label", "--json").json
    assert [row["n"] for row in rows] == [400, 130]
    refused = run("append", "two", "--label", f"a={third}")
    assert refused.code == 2
    assert "third.root is in dataset 'two' already, as class 'b'" in refused.err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["nothing", "toy-2.root"], 2, "no dataset 'nothing'"),
        (["toys", "missing.root"], 2, "missing.root: no such file"),
        (["toys", "text.txt"], 2, "text.txt has no column 'MET_pt', dataset 'toys' has"),
        (["toys"], 2, "no source is named"),
    ],
)
def test_exit_code_and_message(
    run: Command, toys: Path, further: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, told: str
) -> None:
    monkeypatch.chdir(toys.parent)
    Path("text.txt").write_text("run,event\n1,2\n")
    outcome = run("append", *words)
    assert outcome.code == code
    assert told in outcome.err
    rows = run("info", "toys", "--json").json
    assert rows["entries"] == 400
