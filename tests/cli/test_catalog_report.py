from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def test_report(run: Command, toys: Path, tmp_path: Path) -> None:
    outcome = run("catalog", "report", tmp_path / "r.html")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err.startswith(f"{tmp_path / 'r.html'}: 1 dataset(s), ")
    assert "toys" in (tmp_path / "r.html").read_text()


def test_json_and_fewer_details(run: Command, toys: Path, tmp_path: Path) -> None:
    found = run("catalog", "report", tmp_path / "r.html", "--details", 0, "--json").json
    size = (tmp_path / "r.html").stat().st_size
    assert found == {"out": str(tmp_path / "r.html"), "nbytes": size, "datasets": 1, "details": 0}


def test_a_file_of_somebody_elses_stays(run: Command, tmp_path: Path) -> None:
    (tmp_path / "r.html").write_text("mine")
    outcome = run("catalog", "report", tmp_path / "r.html")
    assert outcome.code == 4
    assert "is there already" in outcome.err
    assert run("catalog", "report", tmp_path / "r.html", "--force").code == 0
