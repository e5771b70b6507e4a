"""``storagering verify``, as the shell sees it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Command


@pytest.fixture
def chunk(cache: Path, toys: Path) -> Path:
    """The only chunk file of the dataset ``toys``."""
    (found,) = (cache / "datasets" / "toys").glob("chunk-*")
    return found


def damage(path: Path) -> bytes:
    whole = path.read_bytes()
    path.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    return whole


def test_a_whole_dataset(run: Command, chunk: Path) -> None:
    outcome = run("verify", "toys")
    assert (outcome.code, outcome.out) == (0, "toys: every byte is as it was written\n")
    assert run("verify", "toys", "--json").json == [{"name": "toys", "faults": []}]


@pytest.mark.scenario(22)
def test_damage_is_listed_and_mended(run: Command, chunk: Path) -> None:
    whole = damage(chunk)
    outcome = run("verify", "toys")
    assert outcome.code == 1
    assert chunk.name in outcome.out
    assert "0 to 400" in outcome.out
    assert "storagering verify toys --repair" in outcome.err
    (found,) = run("verify", "toys", "--json").json
    assert [fault["chunk"] for fault in found["faults"]] == [0]
    mended = run("verify", "toys", "--repair")
    assert mended.code == 0
    assert f"{chunk.name}: made again" in mended.err
    assert "every byte is as it was written" in mended.out
    assert chunk.read_bytes() == whole


@pytest.mark.scenario(22)
def test_what_cannot_be_mended(run: Command, toys: Path, chunk: Path) -> None:
    damage(chunk.with_name("statistics.parquet"))
    outcome = run("verify", "toys", "--repair")
    assert outcome.code == 1
    assert "storagering remove toys" in outcome.err
    damage(chunk)
    toys.unlink()
    assert run("verify", "toys", "--repair").code == 2
    assert run("verify", "nothing").code == 2
