"""Bitmap indexes: only chunks with a match are opened, and an index that is damaged, stale or gone costs time only."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cache.odd import ENTRIES, odd_columns, odd_dataset

import storagering as sr
from storagering.cache import indexing
from storagering.cache.bitmaps import BitmapIndex, index_path, open_index
from storagering.cache.indexing import drop_indexes, index_columns
from storagering.catalog.query import run_query
from storagering.config import load_settings
from storagering.errors import ChecksumError, FormatError, NotFoundError, SchemaError, SpecError, TruncatedError

COLUMNS = odd_columns()
SIGNAL = COLUMNS["rare"] == "signal"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> sr.Dataset:
    folder = tmp_path_factory.mktemp("odd")
    made = odd_dataset(folder, settings=load_settings(cache=folder / "cache", workers=1, threads=1))
    built = index_columns(made, ["run", "rare", "flag", "wild", "f", "half", "trigger"])
    assert [(one.column, one.values) for one in built[:3]] == [("run", 9), ("rare", 2), ("flag", 2)]
    return made


@pytest.fixture
def own(tmp_path: Path) -> sr.Dataset:
    """One that a test may change."""
    return odd_dataset(tmp_path, workers=1)


def index_of(dataset: sr.Dataset, name: str) -> BitmapIndex:
    found = open_index(dataset.cache, dataset.manifest, dataset.schema.select([name]).columns[0])
    assert found is not None
    return found


def holding(dataset: sr.Dataset, mask: Any) -> list[int]:
    """Numbers of the chunks in which a mask of the entries is true anywhere."""
    return [n for n, chunk in enumerate(dataset.manifest.chunks) if mask[chunk.start : chunk.stop].any()]


@pytest.mark.parametrize("name", ["run", "rare", "flag", "f", "half", "trigger"])
def test_every_value_has_its_entries(odd: sr.Dataset, name: str) -> None:
    index = index_of(odd, name)
    for value in np.unique(COLUMNS[name]).tolist():
        found = index.find(value, value)
        assert found is not None
        assert list(found) == np.flatnonzero(COLUMNS[name] == value).tolist()
    absent: Any = "nothing" if isinstance(value, str) else 1e9
    found = index.find(absent, absent)
    assert found is not None
    assert not len(found)


def test_nan_and_infinities(odd: sr.Dataset) -> None:
    index, wild = index_of(odd, "wild"), COLUMNS["wild"]
    for low, high in ((0.0, 0.0), (1e299, np.inf), (-np.inf, -1.0), (0.7, 1.5), (7.0, 8.0)):
        found = index.find(low, high)
        assert found is not None
        assert list(found) == np.flatnonzero(((wild >= low) & (wild <= high)) | np.isnan(wild)).tolist()


@pytest.mark.parametrize(
    ("where", "mask"),
    [
        ("rare = 'signal'", SIGNAL),
        ("rare IN ('signal', 'nothing')", SIGNAL),
        ("run IN (2, 6) AND rare = 'signal'", np.isin(COLUMNS["run"], (2, 6)) & SIGNAL),
        ("run = 3 OR rare = 'signal'", (COLUMNS["run"] == 3) | SIGNAL),
        ("flag AND rare = 'signal'", COLUMNS["flag"] & SIGNAL),
        ("trigger = 'HLT_3é'", COLUMNS["trigger"] == "HLT_3é"),
        ("rare = 'nothing'", np.zeros(ENTRIES, np.bool_)),
    ],
)
def test_a_query_opens_the_chunks_with_a_match_only(odd: sr.Dataset, where: str, mask: Any) -> None:
    found = run_query(f"SELECT number FROM odd WHERE {where} ORDER BY 1", settings=odd.cache.settings)
    assert found.table["number"].to_pylist() == np.flatnonzero(mask).tolist()
    (reads,) = found.reads
    assert reads.chunks == len(holding(odd, mask)) < reads.of


@pytest.mark.parametrize(
    ("where", "mask"),
    [
        ("rare == 'signal'", SIGNAL),
        ("(rare == 'signal') & ((run == 2) | (run == 6))", SIGNAL & np.isin(COLUMNS["run"], (2, 6))),
        ("~(rare != 'signal') & flag", COLUMNS["flag"] & SIGNAL),
        ("(half == 0.3) & (wild < 100)", (COLUMNS["half"] == np.float16(0.3)) & (COLUMNS["wild"] < 100)),
    ],
)
def test_selections_use_it_too(odd: sr.Dataset, where: str, mask: Any) -> None:
    view = odd.where(where)
    starts = [odd.manifest.chunks[n].start for n in holding(odd, mask)]
    if "!=" not in where:
        assert [chunk.start for chunk in view.chunks] == starts
    assert view.entries().tolist() == np.flatnonzero(mask).tolist()


def test_without_it_the_same_is_found(own: sr.Dataset) -> None:
    query = "SELECT number FROM odd WHERE rare = 'signal' AND run < 5 ORDER BY 1"
    before = run_query(query)
    index_columns(own, ["rare"])
    indexed = run_query(query)
    assert indexed.table.equals(before.table)
    assert indexed.reads[0].chunks < before.reads[0].chunks
    drop_indexes("odd", ["rare", "run"])
    assert run_query(query).reads == before.reads


def test_what_cannot_be_indexed(own: sr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "MOST_VALUES", 100)
    with pytest.raises(SpecError, match="'number' of 'odd' has more than 100 distinct values"):
        index_columns(own, ["number"])
    with pytest.raises(SchemaError, match="nearest names: 'rare'"):
        index_columns(own, ["rrare"])
    with pytest.raises(NotFoundError, match="nearest names: 'odd'"):
        index_columns("oddd", ["rare"])
    assert not (own.cache.root / "indexes").exists()


def test_lists_are_not_indexed(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"lists": [[1], [2, 3]]}), tmp_path / "x.parquet")
    with pytest.raises(SchemaError, match="'lists' is jagged: only flat columns and text are indexed"):
        index_columns(sr.convert(str(tmp_path / "x.parquet"), name="x", workers=1), ["lists"])


@pytest.mark.scenario(17)
def test_damage_is_told_and_costs_time_only(own: sr.Dataset) -> None:
    index_columns(own, ["rare"])
    path = index_path(own.cache, own.manifest, own.schema.select(["rare"]).columns[0])
    whole, query = path.read_bytes(), "SELECT count(*) AS n FROM odd WHERE rare = 'signal'"
    want = [{"n": int(SIGNAL.sum())}]
    errors = set()
    for place in (0, 9, 30, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            index_of(own, "rare").find("other", "signal")
        except (ChecksumError, FormatError, TruncatedError) as error:
            errors.add(type(error))
        else:
            pytest.fail(f"the byte {place} was changed, and nobody noticed")
    assert ChecksumError in errors
    for cut in (0, 10, 60, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.warns(UserWarning, match="'rare' is not used.*'storagering catalog index odd rare'"):
            assert run_query(query).table.to_pylist() == want
    path.write_bytes(whole)
    assert run_query(query).table.to_pylist() == want


def test_an_index_of_another_version_is_not_used(own: sr.Dataset, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    index_columns(own, ["rare"])
    old = index_path(own.cache, own.manifest, own.schema.select(["rare"]).columns[0])
    pq.write_table(pa.table({**COLUMNS, "rare": np.full(ENTRIES, "signal")}), tmp_path / "more.parquet")
    both = sr.append("odd", str(tmp_path / "more.parquet"), workers=1)
    count = run_query("SELECT count(*) AS n FROM odd WHERE rare = 'signal'").table["n"].to_pylist()
    assert count == [ENTRIES + int(SIGNAL.sum())]
    assert own.where("rare == 'signal'").entries().max() < ENTRIES
    new = index_path(both.cache, both.manifest, both.schema.select(["rare"]).columns[0])
    new.parent.mkdir(parents=True)
    new.write_bytes(old.read_bytes())  # under a name that is not its own
    with pytest.warns(UserWarning, match="index of something else"):
        assert len(both.where("rare == 'signal'")) == count[0]


def test_indexes_of_what_is_gone_are_swept_up(own: sr.Dataset) -> None:
    index_columns(own, ["rare"])
    assert not sr.gc(dry_run=True)
    own.cache.remove("odd")
    (swept,) = sr.gc()
    assert swept.what == "index of a dataset that is gone"
    assert not Path(swept.path).exists()


def test_many_values_at_once_are_left_to_the_statistics(odd: sr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    index = index_of(odd, "run")
    monkeypatch.setattr("storagering.cache.bitmaps.MOST_BITMAPS", 2)
    assert index.find(0, 1) is not None
    assert index.find(0, 2) is None
    assert index.find("a", "a") is None
