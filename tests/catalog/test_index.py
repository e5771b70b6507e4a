"""The catalog file may be lost or damaged at any time: it is made anew from the manifests."""

import random
import shutil
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from storagering import api
from storagering.api import append, convert
from storagering.cache.layout import RESERVED_NAMES, Cache, open_cache
from storagering.catalog.index import (
    catalog_path,
    catalog_tables,
    catalog_views,
    index_dataset,
    rebuild_catalog,
    sync_catalog,
)
from storagering.catalog.query import sql
from storagering.config import load_settings
from storagering.housekeeping import gc
from storagering.testing.toys import write_toy_tree

#: Commits, and dies before it takes what it wrote into the catalog itself.
DYING_WRITER = """
import os, sys
from storagering.cache.layout import open_cache
from storagering.catalog import index
from storagering.config import load_settings
cache = open_cache(load_settings(cache=sys.argv[1]))
connection = index._connect(str(index.catalog_path(cache)))
connection.begin()
assert index._sync(cache, connection)["manifests"] == 1
connection.commit()
os._exit(0)
"""
EVERYTHING = """SELECT d.*, c.*, k.digest FROM datasets d JOIN columns c ON c.dataset = d.name
    JOIN chunks k ON k.dataset = d.name ORDER BY d.name, c.position, k.chunk"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    write_toy_tree(folder / "toy.root", entries=200)
    for name in ("a", "b"):
        convert(
            str(folder / "toy.root"),
            name=name,
            chunk_bytes=10_000,
            settings=load_settings(cache=folder / "c", workers=1),
        )
    return folder


@pytest.fixture
def opened(built: Path, cache: Path) -> Cache:
    shutil.copytree(built / "c", cache)
    return open_cache(load_settings())


def everything() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = sql(EVERYTHING).to_pylist()
    return rows


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage_wal(path: Path) -> None:
    path.with_name("catalog.duckdb.wal").write_bytes(b"\x17garbage" * 500)


def other_tables(path: Path) -> None:
    path.unlink()
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE datasets (name VARCHAR)")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "precious").write_text("x")


def folder_for_wal(path: Path) -> None:
    path.with_name("catalog.duckdb.wal").mkdir()
    (path.with_name("catalog.duckdb.wal") / "precious").write_text("x")


def newer_duckdb(path: Path) -> None:
    """A sound header of a version that is still to come."""
    data = bytearray(path.read_bytes())
    assert data[8:12] == b"DUCK"
    assert struct.pack("<Q", duckdb_checksum(data[8:4096])) == data[:8]
    data[12:20] = struct.pack("<Q", 5000)
    data[:8] = struct.pack("<Q", duckdb_checksum(data[8:4096]))
    path.write_bytes(data)


def duckdb_checksum(block: bytearray) -> int:
    result = 5381
    for (word,) in struct.iter_unpack("<Q", block):
        result ^= word * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    return result


DAMAGES = [delete, truncate, garble, empty, garbage_wal, other_tables, folder, folder_for_wal, newer_duckdb]


@pytest.mark.scenario(7)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_catalog_is_put_aside_and_made_anew(opened: Cache, damage: Callable[[Path], None]) -> None:
    before = everything()
    assert len(before) > 10
    damage(catalog_path(opened))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert everything() == before
        assert everything() == before
    told = [w for w in caught if "put aside" in str(w.message)]
    aside = [*opened.root.glob("catalog.duckdb*.corrupt-*"), *opened.root.glob("quarantine/catalog.duckdb*")]
    if damage is delete:
        assert not told
    elif damage is garbage_wal:
        assert len(told) <= 1  # DuckDB may take it for a torn write and drop it
    else:
        assert len(told) == 1
        assert "rebuilt from the manifests" in str(told[0].message)
        assert aside
        assert all((path / "precious").exists() for path in aside if path.is_dir())
    gc()
    assert {path.name for path in opened.root.rglob("catalog*")} == {"catalog.duckdb", "catalog.lock"}


@pytest.mark.scenario(7)
@pytest.mark.parametrize("count", [5, pytest.param(300, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
@pytest.mark.parametrize("file", ["catalog.duckdb", "catalog.duckdb.wal"])
def test_a_flipped_bit_changes_no_answer(opened: Cache, file: str, count: int) -> None:
    """Neither in the catalog nor in what a writer that died has left beside it."""
    before = everything()
    if file.endswith(".wal"):
        rebuild_catalog(opened)
        opened.path("b").rename(opened.root / "b")
        sync_catalog(opened)
        (opened.root / "b").rename(opened.path("b"))
        subprocess.run([sys.executable, "-c", DYING_WRITER, str(opened.root)], check=True)
    sound = {path.name: path.read_bytes() for path in opened.root.glob("catalog.duckdb*")}
    assert file in sound
    rng, put_aside = random.Random(5), 0
    for _ in range(count):
        data = bytearray(sound[file])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        for path in opened.root.glob("catalog.duckdb*"):
            path.unlink()
        for name, content in (sound | {file: bytes(data)}).items():
            (opened.root / name).write_bytes(content)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert everything() == before
        assert all("put aside" in str(warning.message) for warning in caught)
        put_aside += len(caught)
    assert put_aside > count / 4


@pytest.mark.scenario(6)
def test_what_a_writer_that_died_has_committed_is_kept(opened: Cache) -> None:
    before = everything()
    rebuild_catalog(opened)
    opened.path("b").rename(opened.root / "b")
    sync_catalog(opened)
    (opened.root / "b").rename(opened.path("b"))
    subprocess.run([sys.executable, "-c", DYING_WRITER, str(opened.root)], check=True)
    assert sync_catalog(opened)["manifests"] == 0
    assert not catalog_path(opened).with_name("catalog.duckdb.wal").exists()
    assert everything() == before


@pytest.mark.scenario(7)
def test_tables_of_another_release_are_made_anew_silently(opened: Cache) -> None:
    before = everything()
    with duckdb.connect(str(catalog_path(opened))) as connection:
        connection.execute("UPDATE _catalog SET shape = 'another'")
        connection.execute("ALTER TABLE chunks ADD COLUMN more BIGINT")
    assert everything() == before
    assert not list(opened.root.glob("*.corrupt-*"))


def test_a_folder_with_the_manifest_of_another_dataset_is_left_out(opened: Cache) -> None:
    opened.path("b").rename(opened.path("elsewhere"))
    with pytest.warns(UserWarning, match=r"dataset 'elsewhere' is left out of the catalog: .* of dataset 'b'"):
        assert sync_catalog(opened)["manifests"] >= 1
    with pytest.warns(UserWarning, match="'elsewhere'"):
        assert {row["name"] for row in sql("SELECT name FROM datasets").to_pylist()} == {"a"}


def test_the_names_of_all_tables_are_reserved() -> None:
    """A dataset of such a name could not be queried."""
    assert {*catalog_tables(), *catalog_views()} <= RESERVED_NAMES


@pytest.mark.scenario(7)
def test_rebuild(opened: Cache) -> None:
    before = everything()
    assert rebuild_catalog(opened)["manifests"] == 2
    assert everything() == before
    assert sync_catalog(opened)["manifests"] == 0


@pytest.mark.scenario(2)
def test_removals_and_crashes_are_followed(opened: Cache, built: Path) -> None:
    sync_catalog(opened)
    opened.remove("a")
    assert sync_catalog(opened)["manifests"] == 1
    assert sql("SELECT name FROM datasets").column(0).to_pylist() == ["b"]
    shutil.copytree(built / "c" / "datasets" / "a", opened.path("a"))  # published, but its builder died then
    assert sql("SELECT name FROM datasets ORDER BY 1").column(0).to_pylist() == ["a", "b"]


def test_a_dataset_made_again_replaces_what_was_said(opened: Cache, built: Path) -> None:
    opened.remove("a")
    convert(str(built / "toy.root"), name="a", workers=1, columns=["run"])
    assert sql("SELECT num_columns FROM datasets ORDER BY name").column(0).to_pylist()[0] == 1
    assert sql("SELECT count(*) FROM columns WHERE dataset = 'a'").column(0).to_pylist() == [1]
    index_dataset(opened, "a")
    assert sql("SELECT count(*) FROM columns WHERE dataset = 'a'").column(0).to_pylist() == [1]


def test_an_entry_that_comes_late_is_that_of_the_newest_version(
    opened: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Any] = []
    for number in range(2):
        write_toy_tree(tmp_path / f"{number}.root", entries=100, seed=number + 1)
    with monkeypatch.context() as patched:  # as if the process slept after its append
        patched.setattr(api, "_enter_into_catalog", lambda *arguments: held.append(arguments))
        append("a", str(tmp_path / "0.root"), workers=1)
    append("a", str(tmp_path / "1.root"), workers=1)
    api._enter_into_catalog(*held[0])
    query = "SELECT num_entries, version FROM datasets WHERE name = 'a'"
    assert sql(query).to_pylist() == [{"num_entries": 400, "version": 3}]
    opened.remove("a")
    index_dataset(opened, "a")
    assert sql(query).to_pylist() == []


@pytest.mark.scenario(6)
def test_a_catalog_that_another_program_holds_open(opened: Cache, built: Path) -> None:
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(catalog_path(opened))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"open\n"
    try:
        assert len(everything()) > 10
        assert len(convert(str(built / "toy.root"), name="c", workers=1)) == 200
        assert not list(opened.root.glob("*.corrupt-*")), "nothing is wrong with it"
    finally:
        other.communicate()
    assert sql("SELECT count(*) FROM datasets").column(0).to_pylist() == [3]


def test_reading_data_never_opens_the_catalog() -> None:
    """Eight ranks could not: DuckDB admits one process."""
    code = "import sys, storagering as sr; sr.open_dataset; import storagering.cache.dataset, storagering.cache.store\n"
    code += "import storagering.cache.zarr_store, storagering.cache.parquet_store, pkgutil, importlib\n"
    code += "import storagering.loaders as l\n"
    code += "names = {m.name for m in pkgutil.iter_modules(l.__path__)} - {'torch', 'tensorflow', 'jax'}\n"
    code += "for name in names: importlib.import_module('storagering.loaders.' + name)\n"
    code += "print([m for m in sys.modules if m.startswith(('duckdb', 'storagering.catalog'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
