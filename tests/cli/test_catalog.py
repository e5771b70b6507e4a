from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def test_rebuild(run: Command, toys: Path, cache: Path) -> None:
    (cache / "catalog.duckdb").write_bytes(b"damaged")
    outcome = run("catalog", "rebuild")
    assert (outcome.code, outcome.out) == (0, "")
    assert "1 dataset(s)" in outcome.err
    assert run("sql", "SELECT name FROM datasets", "--json").json == [{"name": "toys"}]


def test_a_damaged_catalog_is_told_in_one_line(shell: Command, toys: Path, cache: Path) -> None:
    (cache / "catalog.duckdb").write_bytes(b"damaged")
    outcome = shell("sql", "SELECT name FROM datasets", "--json")
    assert outcome.json == [{"name": "toys"}]
    assert outcome.err.startswith("storagering: warning: the catalog could not be ")
    assert len(outcome.err.splitlines()) == 1
