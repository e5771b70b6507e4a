"""``storagering stats``."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storagering.cli.stats import sparkline
from storagering.distributions import Distribution
from storagering.testing.toys import toy_columns

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def test_stats(run: Command, toys: Path) -> None:
    outcome = run("stats", "toys")
    lines = {line.split()[0]: line for line in outcome.out.splitlines()}
    assert lines["column"].split() == "column distribution min 1% 5% 25% 50% 75% 95% 99% max".split()  # noqa: SIM905
    values = toy_columns(400)["MET_pt"]
    shown = lines["MET_pt"].split()
    assert float(shown[-1]) == pytest.approx(values.max(), rel=1e-4)
    assert float(shown[-5]) == pytest.approx(sorted(values)[200], rel=0.05)
    assert set(lines["MET_pt"]) & set("▁▂▃▄▅▆▇█")


def test_some_columns_as_json(run: Command, toys: Path) -> None:
    (found,) = run("stats", "toys", "MET_pt", "--json").json
    assert found["name"] == "MET_pt"
    assert found["count"] == 400 == sum(one["count"] for one in found["histogram"])
    assert list(found["quantiles"]) == ["0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99"]
    assert run("stats", "toys", "MET_ptt").code == 2
    assert run("stats", "no").code == 2


def test_columns_without_numbers_are_named(run: Command, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("name,value\na,1\nb,2\n")
    assert run("convert", tmp_path / "x.csv", "--name", "x", "--workers", 1).code == 0
    outcome = run("stats", "x")
    assert "without numbers: name" in outcome.err
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["column", "value"]


def test_the_small_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    values = Distribution((0.0,) * 7, (0.0, 0.0, 2.0, 2.0), (8, 1, 4), (0.0, 1.0, 2.0))
    bins = Distribution((0.0,) * 7, (0.0, 0.0, 2.0, 9.0), (0, *[0, 0] * 10, *[5, 3] * 21, 100))
    assert sparkline(values) == "█▁▄"
    assert sparkline(bins) == " " * 10 + "█" * 21
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert sparkline(values) == "@.="
