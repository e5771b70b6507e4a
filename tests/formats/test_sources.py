"""What a user may name as input, and what becomes of it."""

from pathlib import Path
from typing import Any

import pytest

from storagering.config import Settings, load_settings
from storagering.errors import NotFoundError, SpecError
from storagering.formats.sources import resolve_sources
from storagering.testing import xrootd
from storagering.testing.toys import write_toy_tree


@pytest.fixture
def settings() -> Settings:
    return load_settings()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.root", "a.root", "sub/c.root", "x[1].root", "other.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path / "in")
    return tmp_path / "in"


def names(sources: Any, settings: Settings) -> list[str]:
    return [url for url, _ in resolve_sources(sources, settings)]


def test_paths_become_absolute_and_keep_their_order(folder: Path, settings: Settings) -> None:
    want = [str(folder / "b.root"), str(folder / "a.root")]
    assert names(["b.root", Path("a.root")], settings) == want
    assert names([f"file://{folder}/b.root", str(folder / "a.root")], settings) == want
    assert names("b.root", settings) == want[:1]
    assert names(Path("b.root"), settings) == want[:1]


def test_patterns_are_sorted(folder: Path, settings: Settings) -> None:
    assert names("?.root", settings) == [str(folder / "a.root"), str(folder / "b.root")]
    assert names("**/*.root", settings) == [str(folder / n) for n in ("a.root", "b.root", "sub/c.root", "x[1].root")]
    assert names(f"{folder}/s*/c.root", settings) == [str(folder / "sub/c.root")]


def test_a_file_whose_name_is_a_pattern_is_itself(folder: Path, settings: Settings) -> None:
    assert names("x[1].root", settings) == [str(folder / "x[1].root")]


def test_home_is_expanded(folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert names("~/a.root", settings) == [str(folder / "a.root")]


def test_lists_are_read(folder: Path, settings: Settings) -> None:
    (folder / "list.txt").write_text("# comment\n\n  b.root  \nroot://host//x.root\na*.root\n")
    want = [str(folder / "b.root"), "root://host//x.root", str(folder / "a.root")]
    assert names("@list.txt", settings) == want
    with pytest.raises(NotFoundError, match=r"cannot read the source list absent\.txt"):
        names("@absent.txt", settings)
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NotFoundError, match=r"binary\.txt"):
        names("@binary.txt", settings)


def test_a_list_of_lists_is_refused(folder: Path, settings: Settings) -> None:
    (folder / "loop.txt").write_text("@loop.txt\n")
    with pytest.raises(SpecError, match=r"loop\.txt names another list"):
        names("@loop.txt", settings)


def test_classes_come_with_their_files(folder: Path, settings: Settings) -> None:
    found = resolve_sources({"signal": ["b.root"], "background": "sub/*.root"}, settings)
    assert found == [(str(folder / "b.root"), "signal"), (str(folder / "sub/c.root"), "background")]


@pytest.mark.parametrize("sources", [["a.root", "./a.root"], ["*.root", "a.root"], {"x": "a.root", "y": "?.root"}])
def test_a_file_named_twice_is_refused(folder: Path, settings: Settings, sources: Any) -> None:
    with pytest.raises(SpecError, match="named twice: its entries would count double"):
        resolve_sources(sources, settings)


@pytest.mark.parametrize("other", ["sub/../a.root", "link.root"])
def test_a_file_named_twice_by_other_paths_is_refused(folder: Path, settings: Settings, other: str) -> None:
    (folder / "link.root").symlink_to("a.root")
    with pytest.raises(SpecError, match="named twice"):
        resolve_sources(["a.root", other], settings)


@pytest.mark.parametrize("sources", [[], {}, {"signal": []}])
def test_nothing_named_is_refused(settings: Settings, sources: Any) -> None:
    with pytest.raises(SpecError, match="no source is named"):
        resolve_sources(sources, settings)


@pytest.mark.parametrize(
    "source", ["absent.root", "*.parquet", "absent/*.root", "", "x" * 300, "nul\0name", "a" * 5000]
)
def test_what_matches_nothing_is_refused(folder: Path, settings: Settings, source: str) -> None:
    with pytest.raises(NotFoundError):
        resolve_sources(source, settings)


def test_a_folder_is_refused_with_a_hint(folder: Path, settings: Settings) -> None:
    with pytest.raises(NotFoundError, match=r"sub is a folder; name its files, e\.g\. 'sub/\*\.root'"):
        resolve_sources("sub", settings)


def test_remote_addresses_are_kept_as_they_are(settings: Settings) -> None:
    urls = ["https://host/a*.root?token=x", "root://host//b.root", "http://host/c[1].root"]
    assert names(urls, settings) == urls


@pytest.mark.xrootd
@pytest.mark.skipif(not xrootd.available(), reason="no xrootd on the PATH: apt-get install xrootd-server")
def test_patterns_of_a_server(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b.root", "a.root"):
        (tmp_path / "in/sub").mkdir(exist_ok=True)
        write_toy_tree(tmp_path / "in/sub" / name, entries=1)
    with xrootd.xrootd_server(tmp_path / "in") as server:
        assert names(server.url("sub/*.root"), settings) == [server.url("sub/a.root"), server.url("sub/b.root")]
        with pytest.raises(NotFoundError, match=r"\*\.txt"):
            names(server.url("sub/*.txt"), settings)
