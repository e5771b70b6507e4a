from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def test_build_and_drop(run: Command, toys: Path, cache: Path) -> None:
    outcome = run("catalog", "index", "toys", "nVtx", "passed")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith("indexed toys.nVtx: ")
    assert len(list(cache.glob("indexes/toys-*/*.bitmaps"))) == 2
    (built,) = run("catalog", "index", "toys", "nJet", "--json").json
    assert (built["dataset"], built["column"], built["nbytes"] > 100) == ("toys", "nJet", True)
    assert run("catalog", "index", "toys", "nVtx", "passed", "--drop").err == "dropped the indexes of nVtx, passed\n"
    assert len(list(cache.glob("indexes/toys-*/*.bitmaps"))) == 1


def test_what_is_wrong(run: Command, toys: Path) -> None:
    outcome = run("catalog", "index", "toys", "nVertex")
    assert outcome.code == 2
    assert "nearest names: 'nVtx'" in outcome.err
    assert "storagering catalog index jets label" in run("catalog", "index", "--help").out
