"""``storagering du``, ``evict``, ``pin``, ``unpin``, ``gc`` and ``remove`` of what is needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storagering.cache.dataset import open_dataset
from storagering.cache.layout import open_cache
from storagering.config import load_settings

if TYPE_CHECKING:
    from tests.cli.conftest import Command


@pytest.mark.usefixtures("toys")
def test_usage(run: Command) -> None:
    outcome = run("du", "--quota", "10MB")
    assert outcome.code == 0
    assert "of 10.0 MB" in outcome.out
    assert "can be evicted" in outcome.out
    usage = run("du", "--json").json
    (toys,) = usage["datasets"]
    assert toys["chunks"] == [1, 1]
    assert usage["used"] == toys["nbytes"][0] > 0
    assert usage["quota"] is None


def test_usage_of_an_empty_cache(run: Command) -> None:
    assert run("du").code == 0
    assert run("du", "--json").json["datasets"] == []


@pytest.mark.usefixtures("toys")
def test_usage_where_a_manifest_is_damaged(run: Command, cache: Path) -> None:
    (cache / "datasets" / "toys" / "manifest.json").write_text("{}")
    (toys,) = run("du", "--json").json["datasets"]
    assert toys["must_stay"].startswith("it cannot be read")


@pytest.mark.usefixtures("toys")
def test_evicting_and_reading_again(run: Command) -> None:
    outcome = run("evict", "toys")
    assert outcome.code == 0
    assert "evicted 1 chunks" in outcome.err
    assert run("du", "--json").json["datasets"][0]["chunks"] == [0, 1]
    assert "of the 0 chunks here (1 were evicted)" in run("verify", "toys").out
    assert run("sql", "SELECT count(*) AS n FROM toys", "--json").json == [{"n": 400}]
    assert run("du", "--json").json["datasets"][0]["chunks"] == [1, 1]
    assert [row["dataset"] for row in run("evict", "--to", "1B", "--json").json] == ["toys"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "name datasets, or give a size"),
        (("--to", "much"), "write a size such as 200GB"),
        (("--to", "1B", "--policy", "fifo"), "lru, lfu, greedy-dual, popularity"),
        (("toy",), "nearest names: 'toys'"),
    ],
)
@pytest.mark.usefixtures("toys")
def test_wrong_evictions(run: Command, words: tuple[str, ...], told: str) -> None:
    outcome = run("evict", *words)
    assert outcome.code == 2
    assert told in outcome.err


@pytest.mark.usefixtures("toys")
def test_pins_by_hand(run: Command) -> None:
    assert run("pin", "toys", "--reason", "my thesis").code == 0
    assert "my thesis" in run("du").out
    assert run("evict", "--to", "1B", "--json").json == []
    for words in (("evict", "toys"), ("remove", "toys")):
        outcome = run(*words)
        assert outcome.code == 4
        assert "is needed: my thesis" in outcome.err
    assert run("unpin", "toys").code == 0
    assert "is not pinned" in run("unpin", "toys").err
    assert len(run("evict", "toys", "--json").json) == 1
    assert run("pin", "nope").code == 2


@pytest.mark.usefixtures("toys")
def test_removing_what_a_reader_needs(run: Command) -> None:
    dataset = open_dataset("toys")
    with dataset.access("training on") as access:
        access.hold([dataset.manifest.chunks])
        outcome = run("remove", "toys")
        assert outcome.code == 4
        assert "training on toys" in outcome.err
        assert run("remove", "toys", "--force").code == 0
    assert run("du", "--json").json["used"] == 0


@pytest.mark.usefixtures("toys")
def test_sweeping_up(run: Command, cache: Path) -> None:
    assert run("gc", "--json").json == []
    root = open_cache(load_settings()).root
    for path in (root / "quarantine" / "toys-chunk", root / "catalog.duckdb.corrupt-1", root / "locks" / "ab.fetch"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"1234")
    dead = root / "staging" / "toys.0123"
    dead.mkdir()
    (dead / "spool").write_bytes(b"56")
    (root / "staging" / "toys.0123.lock").touch()
    (root / "datasets" / ".removed-1").mkdir()
    (root / "quarantine" / "toys-folder").mkdir()
    would = run("gc", "--dry-run")
    assert "would free 10 B" in would.err
    assert dead.exists()
    assert len(run("gc", "--json").json) == 6
    assert not dead.exists()
    assert not list(root.rglob("*.removed*"))
    assert run("gc", "--json").json == []
    assert run("verify", "toys").code == 0


def test_a_quota_while_converting(run: Command, cache: Path, tmp_path: Path, toys: Path) -> None:
    source = next(tmp_path.rglob("*.root"))
    words = ("convert", source, "--name", "again", "--columns", "event", "--chunk-bytes", "64KiB", "--quota")
    outcome = run(*words, "1KB")
    assert outcome.code == 4
    assert "the quota of" in outcome.err
    outcome = run(*words, "nothing")
    assert outcome.code == 2
    assert "write a size such as 200GB" in outcome.err
