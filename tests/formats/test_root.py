"""The ROOT source against uproot itself: locally, over HTTP and over a real XRootD server."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from storagering.config import Settings, load_settings
from storagering.errors import FormatError, NotFoundError, TruncatedError
from storagering.formats.readers import open_source
from storagering.formats.readers.root import list_trees
from storagering.formats.source import Source
from storagering.testing import xrootd
from storagering.testing.http import HTTPServer, http_server
from storagering.testing.toys import toy_columns, write_toy_rntuple, write_toy_tree

ENTRIES = 1000
WRITERS: dict[str, Callable[..., None]] = {"tree": write_toy_tree, "rntuple": write_toy_rntuple}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    write_toy_tree(folder / "tree.root", entries=ENTRIES, basket_entries=300)
    write_toy_rntuple(folder / "rntuple.root", entries=ENTRIES, cluster_entries=300)
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[HTTPServer]:
    with http_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def xrd(folder: Path) -> Iterator[xrootd.XRootDServer]:
    if not xrootd.available():
        pytest.skip("no xrootd on the PATH: apt-get install xrootd-server")
    with xrootd.xrootd_server(folder) as server:
        yield server


@pytest.fixture(params=["local", "http", pytest.param("xrootd", marks=pytest.mark.xrootd)])
def address(request: pytest.FixtureRequest, folder: Path) -> Callable[[str], str]:
    """Turns a file's name into its address."""
    if request.param == "local":
        return lambda name: str(folder / name)
    server = request.getfixturevalue("served" if request.param == "http" else "xrd")
    return lambda name: str(server.url(name))


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def same(got: Any, want: Any) -> bool:
    got, want = ak.Array(got), ak.Array(want)
    return got.type == want.type and bool(ak.array_equal(got, want, equal_nan=True, dtype_exact=True))


