from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from storagering.testing.loading.bench import Request

if TYPE_CHECKING:
    from tests.cli.conftest import Command

Calls: TypeAlias = "list[tuple[str, Path | None, dict[str, Any]]]"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the benchmarks, which take long, were asked for."""
    calls: Calls = []

    def bench_convert(*, output: Path | None, **size: int) -> dict[str, str]:
        calls.append(("convert", output, size))
        return {"what": "convert"}

    def bench_loader(request: Request, *, output: Path | None, say: Callable[[str], None]) -> dict[str, str]:
        chosen = {k: v for k, v in vars(request).items() if v != getattr(Request(), k)}
        calls.append(("loader", output, chosen))
        return {"what": "loader"}

    monkeypatch.setattr("storagering.testing.bench.bench_convert", bench_convert)
    monkeypatch.setattr("storagering.testing.loading.bench.bench_loader", bench_loader)
    return calls


@pytest.mark.parametrize("what", ["loader", "convert"])
def test_the_figures_go_to_stdout(run: Command, asked: Calls, tmp_path: Path, what: str) -> None:
    outcome = run("bench", what, "--entries", 10, "--output", tmp_path / "x.json")
    assert outcome.code == 0
    assert json.loads(outcome.out) == {"what": what}
    assert asked == [(what, tmp_path / "x.json", {"entries": 10})]


def test_the_size_is_the_benchmarks_own_choice(run: Command, asked: Calls) -> None:
    run("bench", "loader")
    run("bench", "convert")
    assert asked == [("loader", None, {}), ("convert", None, {})]


def test_options_of_the_loader(run: Command, asked: Calls, tmp_path: Path) -> None:
    run("bench", "loader", "--peers", "--workload", "w1,w2", "--cores", "1,2", "--epochs", 3, "--only", "zarr")
    run("bench", "loader", "--peers", "uproot,parquet", "--environments", tmp_path, "--data", tmp_path)
    assert [options for _, _, options in asked] == [
        {"peers": [], "workloads": ["w1", "w2"], "cores": [1, 2], "epochs": 3, "only": "zarr"},
        {"peers": ["uproot", "parquet"], "environments": tmp_path, "data": tmp_path},
    ]


def test_conversion_has_no_peers(run: Command, asked: Calls) -> None:
    outcome = run("bench", "convert", "--peers", "uproot")
    assert outcome.code == 2
    assert "--peers is for 'bench loader'" in outcome.err
    assert asked == []


def test_there_is_no_other(run: Command) -> None:
    assert run("bench", "sql").code == 2
