from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.loaders import report


def run(peer: str, kind: str, workload: str, of_limit: float, noise: float | None, cores: int = 2) -> dict[str, Any]:
    return {
        "peer": peer,
        "kind": kind,
        "workload": workload,
        "cores": cores,
        "workers": 0,
        "entries": 0,
        "rate": of_limit * 1e7,
        "of_limit": of_limit,
        "mb_per_second": 100.0,
        "class_noise": noise,
        "spread": 0.9,
        "first_batch_cold_s": 0.1,
        "first_batch_warm_s": 0.01,
        "peak_memory_mb": 300,
        "disk_mb": 10.0,
        "cpu_us": 0.5,
        "other_cpu": 0.5 if peer == "poor" else 0.0,
    }


@pytest.fixture
def figures() -> dict[str, Any]:
    runs = [
        run("storagering fast", "ours", "w1", 0.7, 1.01),
        run("storagering fast", "ours", "w1", 0.4, 1.01, cores=1),
        run("in memory", "plain", "w1", 1.0, 1.0),
        run("swift", "compressed", "w1", 0.5, 9.0),
        run("second", "compressed", "w1", 0.4, 30.0),
        run("tidy", "compressed", "w1", 0.01, 1.05),
        run("poor", "compressed", "w1", 0.001, 1.02),
        run("in memory", "plain", "w3", 1.0, None),
        {"peer": "broken", "workload": "w1", "cores": 2, "workers": 0, "entries": 0, "error": "exit code 1: no"},
    ]
    return {
        "runs": runs,
        "missing": [{"peer": "absent", "reason": "no environment"}],
        "machine": {"cores": 2, "cpu": "X", "python": "3.11"},
        "environments": {"a": {"torch": "2"}, "b": {"torch": "3"}},
        "data": {"w1": 1000, "w3": 5},
    }


def test_table(figures: dict[str, Any]) -> None:
    lines = report.report(figures).splitlines()
    rows = [line.split(" | ")[:5] for line in lines if line.startswith("| ")]
    assert rows[1] == ["| in memory", "-", "10.00 M", "1.000", "1.00"]
    assert rows[2] == ["| **storagering fast**", "4.00 M", "7.00 M", "0.700", "1.01"]
    assert rows[6][2] == "10.0 k*"
    assert "## W3: images of 25 x 25 x 25, 5 entries" in lines
    assert "- broken on w1, 2 cores: exit code 1: no" in lines
    assert "- absent: no environment" in lines
    assert "Versions: torch 2 and 3." in lines


def test_leaders(figures: dict[str, Any]) -> None:
    assert report.leaders(figures["runs"]) == ["in memory", "storagering fast", "swift", "second", "tidy"]


def test_all_is_written_from_the_figures(figures: dict[str, Any], tmp_path: Path) -> None:
    source, readme = tmp_path / "loaders.json", tmp_path / "README.md"
    source.write_text(json.dumps(figures))
    readme.write_text("before\n<!-- loaders:begin -->\nold\n<!-- loaders:end -->\nafter\n")
    report.main(source, tmp_path, readme)
    text = readme.read_text()
    assert text.startswith("before\n<!-- loaders:begin -->\n| ")
    assert text.endswith("<!-- loaders:end -->\nafter\n")
    assert "old" not in text
    assert "| **storagering fast** | **7.00 M (1.01)** |  |" in text
    assert (tmp_path / "loaders.png").read_bytes().startswith(b"\x89PNG")
    readme.write_text("no markers")
    with pytest.raises(SystemExit, match="has no"):
        report.main(source, tmp_path, readme)


def test_labels_keep_apart() -> None:
    assert report.apart([3.0, 2.0, 1.0], 0.5) == [3.0, 2.0, 1.0]
    assert report.apart([1.0, 1.0, 1.0], 0.5) == [1.5, 1.0, 0.5]
    found = report.apart([2.0, 1.9, 1.8, 0.0], 0.5)
    assert found == pytest.approx([2.4, 1.9, 1.4, 0.0])


def test_the_readme_has_a_place_for_it() -> None:
    text = report.README.read_text()
    assert text.count(report.BEGIN) == text.count(report.END) == 1
