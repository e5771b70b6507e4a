from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uproot

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def test_jets(run: Command, tmp_path: Path) -> None:
    pytest.importorskip("pythia8mc")
    pytest.importorskip("fastjet")
    path = tmp_path / "jets.root"
    outcome = run("generate", "jets", "--jets", 4, "--classes", "qcd, top", "--out", path, "--processes", 1)
    assert (outcome.code, outcome.out) == (0, f"{path}\n")
    assert "4 jets in" in outcome.err
    with uproot.open(path) as file:
        assert file["jets"]["jet_class"].array().tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--jets", 0], "num_jets is 0"),
        (["--jets", 4, "--classes", "tau"], "top, qcd, w"),
        (["--jets", 4, "--processes", 0], "processes is 0"),
        (["--jets", 4, "--out", "/nowhere/x.root"], "/nowhere"),
    ],
)
def test_wrong_numbers_are_2(run: Command, tmp_path: Path, words: list[str], told: str) -> None:
    outcome = run("generate", "jets", "--out", tmp_path / "x.root", *words)
    assert outcome.code == 2
    assert told in outcome.err
