"""Nodes know each other by ids that last, and rank each other alike."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storagering.cache.layout import open_cache
from storagering.cache.peers.identity import forwarding_lock, node_id, rank, rank_here
from storagering.config import load_settings
from storagering.errors import CacheError


@pytest.fixture
def root() -> Path:
    return open_cache(load_settings()).root


def test_an_id_is_drawn_once(root: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(lambda _: node_id(root), range(32)))
    assert ids == {node_id(root)}
    assert [path.name for path in root.iterdir() if "node" in path.name] == ["node"]


def test_a_damaged_id(root: Path) -> None:
    (root / "node").write_text("nonsense")
    with pytest.raises(CacheError, match="remove it"):
        node_id(root)


def test_only_nodes_that_forward_have_a_rank(root: Path, tmp_path: Path) -> None:
    assert rank_here(root, "x") is None
    assert rank_here(tmp_path / "absent", "x") is None
    lock = forwarding_lock(root)
    lock.acquire(1)
    assert rank_here(root, "x") == rank(node_id(root), "x") != rank(node_id(root), "y")
    lock.release()
    assert rank_here(root, "x") is None
