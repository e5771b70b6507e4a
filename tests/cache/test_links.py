"""Links that somebody has put into a cache: none is followed, and what they lead to is not touched."""

import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storagering.api import append, convert, verify
from storagering.cache.dataset import open_dataset
from storagering.cache.layout import Cache, open_cache
from storagering.cache.ram import RamTier
from storagering.cache.space import disk_ledger
from storagering.catalog.index import catalog_path
from storagering.catalog.query import sql
from storagering.config import load_settings
from storagering.errors import CacheError, StorageringError
from storagering.files import map_file
from storagering.testing.toys import write_toy_tree


@pytest.fixture
def toy(tmp_path: Path) -> str:
    write_toy_tree(tmp_path / "toy.root", entries=100)
    return str(tmp_path / "toy.root")


@pytest.fixture
def opened() -> Cache:
    return open_cache(load_settings())


def ways_in(opened: Cache, toy: str) -> dict[str, Callable[[], Any]]:
    """All that opens a dataset of that name."""
    return {
        "open": lambda: open_dataset("x"),
        "contains": lambda: opened.contains("x"),
        "manifest": lambda: opened.manifest("x"),
        "convert": lambda: convert(toy, name="x", workers=1),
        "append": lambda: append("x", toy, workers=1),
        "verify": lambda: verify("x"),
        "repair": lambda: verify("x", repair=True),
        "remove": lambda: opened.remove("x"),
        "sql": lambda: sql("SELECT count(*) FROM x"),
    }


WAYS = ("open", "contains", "manifest", "convert", "append", "verify", "repair", "remove", "sql")


@pytest.fixture
def planted(opened: Cache, toy: str, tmp_path: Path) -> Path:
    """A dataset elsewhere that a link under the name of one leads to."""
    folder = convert(toy, name="x", workers=1).path
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


@pytest.mark.filterwarnings("ignore:dataset 'x' is left out")
@pytest.mark.parametrize("way", WAYS)
def test_a_dataset_that_is_a_link(opened: Cache, planted: Path, toy: str, way: str) -> None:
    before = {path.name: path.read_bytes() for path in planted.iterdir()}
    with pytest.raises(CacheError, match=r"datasets/x is a link, and none is followed inside a cache: remove it"):
        ways_in(opened, toy)[way]()
    assert {path.name: path.read_bytes() for path in planted.iterdir()} == before


def test_a_dataset_that_becomes_a_link(opened: Cache, toy: str, tmp_path: Path) -> None:
    """A loader has opened it before."""
    dataset = convert(toy, name="x", workers=1)
    dataset.path.rename(tmp_path / "elsewhere")
    dataset.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match=r"it or its folder is a link, and none is followed"):
        dataset.open_chunk(dataset.manifest.chunks[0])


@pytest.mark.filterwarnings("ignore:dataset 'x' is left out")
@pytest.mark.parametrize("way", sorted(set(WAYS) - {"contains", "remove"}))
def test_a_manifest_that_is_a_link(opened: Cache, toy: str, tmp_path: Path, way: str) -> None:
    path = convert(toy, name="x", workers=1).path / "manifest.json"
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(CacheError, match=r"manifest\.json"):
        ways_in(opened, toy)[way]()
    opened.remove("x")
    assert (tmp_path / "elsewhere.json").is_file()


def test_a_chunk_that_is_a_link(opened: Cache, toy: str, tmp_path: Path) -> None:
    dataset = convert(toy, name="x", workers=1)
    path = dataset.path / dataset.manifest.chunks[0].file
    path.rename(tmp_path / "elsewhere.zip")
    path.symlink_to(tmp_path / "elsewhere.zip")
    with pytest.raises(CacheError, match=r"chunk-000000\S*: it or its folder is a link"):
        dataset.arrays()
    with pytest.raises(StorageringError):
        sql("SELECT count(event) FROM x")
    assert [fault.why for fault in verify("x")] == ["it is a link to another file"]
    before = (tmp_path / "elsewhere.zip").read_bytes()
    assert verify("x", repair=True) == ()
    assert not path.is_symlink()
    assert len(open_dataset("x").arrays()) == 100
    assert (tmp_path / "elsewhere.zip").read_bytes() == before


