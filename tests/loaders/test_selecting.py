"""Selections while loading: the entries that the expression keeps, and no chunk more than that takes."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.loaders.numbered import columns_of, numbered

import storagering as sr
from storagering.cache.statistics import read_statistics_table
from storagering.errors import ChecksumError, ResumeMismatchError, SpecError
from storagering.loaders.supply import PublishedChunks
from storagering.loaders.torch import DataLoader


@pytest.fixture
def dataset(tmp_path: Path) -> sr.Dataset:
    return numbered(tmp_path, workers=1)


def numbers(loader: DataLoader, epochs: int = 1) -> list[int]:
    with loader:
        return [n for _ in range(epochs) for batch in loader for n in batch["number"].tolist()]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files of chunks that are opened, as often as they are."""
    found: list[str] = []
    plain = PublishedChunks.open

    def record(self: PublishedChunks, chunk: Any) -> Any:
        found.append(chunk.file)
        return plain(self, chunk)

    monkeypatch.setattr(PublishedChunks, "open", record)
    return found


@pytest.mark.parametrize("shuffle", ["block", "exact", None])
@pytest.mark.parametrize(
    ("where", "keeps"),
    [
        ("pt > 150", lambda c: c["pt"] > 150),
        ("(number >= 1000) & (number < 1234)", lambda c: (c["number"] >= 1000) & (c["number"] < 1234)),
        ("any(jets > 0)", lambda c: c["number"] % 3 == 2),
        ("1 > 0", lambda c: c["number"] >= 0),
        ("number < 0", lambda c: c["number"] < 0),
    ],
)
def test_what_is_delivered_is_what_it_keeps(events: sr.Dataset, shuffle: Any, where: str, keeps: Any) -> None:
    expected = np.flatnonzero(keeps(columns_of())).tolist()
    loader = DataLoader(events, 50, ["number", "jets"], where=where, shuffle=shuffle)
    assert len(loader) == -(-len(expected) // 50)
    assert sorted(numbers(loader)) == expected


@pytest.mark.parametrize("world_size", [1, 3])
def test_with_a_split_and_ranks(events: sr.Dataset, world_size: int) -> None:
    parts = []
    for split in ((0, 0.7), (0.7, 1)):
        for rank in range(world_size):
            place = {"rank": rank, "world_size": world_size}
            parts.append(numbers(DataLoader(events, 30, ["number"], where="pt > 50", split=split, **place)))  # type: ignore[arg-type]
    assert sorted(n for part in parts for n in part) == np.flatnonzero(columns_of()["pt"] > 50).tolist()
    whole = set(numbers(DataLoader(events, 30, ["number"], split=(0, 0.7))))
    assert {n for part in parts[:world_size] for n in part} <= whole


def test_one_percent_of_a_clustered_column_reads_few_chunks(events: sr.Dataset, opened: list[str]) -> None:
    low, high = 2010, 2050
    holding = {c.file for c in events.manifest.chunks if c.start < high and c.stop > low}
    assert len(holding) <= 3
    loader = DataLoader(events, 10, ["number"], where=f"(number >= {low}) & (number < {high})")
    assert set(opened) <= holding  # nothing else is looked at to find out
    assert sorted(numbers(loader, epochs=2)) == sorted(2 * list(range(low, high)))
    assert set(opened) == holding


def test_chunks_without_an_entry_are_not_opened_again(events: sr.Dataset, opened: list[str]) -> None:
    columns = columns_of()
    rare = np.flatnonzero(columns["pt"] > 1050)
    holding = {c.file for c in events.manifest.chunks if ((rare >= c.start) & (rare < c.stop)).any()}
    assert len(holding) < len(events.manifest.chunks) / 2
    loader = DataLoader(events, 10, ["number"], where="pt > 1050")
    opened.clear()
    assert sorted(numbers(loader)) == rare.tolist()
    assert set(opened) == holding


def test_the_selection_is_part_of_the_state(events: sr.Dataset) -> None:
    loader = DataLoader(events, 50, ["number"], where="pt > 100")
    first = next(iter(loader))["number"].tolist()
    state = loader.state_dict()
    loader.close()
    again = DataLoader(events, 50, ["number"], where="pt > 100")
    again.load_state_dict(state)
    rest = numbers(again)
    assert sorted([*first, *rest]) == np.flatnonzero(columns_of()["pt"] > 100).tolist()
    with pytest.raises(ResumeMismatchError, match="where: 'pt > 100' saved, 'pt > 99' here"):
        DataLoader(events, 50, ["number"], where="pt > 99").load_state_dict(state)


def test_what_is_wrong_is_named(events: sr.Dataset) -> None:
    for where, message in {"ptt > 1": "nearest names: 'pt'", "pt": "must be true or false", "jets > 1": "any"}.items():
        with pytest.raises(SpecError, match=message):
            DataLoader(events, where=where)


def test_a_damaged_table_of_statistics_is_noticed(dataset: sr.Dataset) -> None:
    tables = read_statistics_table(dataset.path, dataset.manifest, ["number", "pt"])
    assert [(t["number"].min, t["number"].max) for t in tables] == [
        (c.start, c.stop - 1) for c in dataset.manifest.chunks
    ]
    path = dataset.path / dataset.manifest.chunk_statistics[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumError, match="statistics"):
        DataLoader(dataset, where="pt > 1")


def test_damage_in_a_column_of_the_selection(dataset: sr.Dataset) -> None:
    whole = numbers(DataLoader(dataset, 100, ["number"], where="pt > 30"))
    path = dataset.path / dataset.manifest.chunks[3].file
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(sr.StorageringError, match=path.name):
        DataLoader(dataset, 100, ["number"], where="pt > 30")
    assert numbers(DataLoader(dataset, 100, ["number"], where="pt > 30", on_corrupt="rebuild")) == whole


def test_columns_that_were_not_asked_for_are_not_read(events: sr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from storagering.cache.zarr_store import ZarrChunkReader

    read: list[str] = []
    plain = ZarrChunkReader.read_column

    def record(self: ZarrChunkReader, name: str, *arguments: Any) -> Any:
        read.append(name)
        return plain(self, name, *arguments)

    monkeypatch.setattr(ZarrChunkReader, "read_column", record)
    DataLoader(events, 10, ["number"], where="pt > 100").close()
    assert set(read) == {"pt"}


def test_a_split_of_a_mixed_dataset_is_that_of_the_unmixed_one(tmp_path: Path) -> None:
    for number in range(3):
        columns = columns_of(500 + number, seed=number, first=10_000 * number)
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet", row_group_size=100)
    sources = {f"class {n}": str(tmp_path / f"{n}.parquet") for n in range(3)}
    options: dict[str, Any] = {"chunk_bytes": 8192, "workers": 1, "exclude": ["label"]}
    plain, mixed = sr.convert(sources, name="plain", **options), sr.convert(sources, name="mixed", mix=1, **options)
    assert mixed.arrays(["number"]).number.tolist() != plain.arrays(["number"]).number.tolist()
    for where in (None, "pt > 90", "number >= 10000"):
        parts = [
            [sorted(numbers(DataLoader(data, 50, ["number"], split=split, where=where))) for data in (plain, mixed)]
            for split in ((0, 0.6), (0.6, 1))
        ]
        assert all(one and one == other for one, other in parts)
        taking = numbers(DataLoader(plain, 50, ["number"], where=where))
        assert sorted(parts[0][0] + parts[1][0]) == sorted(taking)


def test_what_is_still_to_be_made_is_waited_for(tmp_path: Path) -> None:
    pq.write_table(pa.table(columns_of(600)), tmp_path / "new.parquet")
    with sr.fill(str(tmp_path / "new.parquet"), workers=1) as data:
        loader = DataLoader(data, 50, ["number"], where="number < 70", split=(0, 1))
        assert sorted(numbers(loader, epochs=2)) == sorted(2 * list(range(70)))
