from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def test_caches(run: Command, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ("simulate", "caches", "--trace", "mixture", "--seeds", 2, "--accesses", 1000, "--items", 100)
    few = ("--sizes", 5, 20, "--policies", "lru", "predictive", "--plot", tmp_path / "hits.png")
    outcome = run(*words, *few)
    assert outcome.code == 0, outcome.err
    assert [line.split()[3:6] for line in outcome.out.splitlines()[1:4]] == [
        ["MB", "lru", outcome.out.splitlines()[1].split()[5]],
        ["MB", "predictive", outcome.out.splitlines()[2].split()[5]],
        ["MB", "optimum", "(at"],
    ]
    assert "2 trace(s)" in outcome.err
    assert (tmp_path / "hits.png").read_bytes().startswith(b"\x89PNG")
    result = run(*words, *few[:6], "--json").json
    assert result["accesses"] == [1000, 1000]
    assert len(result["points"]) == 6
    assert {"mean", "std", "low", "high"} == set(result["points"][0]["hit_ratio"])


def test_caches_of_a_file(run: Command, tmp_path: Path) -> None:
    (tmp_path / "reads.csv").write_text("time,item,size\n" + "".join(f"{n},{n % 3},10\n" for n in range(30)))
    result = run("simulate", "caches", "--trace", tmp_path / "reads.csv", "--sizes", 70, "--json").json
    ratios = {point["policy"]: point["hit_ratio"]["mean"] for point in result["points"]}
    assert ratios["lru"] == 0
    assert ratios["belady"] == ratios["optimum"] == 18 / 30  # two of three are kept
    outcome = run("simulate", "caches", "--trace", tmp_path / "none.csv")
    assert (outcome.code, outcome.out) == (2, "")
    assert "no file" in outcome.err


def test_sites(run: Command) -> None:
    words = ("simulate", "sites", "--seeds", 2, "--jobs", 30, "--datasets", 10, "--sites", 2, "--days", 3)
    outcome = run(*words)
    assert outcome.code == 0, outcome.err
    assert [line.split()[0] for line in outcome.out.splitlines()] == [
        "strategy",
        "none",
        "reactive",
        "popular",
        "predictive",
    ]
    result = run(*words, "--strategies", "reactive", "--json").json
    assert [(one["strategy"], one["worlds"]) for one in result] == [("reactive", 2)]
    assert result[0]["traffic"]["low"] > 0
    assert run(*words, "--cache", 200).code == 2
