from __future__ import annotations

from pathlib import Path

import pytest

from storagering.api import convert
from storagering.cache.layout import Cache, open_cache
from storagering.cache.ledger import set_popularity
from storagering.cache.space import disk_ledger
from storagering.catalog.popularity.applying import Wanted, apply_scores, worth_having
from storagering.config import load_settings
from storagering.housekeeping import evict
from storagering.testing.toys import write_toy_tree

JETHT = "/JetHT/Run2016F-23Sep2016-v1/AOD"


@pytest.fixture
def opened(cache: Path, tmp_path: Path) -> Cache:
    """A cache with the datasets ``cold`` and ``hot``, the latter of a file of a CMS dataset."""
    folder = tmp_path / "store/data/Run2016F/JetHT/AOD/23Sep2016-v1/70000"
    folder.mkdir(parents=True)
    for path, name in ((folder / "a.root", "hot"), (tmp_path / "b.root", "cold")):
        write_toy_tree(path, entries=200)
        convert(str(path), name=name, chunk_bytes=10_000, settings=load_settings(workers=1))
    return open_cache(load_settings())


def ledger(cache: Cache) -> dict[str, float]:
    with disk_ledger(cache).transaction() as database:
        return dict(database.execute("SELECT dataset, score FROM popularity").fetchall())


def test_what_is_expected_decides_what_is_evicted(opened: Cache) -> None:
    with disk_ledger(opened).transaction() as database:
        set_popularity(database, [("cold", 9.0)])
    assert apply_scores(opened, {JETHT: 0.9, "/other/one-v1/AOD": 1.0}) == {"cold": 0.0, "hot": 0.9}
    assert ledger(opened) == {"cold": 0.0, "hot": 0.9}
    nbytes = sum(chunk.nbytes for name in ("hot", "cold") for chunk in opened.manifest(name).chunks)
    gone = evict(to=f"{nbytes // 2}B", policy="popularity")
    assert gone
    assert [chunk.dataset for chunk in gone].index("cold") == 0
    assert len([chunk for chunk in gone if chunk.dataset == "cold"]) == len(opened.manifest("cold").chunks)


def test_names_of_the_cache_count_too(opened: Cache) -> None:
    assert apply_scores(opened, {"cold": 0.4, "hot": 0.1, JETHT: 0.2}) == {"cold": 0.4, "hot": 0.2}


def test_what_is_worth_having(opened: Cache) -> None:
    scores = {JETHT: 0.9, "/b/e-v1/AOD": 0.7, "/a/e-v1/AOD": 0.7, "/c/e-v1/AOD": 0.1, "/d/e-v1/AOD": 0.0}
    assert worth_having(opened, scores, 2) == [Wanted("/a/e-v1/AOD", 0.7), Wanted("/b/e-v1/AOD", 0.7)]
    assert [one.dataset[1] for one in worth_having(opened, scores, 10)] == ["a", "b", "c"]