@pytest.mark.parametrize("what", ["staging/x.{key}", "staging/x.{key}.lock", "locks/x.lock"])
def test_a_link_in_the_way_of_a_build(opened: Cache, toy: str, tmp_path: Path, what: str) -> None:
    """Where the next build will work is no secret; whoever puts a link there gains nothing."""
    names: list[str] = []
    original = Cache.staging

    def note(self: Cache, name: str, key: str, **options: Any) -> Any:
        names.append(key)
        return original(self, name, key, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cache, "staging", note)
        convert(toy, name="x", workers=1)
    opened.remove("x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("x")
    target = tmp_path / "elsewhere" / ("made" if what.endswith(".lock") else "")
    link = opened.root / what.format(key=names[0])
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    with pytest.raises(CacheError, match=rf"{re.escape(str(link))} is a link, and none is followed"):
        convert(toy, name="x", workers=1)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["precious"]
    link.unlink(missing_ok=True)
    assert len(convert(toy, name="x", workers=1)) == 100


@pytest.mark.parametrize("name", ["catalog.duckdb", "catalog.duckdb.wal", "catalog.lock"])
def test_a_catalog_that_is_a_link(opened: Cache, toy: str, tmp_path: Path, name: str) -> None:
    """It is neither read nor written; the manifests alone answer."""
    convert(toy, name="x", workers=1)
    (opened.root / name).unlink(missing_ok=True)
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (opened.root / name).symlink_to(tmp_path / "elsewhere")
    assert sql("SELECT count(*) AS n FROM x").to_pylist() == [{"n": 100}]
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"


def test_the_catalog_is_private_too(opened: Cache, toy: str) -> None:
    before = os.umask(0)
    try:
        convert(toy, name="x", workers=1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(catalog_path(opened).stat().st_mode) == 0o600


def test_only_datasets_are_removed(opened: Cache, toy: str, tmp_path: Path) -> None:
    """Somebody has put files of his own where the cache keeps datasets."""
    assert shutil.rmtree.avoids_symlink_attacks
    (opened.root / "datasets" / "mine").mkdir()
    (opened.root / "datasets" / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(StorageringError, match="no dataset 'mine'"):
        opened.remove("mine")
    assert len(convert(toy, name="mine", workers=1)) == 100
    assert [path.read_text() for path in opened.root.rglob("thesis.tex")] == ["x"]
    opened.remove("mine")
    assert [path.parts[-3] for path in opened.root.rglob("thesis.tex")] == ["quarantine"]


def test_links_are_removed_and_not_what_they_lead_to(opened: Cache, toy: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("x")
    for name in (".removed-0011223344556677", "x.0123456789abcdef"):
        (opened.root / "staging" / name).symlink_to(tmp_path / "elsewhere")
    (opened.root / "staging" / "x.0123456789abcdef.lock").touch()
    assert opened.unfinished() == []
    dataset = convert(toy, name="x", workers=1)
    (dataset.path / "sub").symlink_to(tmp_path / "elsewhere")
    opened.remove("x")
    assert not list((opened.root / "staging").iterdir())
    assert not list((opened.root / "datasets").iterdir())
    assert (tmp_path / "elsewhere" / "precious").read_text() == "x"


def test_a_file_of_another_folder_is_never_mapped(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(b"12345")
    assert bytes(map_file(tmp_path / "there" / "file", 5)) == b"12345"
    (tmp_path / "here").symlink_to(tmp_path / "there")
    (tmp_path / "there" / "link").symlink_to(tmp_path / "there" / "file")
    for path in (tmp_path / "here" / "file", tmp_path / "there" / "link"):
        with pytest.raises(CacheError, match="is a link, and none is followed: remove it"):
            map_file(path, 5)


@pytest.mark.parametrize("name", ["leases", "pins", "quarantine"])
def test_a_folder_that_is_made_later_and_is_a_link(opened: Cache, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (opened.root / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match=rf"cache/{name} is a link"):
        open_cache(opened.settings)


def test_a_ledger_that_is_a_link(opened: Cache, toy: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    (opened.root / "ledger.sqlite").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match=r"ledger\.sqlite is a link"), disk_ledger(opened).transaction():
        pass
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_a_memory_tier_of_somebody_else(tmp_path: Path) -> None:
    """Its name can be guessed, and everybody can make folders beside it."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "ram").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match="ram is a link"):
        RamTier(load_settings(ram_tier=str(tmp_path / "ram")))
    (tmp_path / "ram").unlink()
    RamTier(load_settings(ram_tier=str(tmp_path / "ram")))
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "ram", tmp_path / "ram" / "chunks")} == {0o700}
    (tmp_path / "ram").chmod(0o777)
    with pytest.raises(CacheError, match="every user of this machine may write"):
        RamTier(load_settings(ram_tier=str(tmp_path / "ram")))
    assert not list((tmp_path / "elsewhere").iterdir())
