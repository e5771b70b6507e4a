from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING

from storagering.cache.layout import open_cache
from storagering.cache.ledger import set_popularity
from storagering.cache.space import disk_ledger
from storagering.config import load_settings

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def test_the_example_is_shown_and_taken(run: Command, tmp_path: Path) -> None:
    path = tmp_path / "nodes.toml"
    path.write_text(run("catalog", "place", "--example").out)
    outcome = run("catalog", "place", path)
    assert outcome.code == 0, outcome.err
    assert "24 uses expected at t2-desy" in outcome.out
    assert "move(s), which save" in outcome.err
    moves = run("catalog", "place", path, "--json").json
    assert {move["action"] for move in moves} == {"add", "drop"}
    assert len(outcome.out.splitlines()) == len(moves) + 1


def test_datasets_of_the_cache_are_placed_by_the_scores_of_its_ledger(run: Command, toys: Path, tmp_path: Path) -> None:
    path = tmp_path / "nodes.toml"
    here = platform.node()
    path.write_text(
        f'[[nodes]]\nname = "{here}"\ncapacity = "1GB"\nbandwidth = "1MB"\n'
        '[[nodes]]\nname = "far-away"\ncapacity = "1GB"\nbandwidth = "1MB"\n'
    )
    assert run("catalog", "place", path, "--json").json == []
    with disk_ledger(open_cache(load_settings())).transaction() as database:
        set_popularity(database, [("toys", 10.0)])
    (move,) = run("catalog", "place", path, "--json").json
    assert (move["action"], move["dataset"], move["source"], move["node"]) == ("add", "toys", here, "far-away")
    assert move["gain"] == 4 * move["nbytes"]
    (tmp_path / "scores.csv").write_text("dataset,score\ntoys,1\n")
    assert run("catalog", "place", path, "--popularity", tmp_path / "scores.csv", "--json").json == []


def test_what_is_not_said_is_asked_for(run: Command, tmp_path: Path) -> None:
    outcome = run("catalog", "place")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--example" in outcome.err
    assert run("catalog", "place", tmp_path / "none.toml").code == 2
