from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Command

Calls: TypeAlias = "list[tuple[str, Path | None, dict[str, int]]]"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the benchmarks, which take long, were asked for."""
    calls: Calls = []

    def measure(name: str) -> Callable[..., dict[str, str]]:
        def run(*, output: Path | None, **size: int) -> dict[str, str]:
            calls.append((name, output, size))
            return {"what": name}

        return run

    module = ModuleType("storagering.testing.bench")
    vars(module).update(bench_loader=measure("loader"), bench_convert=measure("convert"))
    monkeypatch.setitem(sys.modules, "storagering.testing.bench", module)
    return calls


@pytest.mark.parametrize("what", ["loader", "convert"])
def test_the_figures_go_to_stdout(run: Command, asked: Calls, tmp_path: Path, what: str) -> None:
    outcome = run("bench", what, "--entries", 10, "--output", tmp_path / "x.json")
    assert outcome.code == 0
    assert json.loads(outcome.out) == {"what": what}
    assert asked == [(what, tmp_path / "x.json", {"entries": 10})]


def test_the_size_is_the_benchmarks_own_choice(run: Command, asked: Calls) -> None:
    run("bench", "loader")
    assert asked == [("loader", None, {})]


def test_there_is_no_other(run: Command) -> None:
    assert run("bench", "sql").code == 2