def assert_equal_to_uproot(source: Source, model: Any) -> None:
    ranges = [(0, source.entries), (0, 0), (source.entries // 3, source.entries // 2), (source.entries, source.entries)]
    for start, stop in ranges:
        arrays = source.read(list(source.columns), start, stop)
        assert list(arrays) == list(source.columns)
        for name, got in arrays.items():
            assert same(got, model[name].array(entry_start=start, entry_stop=stop)), (name, start, stop)


@pytest.mark.parametrize("kind", WRITERS)
def test_equals_uproot(address: Callable[[str], str], folder: Path, settings: Settings, kind: str) -> None:
    with (
        closing(open_source(address(f"{kind}.root"), None, settings)) as source,
        uproot.open(folder / f"{kind}.root") as file,
    ):
        assert (source.tree, source.entries) == ("Events", ENTRIES)
        assert source.nbytes == (folder / f"{kind}.root").stat().st_size
        assert source.version
        assert_equal_to_uproot(source, file["Events"])
        arrays = source.read(list(source.columns), 0, ENTRIES)
        for name, want in toy_columns(ENTRIES, nested=kind == "rntuple").items():
            assert ak.array_equal(arrays[name], want), name


@pytest.mark.parametrize("compression", ["zstd", "zlib", "lz4", "lzma", None])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_compression(tmp_path: Path, settings: Settings, kind: str, compression: str | None) -> None:
    WRITERS[kind](tmp_path / "toy.root", entries=100, seed=3, compression=compression)
    with closing(open_source(str(tmp_path / "toy.root"), "Events", settings)) as source:
        for name, want in toy_columns(100, 3, nested=kind == "rntuple").items():
            assert ak.array_equal(source.read([name], 0, 100)[name], want), name


@pytest.mark.parametrize(
    "name",
    ["coffea/nano_tt_v12.root", "coffea/treemaker_rntuple.root", "rootfiles/uproot-HZZ.root",
     "rootfiles/uproot-sample-6.20.04-zlib.root"],
)  # fmt: skip
def test_files_of_experiments_equal_uproot(shared_data: Path, settings: Settings, name: str) -> None:
    path = shared_data / name
    with uproot.open(path) as file:
        for tree in list_trees(file):
            with closing(open_source(str(path), tree, settings)) as source:
                model = file[tree]
                for column in source.columns:
                    got = source.read([column], 0, source.entries)[column]
                    assert same(got, model[column].array()), column


def test_titles_that_say_something_are_kept(shared_data: Path, settings: Settings) -> None:
    with closing(open_source(str(shared_data / "coffea/nano_dy.root"), "Events", settings)) as source:
        assert source.doc("Jet_area") == "jet catchment area, for JECs"
        assert source.doc("run") == ""  # "run/i", a leaf list
    with closing(open_source(str(shared_data / "coffea/nano_tt_v12.root"), "Events", settings)) as source:
        assert not any(source.doc(name) for name in source.columns)  # all are leaf lists


def test_boundaries_cut_no_block(folder: Path, settings: Settings) -> None:
    for kind in WRITERS:
        with closing(open_source(str(folder / f"{kind}.root"), None, settings)) as source:
            assert source.boundaries(list(source.columns)) == [0, 300, 600, 900, 1000]
            assert source.boundaries([]) in ([0, 1000], [0, 300, 600, 900, 1000])


def test_boundaries_are_those_that_all_columns_share(tmp_path: Path, settings: Settings) -> None:
    with uproot.recreate(tmp_path / "x.root") as file:
        file.mktree("t", {"a": "f4", "b": "f4"})
        for size in (10, 20, 30):
            file["t"].extend({"a": np.zeros(size), "b": np.ones(size)})
    with closing(open_source(str(tmp_path / "x.root"), None, settings)) as source:
        assert source.boundaries(["a", "b"]) == [0, 10, 30, 60]
        assert source.boundaries(["a"]) == [0, 10, 30, 60]


def test_a_tree_is_found_by_name_and_newest_cycle(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "many.root"
    with uproot.recreate(path) as file:
        file["dir/first"] = {"x": np.zeros(3)}
        file["second"] = {"x": np.zeros(4)}
        file["second"] = {"x": np.zeros(5)}
        file["histogram"] = np.histogram(np.zeros(3))
    with pytest.raises(NotFoundError, match="holds 2 trees: dir/first, second; choose one with --tree"):
        open_source(str(path), None, settings)
    with pytest.raises(NotFoundError, match="no tree 'secnd'; nearest names: 'second'"):
        open_source(str(path), "secnd", settings)
    for tree, name, entries in [("dir/first", "dir/first", 3), ("second", "second", 5), ("second;2", "second", 5)]:
        with closing(open_source(str(path), tree, settings)) as source:
            assert (source.tree, source.entries) == (name, entries)


def test_a_file_without_trees(tmp_path: Path, settings: Settings) -> None:
    with uproot.recreate(tmp_path / "h.root") as file:
        file["histogram"] = np.histogram(np.zeros(3))
    with pytest.raises(FormatError, match=r"no TTree or RNTuple .it holds: histogram"):
        open_source(str(tmp_path / "h.root"), None, settings)


@pytest.mark.scenario(44)
def test_an_empty_tree(tmp_path: Path, settings: Settings) -> None:
    write_toy_tree(tmp_path / "e.root", entries=0)
    with closing(open_source(str(tmp_path / "e.root"), None, settings)) as source:
        assert source.entries == 0
        assert "MET_pt" in source.columns
        assert source.boundaries(list(source.columns)) == [0]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" + bytes(100), b"root", b"root" + bytes(30), bytes(1000)])
def test_what_is_not_a_root_file(tmp_path: Path, settings: Settings, data: bytes) -> None:
    (tmp_path / "bad.root").write_bytes(data)
    with pytest.raises((FormatError, TruncatedError), match=r"bad\.root"):
        open_source(str(tmp_path / "bad.root"), None, settings)


@pytest.mark.scenario(41)
@pytest.mark.parametrize("kind", WRITERS)
def test_a_truncated_file(folder: Path, tmp_path: Path, settings: Settings, kind: str) -> None:
    data = (folder / f"{kind}.root").read_bytes()
    for length in [*range(0, len(data), len(data) // 40), len(data) - 1]:
        (tmp_path / "cut.root").write_bytes(data[:length])
        with pytest.raises((TruncatedError, FormatError), match=r"cut\.root") as caught:
            open_source(str(tmp_path / "cut.root"), None, settings)
        if length >= 64:
            assert isinstance(caught.value, TruncatedError)


def test_a_missing_file(address: Callable[[str], str], settings: Settings) -> None:
    with pytest.raises(NotFoundError, match=r"absent\.root"):
        open_source(address("absent.root"), None, settings)


def test_names_with_glob_and_url_characters(folder: Path, tmp_path: Path, settings: Settings) -> None:
    for name in ("a b.root", "x[1].root", "100%.root", "q?x=1.root", "h#1.root", "c:d.root", "naïve.root"):
        shutil.copy(folder / "tree.root", tmp_path / name)
        with closing(open_source(str(tmp_path / name), None, settings)) as source:
            assert len(source.read(["run"], 0, 10)["run"]) == 10
