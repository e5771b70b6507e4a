from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storagering.testing.gridlogs import write_grid_logs
from storagering.testing.gridlogs.weekly import make_weekly_accesses

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def test_logs_are_imported_and_asked(run: Command, tmp_path: Path) -> None:
    grid = write_grid_logs(tmp_path / "logs", num_jobs=60)
    (condor,) = grid.files["condor"]
    with condor.open("ab") as file:
        file.write(b"{broken\n")
    outcome = run("catalog", "import-logs", "condor", condor)
    assert outcome.code == 0
    assert "condor.json" in outcome.out
    assert "imported" in outcome.out
    assert f"{condor}, line 201: it is no JSON" in outcome.err
    again = run("catalog", "import-logs", "condor", condor, "--json")
    assert [(one["known"], one["log"]["records"], one["log"]["bad"]) for one in again.json] == [(True, 200, 1)]
    failures = run("catalog", "insights", "failures", "--json")
    assert failures.json[0]["kind"] == "condor"
    shown = run("catalog", "insights")
    assert "site_traffic: nothing in the imported logs" in shown.err
    assert "failure_rate" in shown.out


def test_wrong_calls_are_told(run: Command, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"file_lfn": "x"}')
    for words, text in (
        (("import-logs", "xroot", tmp_path / "a.json"), "no kind of log 'xroot'; nearest names: 'xrootd'"),
        (("import-logs", "xrootd", tmp_path / "a.json"), "holds no records of kind 'xrootd': it has no start_time"),
        (("insights", "hot"), "no insight 'hot'"),
        (("popularity", "--csv", tmp_path / "none.csv"), "none.csv"),
        (("popularity", "--logs"), "import-logs"),
    ):
        outcome = run("catalog", *words)
        assert (outcome.code, outcome.out) == (2, "")
        assert text in outcome.err


def test_popularity(run: Command, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("xgboost")
    data = make_weekly_accesses(seed=2, weeks=18, per_tier=5)
    lines = ["dataset,tier,week,naccess"]
    for row, (name, tier) in enumerate(zip(data.datasets, data.tiers, strict=True)):
        lines += [f"{name},{tier},{week},{int(n)}" for week, n in enumerate(data.counts[row])]
    (tmp_path / "weekly.csv").write_text("\n".join(lines))
    words = ("catalog", "popularity", "--csv", tmp_path / "weekly.csv")
    shown = run(*words, "--weeks", 1, "--prefetch", 3, "--apply")
    assert shown.code == 0
    assert len(shown.out.splitlines()) == 3
    assert "over persistence" in shown.err
    assert "wrote the popularity of 0 dataset(s)" in shown.err
    found = run(*words, "--weeks", 0, "--json").json
    assert (found["week"], found["model"], found["table"], found["prefetch"]) == (18, "forest", [], None)
    assert len(found["scores"]) > 3
