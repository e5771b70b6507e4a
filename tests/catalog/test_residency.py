"""Which chunks lie where: as the folders and ledgers say, also after they change."""

import os
import platform
import shutil
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from storagering import Catalog
from storagering.api import convert
from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.layout import open_cache
from storagering.cache.ledger import touch_chunks
from storagering.cache.space import disk_ledger
from storagering.catalog import residency
from storagering.catalog.index import sync_catalog
from storagering.config import load_settings
from storagering.housekeeping import evict
from storagering.testing.toys import write_toy_tree


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    write_toy_tree(folder / "toy.root", entries=300)
    for name in ("a", "b"):
        settings = load_settings(cache=folder / "c", workers=1)
        convert(str(folder / "toy.root"), name=name, chunk_bytes=10_000, settings=settings)
    return folder


@pytest.fixture
def toy(built: Path, cache: Path) -> Dataset:
    shutil.copytree(built / "c", cache)
    return open_dataset("a")


def settle(root: Path) -> None:
    """Let everything be older than the clock's grain."""
    long_ago = time.time_ns() - 10**11
    for path in (*root.glob("datasets/*"), *root.glob("ledger.sqlite*")):
        os.utime(path, ns=(long_ago, long_ago))


def residents(where: str = "true") -> list[tuple[str, int, int | None]]:
    rows = Catalog().sql(f"SELECT dataset, chunk, uses FROM residents WHERE {where} ORDER BY ALL").to_pylist()
    return [tuple(row.values()) for row in rows]


def test_all_of_a_conversion_lies_on_the_disk(toy: Dataset) -> None:
    rows = Catalog().residents("a").to_pylist()
    assert [row["file"] for row in rows] == [chunk.file for chunk in toy.manifest.chunks]
    assert [row["nbytes"] for row in rows] == [chunk.nbytes for chunk in toy.manifest.chunks]
    assert {(row["tier"], row["node"]) for row in rows} == {("disk", platform.node())}
    assert {row["uses"] for row in rows} == {1}
    assert len(residents()) == 2 * len(rows)


def test_what_is_evicted_leaves_and_what_is_used_counts(toy: Dataset) -> None:
    cache = open_cache(load_settings())
    with disk_ledger(cache).transaction() as database:
        touch_chunks(database, "a", [toy.manifest.chunks[1].file])
    assert residents("dataset = 'a'")[:3] == [("a", 0, 1), ("a", 1, 2), ("a", 2, 1)]
    settle(cache.root)
    sync_catalog(cache)
    evict(["a"])
    assert residents("dataset = 'a'") == []
    assert len(residents("dataset = 'b'")) == len(toy.manifest.chunks)
    toy.arrays(["event"], 0, 1)  # made again
    assert [chunk for _, chunk, _ in residents("dataset = 'a'")] == [0]
    cache.remove("b")
    assert {name for name, _, _ in residents()} == {"a"}


def test_only_what_changed_is_listed(toy: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(load_settings())
    settle(cache.root)
    sync_catalog(cache)
    sync_catalog(cache)  # the ledger was closed by the one before
    settle(cache.root)
    sync_catalog(cache)
    listed: list[str] = []
    original = residency._list_folders

    def spy(connection: duckdb.DuckDBPyConnection, where: object, names: list[str]) -> None:
        listed.extend(names)
        original(connection, cache, names)

    monkeypatch.setattr(residency, "_list_folders", spy)
    assert sync_catalog(cache)["residency"] == 0
    assert listed == []
    (toy.path / toy.manifest.chunks[0].file).unlink()
    assert sync_catalog(cache)["residency"] == 1
    assert listed == ["a"]
    listed.clear()
    settle(cache.root)
    with disk_ledger(cache).transaction() as database:
        touch_chunks(database, "b", [toy.manifest.chunks[0].file])
    sync_catalog(cache)
    assert "b" in listed


def test_a_ledger_that_is_lost_or_damaged(toy: Dataset) -> None:
    cache = open_cache(load_settings())
    before = residents()
    (cache.root / "ledger.sqlite").write_bytes(b"no database" * 500)
    assert residents() == [(name, chunk, None) for name, chunk, _ in before]
    (cache.root / "ledger.sqlite").unlink(missing_ok=True)
    assert residents() == [(name, chunk, None) for name, chunk, _ in before]
    assert not (cache.root / "ledger.sqlite").exists()


def test_the_memory_of_this_node(toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGERING_RAM_TIER", str(tmp_path / "ram"))
    assert residents("tier = 'ram'") == []
    assert not (tmp_path / "ram").exists(), "looking makes nothing"
    open_dataset("a").arrays(["event"], 0, 1)
    first = toy.manifest.chunks[0]
    rows = Catalog().residents("a").to_pylist()
    assert [(row["chunk"], row["nbytes"], row["uses"] >= 1) for row in rows if row["tier"] == "ram"] == [
        (0, first.nbytes, True)
    ]
    assert [row[:2] for row in residents("tier = 'ram'")] == [("a", 0), ("b", 0)], "the same bytes are in both"
    for path in (tmp_path / "ram" / "chunks").iterdir():
        path.unlink()
    assert residents("tier = 'ram'") == []
    open_dataset("a").arrays(["event"], 0, 1)
    assert residents("tier = 'ram'")
    monkeypatch.delenv("STORAGERING_RAM_TIER")
    assert residents("tier = 'ram'") == []


def test_memories_of_other_nodes_are_kept_in_a_shared_cache(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGERING_RAM_TIER", str(tmp_path / "ram"))
    monkeypatch.setenv("STORAGERING_SHARED", "1")
    shared = replace(open_cache(load_settings()), settings=load_settings(shared=True))
    for node in ("node1", "node2"):
        monkeypatch.setattr(platform, "node", lambda node=node: node)
        open_dataset("a").arrays(["event"], 0, 1)
        sync_catalog(shared)
    assert Catalog().sql("SELECT DISTINCT node FROM residents WHERE tier = 'ram' ORDER BY 1").to_pylist() == [
        {"node": "node1"},
        {"node": "node2"},
    ]
    monkeypatch.delenv("STORAGERING_SHARED")
    assert {row["node"] for row in Catalog().residents().to_pylist() if row["tier"] == "ram"} == {"node2"}
