"""Sources that hold nothing, differ from each other, or carry hostile names: an error that says where, or data."""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from storagering.api import convert
from storagering.cache.layout import Cache, open_cache
from storagering.catalog.query import sql
from storagering.config import load_settings
from storagering.errors import NoColumnsError, NotFoundError, SchemaError, StorageringError
from storagering.loaders.torch import DataLoader

FILES = 10


@pytest.fixture
def opened() -> Cache:
    return open_cache(load_settings())


def write(path: Path, columns: dict[str, Any], *, tree: str = "t", ntuple: bool = False) -> str:
    with uproot.recreate(path) as file:
        if ntuple:
            file.mkrntuple(tree, columns)
        else:
            types = {n: c.type if isinstance(c, ak.Array) else c.dtype for n, c in columns.items()}
            file.mktree(tree, types).extend(columns)
    return str(path)


def plain(number: int) -> dict[str, Any]:
    return {"a": np.arange(4.0) + number, "b": np.arange(4, dtype=np.int32)}


DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any], type[StorageringError], str]] = {
    "a column is missing": ({"a": np.zeros(4)}, {}, SchemaError, "no column 'b'"),
    "another type": (plain(6) | {"b": np.zeros(4)}, {}, SchemaError, "column 'b' is double"),
    "lists": (plain(6) | {"b": ak.Array([[1], [], [2], [3]])}, {}, SchemaError, "column 'b' is"),
    "an RNTuple": (plain(6), {"ntuple": True}, SchemaError, r"column 'b' is std::int32_t .* and int32_t in"),
    "the tree is renamed": (plain(6), {"tree": "other"}, NotFoundError, "holds no tree 't'"),
}


@pytest.mark.scenario(46)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("case", DIFFERENT)
def test_file_7_of_10_differs(tmp_path: Path, opened: Cache, case: str, workers: int) -> None:
    """It is found, and named, before any chunk is written; without it the rest is converted."""
    columns, options, error, message = DIFFERENT[case]
    paths = [write(tmp_path / f"{number}.root", plain(number)) for number in range(FILES)]
    paths[6] = write(tmp_path / "6.root", columns, **options)
    with pytest.raises(error, match=message) as caught:
        convert(paths, name="x", tree="t", workers=workers, chunk_bytes=4096)
    assert "6.root" in str(caught.value)
    assert not list((opened.root / "staging").iterdir())
    dataset = convert(paths, name="x", tree="t", workers=workers, chunk_bytes=4096, on_bad_source="skip")
    assert len(dataset) == 4 * (FILES - 1)
    assert [Path(skipped.url).name for skipped in dataset.manifest.skipped_sources] == ["6.root"]


@pytest.mark.scenario(44)
def test_a_tree_without_columns(tmp_path: Path, opened: Cache) -> None:
    path = write(tmp_path / "x.root", {"text": np.zeros(3)})
    with pytest.raises(NoColumnsError, match=r"x\.root"):
        convert(path, name="x", exclude=["text"])
    assert not opened.names()


@pytest.mark.scenario(44)
def test_baskets_without_entries(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "x.root") as file:
        tree = file.mktree("t", {"a": "f8", "b": "var * int32"})
        for count in (0, 2, 0, 0, 1, 0):
            lists = ak.unflatten(np.arange(2 * count, dtype=np.int32), np.full(count, 2))
            tree.extend({"a": np.full(count, 1.5), "b": lists})
    dataset = convert(str(tmp_path / "x.root"), name="x", workers=1)
    assert dataset.arrays().tolist() == [
        {"a": 1.5, "nb": 2, "b": [0, 1]},
        {"a": 1.5, "nb": 2, "b": [2, 3]},
        {"a": 1.5, "nb": 2, "b": [0, 1]},
    ]


@pytest.mark.scenario(44)
def test_one_entry_and_more_ranks_than_that(tmp_path: Path) -> None:
    convert(write(tmp_path / "x.root", {"a": np.ones(1)}), name="x", workers=1)
    found = [list(DataLoader("x", 8, ["a"], rank=rank, world_size=8)) for rank in range(8)]
    assert [len(batches) for batches in found] == [1] * 8
    assert sum(len(batches[0]["a"]) for batches in found) == 1


HOSTILE = (
    "../x", "/abs", "a/b", "a\nb", "a\tb", "n" * 300, ".", "..", "CON", "zarr.json", "c/0", "pt", "Pt", "рt", "p\u0301",
    "pt\u200b", "'", '"', "`", "'; DROP TABLE datasets; --", "%2e%2e%2f", "${HOME}", "$(id)", "-rf", "{0}", "\\",
    "\x1b[2J",
)  # fmt: skip


@pytest.mark.scenario(47)
@pytest.mark.parametrize("store", ["zarr", "parquet"])
def test_names_stay_names(tmp_path: Path, opened: Cache, store: Any) -> None:
    """Of columns, classes and files; in the cache, and in SQL."""
    columns = {name: np.arange(3.0) + number for number, name in enumerate(HOSTILE)}
    source = tmp_path / "it's; DROP TABLE datasets; --.root"
    with uproot.recreate(source) as file:
        file.mkrntuple("t", ak.zip({n: np.zeros(0) for n in columns}, depth_limit=1).layout.form)
        file["t"].extend(ak.zip(columns, depth_limit=1))
    label = "'; DROP TABLE datasets; --"
    before = set(tmp_path.rglob("*"))
    dataset = convert({label: str(source)}, name="x", workers=1, format=store)
    assert set(dataset.schema.names) == {*HOSTILE, "label"}
    for name, want in columns.items():
        assert dataset.arrays([name])[name].to_list() == want.tolist()
    made = {path for path in tmp_path.rglob("*") if path not in before}
    assert all(path.is_relative_to(opened.root) for path in made)
    assert {path.name for path in dataset.path.iterdir()} == {
        *(chunk.file for chunk in dataset.manifest.chunks),
        "first-epoch.json",
        "manifest.json",
        "statistics.parquet",
    }
    listed = sql("SELECT name FROM columns WHERE dataset = 'x'").column(0).to_pylist()
    assert set(listed) == {*HOSTILE, "label"}
    assert sql("SELECT label, url FROM source_files").to_pylist() == [{"label": label, "url": str(source)}]
    assert sql("SELECT classes FROM datasets").column(0).to_pylist() == [[label]]


@pytest.mark.scenario(48)
def test_numbers_that_no_tensor_holds_are_named(tmp_path: Path) -> None:
    """They are kept bit for bit, and refused where they would have to change."""
    large = np.array([1, (1 << 63) + 5], np.uint64)
    dataset = convert(write(tmp_path / "x.root", {"n": large, "ok": np.ones(2)}), name="x", workers=1)
    assert dataset.arrays().n.to_list() == large.tolist()
    assert len(list(DataLoader(dataset, 2, ["ok"]))) == 1
    with pytest.raises(SchemaError, match=r"column 'n' has values above 2\^63, which no tensor of integers holds"):
        list(DataLoader(dataset, 2, ["n"]))
