"""Hostile names of columns, trees, classes, files and datasets: kept as data, never a path, never SQL."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from storagering.api import append, convert, verify
from storagering.cache.dataset import open_dataset
from storagering.cache.layout import open_cache
from storagering.catalog.query import sql
from storagering.config import load_settings
from storagering.errors import InputError
from storagering.exporting import export
from storagering.files import safe_join
from storagering.formats.writers import FORMATS
from storagering.testing.http import http_server

pytestmark = pytest.mark.scenario(47)

NAMES = (
    "../x", "../../../../x", "/abs", "a/b", "a\\b", "nul\0x", "line\nfeed", "n" * 300, ".", "..", "CON", "zarr.json",
    "c/0", ".zgroup", "storagering.index", "\u0440t", "pt", "PT", "Pt", "it's", '"; DROP TABLE datasets; --',
    "'); ATTACH '/tmp/x' AS y; --", "$(touch x)", "`touch x`", "%2e%2e%2fx", "\u202egnp", "\x1b[2J", "manifest.json",
    "col000001", "-rf", "~", "*", "chunk-000000.zarr.zip", " ",
)  # fmt: skip


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A deep working folder; whatever appears outside of its cache and its folder for results is an escape."""
    work = tmp_path / "one" / "two" / "three"
    (work / "out").mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("STORAGERING_CACHE", str(work / "cache"))
    (work / "in").mkdir()
    yield work
    found = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    kept = ("one/two/three/cache", "one/two/three/out", "one/two/three/in")
    strays = [path for path in found if not any(path.is_relative_to(name) for name in kept)]
    assert sorted(map(str, strays)) == ["one", "one/two", "one/two/three"]
    assert not [name for name in ("/abs", "/x", "/tmp/x") if os.path.lexists(name)]


def write_parquet(path: Path, scale: float = 1) -> Path:
    columns = {name: pa.array(np.arange(50.0) * number * scale) for number, name in enumerate(NAMES)}
    record = {name: 1.0 for name in NAMES if "\0" not in name}
    pq.write_table(pa.table(columns | {"nested": pa.array([[record]] * 50)}), path)
    return path


def check_inside(cache: Path) -> None:
    """Everything on the disk has a name that was made here."""
    for path in cache.rglob("*"):
        assert path.name.isascii()
        assert path.name.isprintable()
        assert not set(path.name) & set("/\\'\";$`~* ")
        assert path.resolve().is_relative_to(cache.resolve())


@pytest.mark.parametrize("store", ["zarr", "parquet"])
def test_columns(outside: Path, store: str) -> None:
    first, second = write_parquet(outside / "in" / "1.parquet"), write_parquet(outside / "in" / "2.parquet", 2)
    convert(str(first), name="x", format=store, workers=1)  # type: ignore[arg-type]
    dataset = append("x", str(second), workers=1)
    assert verify("x") == ()
    for number, name in enumerate(NAMES):
        want = np.concatenate([np.arange(50.0) * number, np.arange(50.0) * number * 2])
        assert dataset.arrays([name])[name].to_numpy().tolist() == want.tolist()
    told = sql("SELECT name FROM columns WHERE dataset = 'x' ORDER BY position").column(0).to_pylist()
    assert set(NAMES) < set(told)
    check_inside(outside / "cache")


@pytest.mark.parametrize("kind", FORMATS)
def test_columns_on_their_way_out(outside: Path, kind: str) -> None:
    """Whatever a format can hold is in the one file or folder that was asked for; the rest is named."""
    convert(str(write_parquet(outside / "in" / "1.parquet")), name="x", workers=1)
    out = outside / "out" / f"file.{kind}"
    for tree in ("../x", "/abs", ".."):
        with suppress(InputError):  # a format may have no such name for a tree
            export("x", out, to=kind, tree=tree, columns=["pt"], force=True)  # type: ignore[arg-type]
    done = export("x", out, to=kind, force=True)  # type: ignore[arg-type]
    assert (done.entries, done.columns + len(done.skipped)) == (50, len(NAMES) + 1)
    assert {path.name for path in (outside / "out").iterdir()} <= {f"file.{kind}"}
    for path in (outside / "out").rglob("*"):
        assert path.resolve().is_relative_to(outside / "out")


def test_trees_and_classes(outside: Path) -> None:
    with uproot.recreate(outside / "in" / "toy.root") as file:
        file.mktree("..", {"x": np.dtype("f8")}).extend({"x": np.arange(10.0)})
    with h5py.File(outside / "in" / "toy.h5", "w") as file:
        file.create_group("deep/\u2025/'; DROP").create_dataset("x", data=np.arange(10.0))
    root, other = str(outside / "in" / "toy.root"), str(outside / "in" / "toy.h5")
    classes = {"../../x": root, "'; DROP TABLE datasets; --": other}
    for number, (name, url) in enumerate(classes.items()):
        dataset = convert({name: [url]}, name=f"x{number}", columns=["*x"], workers=1)
        assert dataset.manifest.spec.classes == (name,)
        assert sql(f"SELECT count(*) AS n FROM x{number}").to_pylist() == [{"n": 10}]
    assert sorted(sql("SELECT DISTINCT label FROM source_files").column(0).to_pylist()) == sorted(classes)
    check_inside(outside / "cache")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("pt", "PT", "Pt", "CON", "col000001")])
def test_datasets(outside: Path, name: str) -> None:
    source = str(outside / "in" / "1.parquet")
    pq.write_table(pa.table({"x": [1.0]}), source)
    opened = open_cache(load_settings())
    ways: list[Callable[[], object]] = [
        lambda: convert(source, name=name, workers=1),
        lambda: append(name, source, workers=1),
        lambda: open_dataset(name),
        lambda: opened.remove(name),
        lambda: opened.build_lock(name),
        lambda: verify(name),
        lambda: export(name, outside / "out" / "x", to="parquet"),
    ]
    plain = {"zarr.json", "storagering.index", "manifest.json", "chunk-000000.zarr.zip"}
    for way in ways if name not in plain else ():
        with pytest.raises(InputError, match="dataset name"):
            way()
    if name in plain:
        assert convert(source, name=name, workers=1).path == outside / "cache" / "datasets" / name
    check_inside(outside / "cache")


def test_files_of_servers(outside: Path) -> None:
    """A file that is fetched whole lies under a name of ours while it is used."""
    write_parquet(outside / "in" / "toy.parquet")
    (outside / "in" / "deep").mkdir()
    odd = outside / "in" / "deep" / "..\\x'; DROP.parquet"
    (outside / "in" / "toy.parquet").rename(odd)
    with http_server(outside / "in") as server:
        url = f"{server.url('')}deep/%2e%2e%5cx%27%3b%20DROP.parquet?name=../../../x&file=/abs"
        dataset = convert(url, name="x", workers=2, chunk_bytes=4096)
    assert len(dataset.arrays(["pt"])) == 50
    check_inside(outside / "cache")


@pytest.mark.parametrize(
    "name", [*(n for n in NAMES if "/" in n or n.startswith(".") or "\0" in n or len(n) > 255), ""]
)
def test_no_hostile_name_is_joined(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be used as a file name"):
        safe_join(tmp_path, name)
