"""Sources that are damaged, differ, change or are empty: typed errors, nothing visible, nothing silently lost."""

import os
import shutil
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
import zarr

from storagering.api import append, convert
from storagering.cache.dataset import open_dataset
from storagering.cache.inspection import inspect_sources, without_columns
from storagering.cache.layout import Cache, open_cache
from storagering.cache.opened import KeptSource
from storagering.cache.progress import BuildProgress
from storagering.cache.unfinished import holds_finished_work
from storagering.config import load_settings
from storagering.errors import (
    CorruptDataError,
    FormatError,
    NotFoundError,
    SchemaError,
    SourceChangedError,
    SourceError,
    StorageringError,
    TruncatedError,
)
from storagering.formats.readers.ttree import TreeSource
from storagering.formats.source import Location
from storagering.testing.http import http_server
from storagering.testing.toys import toy_columns, write_toy_tree
from storagering.types import ConversionSpec

CANARY = "CANARY-s3cr3t"


@pytest.fixture
def opened() -> Cache:
    return open_cache(load_settings())


def check_nothing_seen(cache: Cache) -> None:
    """Nothing is published; all that is left is what the next run can go on from."""
    assert not cache.names()
    for folder in (cache.root / "staging").glob("[!.]*"):
        assert folder.suffix == ".lock" or holds_finished_work(folder)
        assert folder.suffix == ".lock" or not [p for p in folder.iterdir() if p.is_dir()]


def write_tree(path: Path, columns: dict[str, Any], name: str = "t") -> str:
    with uproot.recreate(path) as file:
        types = {n: c.type if isinstance(c, ak.Array) else np.dtype((c.dtype, c.shape[1:])) for n, c in columns.items()}
        file.mktree(name, types)
        file[name].extend(columns)
    return str(path)


def break_column(monkeypatch: pytest.MonkeyPatch, name: str, from_entry: int) -> None:
    """Make uproot fail on one column from an entry on, as on a type that it does not know."""
    original, plan = TreeSource._read, TreeSource._plan

    def read(self: TreeSource, names: Any, start: int, stop: int) -> dict[str, Any]:
        if name in names and stop > from_entry:
            raise NotImplementedError(f"cannot read {name} at {self.url}")
        arrays: dict[str, Any] = original(self, names, start, stop)
        return arrays

    monkeypatch.setattr(TreeSource, "_read", read)
    monkeypatch.setattr(TreeSource, "_plan", lambda self, n: None if n == name else plan(self, n))


class Told(BuildProgress):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.starts = 0
        self.entries = 0

    def start(self, total_entries: int) -> None:  # noqa: ARG002
        self.starts += 1
        self.entries = 0

    def advance(self, entries: int, decoded_bytes: int) -> None:  # noqa: ARG002
        self.entries += entries

    def tell(self, message: str) -> None:
        self.messages.append(message)


@pytest.mark.scenario(49)
@pytest.mark.parametrize("from_entry", [0, 5000])
def test_an_unreadable_column_is_skipped_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_entry: int
) -> None:
    """Also one that turns out to be unreadable only in a later chunk."""
    write_toy_tree(tmp_path / "toy.root", entries=8000, basket_entries=500)
    break_column(monkeypatch, "Jet_eta", from_entry)
    told = Told()
    dataset = convert(str(tmp_path / "toy.root"), name="toy", workers=1, chunk_bytes=50_000, progress=told)
    assert set(dataset.schema.names) == set(toy_columns(1)) - {"Jet_eta"}
    (skipped,) = dataset.manifest.skipped
    assert (skipped.name, skipped.typename) == ("Jet_eta", "float[]")
    assert "NotImplementedError: cannot read Jet_eta" in skipped.reason
    assert told.entries == 8000
    assert told.starts == (2 if from_entry else 1)
    assert bool(told.messages) == bool(from_entry)
    for name, want in toy_columns(8000).items():
        if name != "Jet_eta":
            assert ak.array_equal(dataset.arrays([name])[name], want), name
    assert {p.name for p in dataset.path.iterdir()} == {
        "first-epoch.json", "manifest.json", "statistics.parquet", *(c.file for c in dataset.manifest.chunks),
    }  # fmt: skip


@pytest.mark.scenario(49)
@pytest.mark.parametrize("from_entry", [0, 5000])
def test_an_unreadable_column_fails_if_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Cache, from_entry: int
) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=8000, basket_entries=500)
    break_column(monkeypatch, "Jet_eta", from_entry)
    with pytest.raises(SchemaError, match="column 'Jet_eta' cannot be converted: NotImplementedError"):
        convert(str(tmp_path / "toy.root"), name="toy", workers=1, chunk_bytes=50_000, on_bad_column="fail")
    check_nothing_seen(opened)


@pytest.mark.scenario(49)
@pytest.mark.parametrize("options", [{"columns": ["run"]}, {}])
@pytest.mark.parametrize("from_entry", [0, 5000])
@pytest.mark.timeout(60)
def test_an_unreadable_column_that_the_selection_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Cache, from_entry: int, options: dict[str, Any]
) -> None:
    """It cannot be skipped; nor must the build start over again and again."""
    write_toy_tree(tmp_path / "toy.root", entries=8000, basket_entries=500)
    break_column(monkeypatch, "nVtx", from_entry)
    with pytest.raises(StorageringError, match="nVtx"):
        convert(str(tmp_path / "toy.root"), name="toy", workers=1, chunk_bytes=50_000, where="nVtx > 20", **options)
    check_nothing_seen(opened)


@pytest.mark.scenario(41)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("compression", ["zlib", "lz4", "lzma"])
def test_damaged_bytes_stop_the_conversion(tmp_path: Path, opened: Cache, compression: str, workers: int) -> None:
    """The column is not skipped: its bytes are wrong, which fetching the file again may mend."""
    path = tmp_path / "toy.root"
    write_toy_tree(path, entries=4000, basket_entries=500, compression=compression)
    with uproot.open(path) as file:
        branch = file["Events"]["image"]  # compresses with all, so that its bytes have a checksum with all
        start, size = int(branch.member("fBasketSeek")[5]), int(branch.basket(5).compressed_bytes)
    data = bytearray(path.read_bytes())
    for offset in range(size // 2, size // 2 + 40):
        data[start + offset] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"toy\.root: column 'image' is damaged"):
        convert(str(path), name="toy", workers=workers, chunk_bytes=50_000)
    check_nothing_seen(opened)


def test_a_truncated_source(tmp_path: Path, opened: Cache) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=4000)
    os.truncate(tmp_path / "toy.root", 50_000)
    with pytest.raises(TruncatedError, match=r"toy\.root has 50,000 bytes, its header says"):
        convert(str(tmp_path / "toy.root"), name="toy")
    check_nothing_seen(opened)


@pytest.mark.parametrize(
    ("fault", "workers"), [("404", 1), ("403", 1), ("500", 1), ("500", 2), ("reset", 1), ("short", 1)]
)
def test_a_server_that_fails_half_way_loses_no_column(tmp_path: Path, opened: Cache, fault: Any, workers: int) -> None:
    (tmp_path / "in").mkdir()
    write_toy_tree(tmp_path / "in" / "toy.root", entries=8000, basket_entries=500)
    with http_server(tmp_path / "in") as server:
        convert(server.url("toy.root"), name="toy", workers=1, chunk_bytes=100_000)
        requests = len(server.requests)
        opened.remove("toy")
        messages: list[str] = []
        for after in range(0, requests, max(1, requests // (4 if workers == 1 else 2))):
            server.fail(None, after)
            server.requests.clear()
            _fail_after(server, after, fault)
            try:
                dataset = convert(
                    f"{server.url('toy.root')}?token={CANARY}", name="toy", workers=workers, chunk_bytes=100_000
                )
            except (SourceError, NotFoundError) as error:
                messages.append(str(error))
                check_nothing_seen(opened)
            else:
                assert not dataset.manifest.skipped
                opened.remove("toy")
        assert CANARY not in "".join(messages)
        assert bool(messages) == (fault in ("403", "404"))  # the others pass when they are asked again


def _fail_after(server: Any, requests: int, fault: Any) -> None:
    """Let so many requests pass, then fail one."""
    original = type(server)._receive
    state = {"left": requests}

    def receive(request: Any) -> Any:
        found, healed = original(server, request)
        state["left"] -= 1
        return (fault if state["left"] == -1 else found), healed

    server._receive = receive


@pytest.mark.scenario(46)
@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"a": np.zeros(3, "f4")}, r"b\.root has no column 'b'.*a\.root has.*--exclude 'b'"),
        ({"a": np.zeros(3, "f4"), "b": np.zeros(3, "f8")}, r"column 'b' is double in .*b\.root and float in .*a\.root"),
        (
            {"a": np.zeros(3, "f4"), "b": ak.Array([[1.0], [], []])},
            r"column 'b' is double\[\] in .*b\.root and float in",
        ),
    ],
)
def test_sources_that_differ_are_refused_naming_file_and_column(
    tmp_path: Path, opened: Cache, second: dict[str, Any], message: str
) -> None:
    paths = [write_tree(tmp_path / "a.root", {"a": np.zeros(3, "f4"), "b": np.zeros(3, "f4")})]
    paths.append(write_tree(tmp_path / "b.root", second))
    with pytest.raises(SchemaError, match=message):
        convert(paths, name="x", workers=1)
    check_nothing_seen(opened)
    assert len(convert(paths, name="x", workers=1, exclude=["b", "nb"])) == 6


@pytest.mark.scenario(46)
def test_a_further_column_of_a_later_file_is_reported(tmp_path: Path) -> None:
    paths = [write_tree(tmp_path / "a.root", {"a": np.zeros(3)})]
    paths.append(write_tree(tmp_path / "b.root", {"a": np.zeros(2), "z": np.zeros(2)}))
    dataset = convert(paths, name="x", workers=1)
    assert len(dataset) == 5
    (skipped,) = dataset.manifest.skipped
    assert (skipped.name, skipped.reason, skipped.source) == ("z", "it is not in the first file", paths[1])


@pytest.mark.scenario(46)
def test_fixed_shapes_that_differ_are_refused(tmp_path: Path, opened: Cache) -> None:
    paths = [write_tree(tmp_path / f"{n}.root", {"x": np.zeros((3, n))}) for n in (2, 3)]
    with pytest.raises(SchemaError, match="'x'"):
        convert(paths, name="x", workers=1)
    check_nothing_seen(opened)


@pytest.mark.scenario(44)
@pytest.mark.parametrize("order", [(0, 5), (5, 0), (0, 5, 0, 5), (0, 0, 5)])
def test_an_empty_source_among_others(tmp_path: Path, order: tuple[int, ...]) -> None:
    paths = []
    for number, entries in enumerate(order):
        write_toy_tree(tmp_path / f"{number}.root", entries=entries)
        paths.append(str(tmp_path / f"{number}.root"))
    dataset = convert(paths, name="x", workers=1)
    assert len(dataset) == sum(order)
    assert [f.entries for f in dataset.manifest.sources] == list(order)
    want = np.concatenate([toy_columns(n)["event"] for n in order])
    assert dataset.arrays().event.to_list() == want.tolist()


@pytest.mark.scenario(44)
def test_only_empty_sources_are_refused(tmp_path: Path, opened: Cache) -> None:
    for name in "ab":
        write_toy_tree(tmp_path / f"{name}.root", entries=0)
    with pytest.raises(FormatError, match=r"no entries to convert: .*a\.root .Events., .*b\.root .Events. are empty"):
        convert(str(tmp_path / "?.root"), name="x")
    check_nothing_seen(opened)


@pytest.mark.scenario(44)
def test_one_entry(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=1)
    dataset = convert(str(tmp_path / "toy.root"), name="x")
    assert dataset.arrays().event.to_list() == toy_columns(1)["event"].tolist()


def test_a_source_that_changed_since_is_noticed(tmp_path: Path, opened: Cache) -> None:
    path = tmp_path / "toy.root"
    write_toy_tree(path, entries=10)
    convert(str(path), name="x", workers=1)
    write_toy_tree(path, entries=11)
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceChangedError, match=r"toy\.root has changed since dataset 'x' was made"):
        convert(str(path), name="x", workers=1)
    assert len(open_dataset("x")) == 10
    path.unlink()
    with pytest.raises(NotFoundError, match=r"toy\.root: no such file"):
        convert(str(path), name="x", workers=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_source_that_changes_in_between_is_noticed(tmp_path: Path, opened: Cache, workers: int) -> None:
    path = tmp_path / "toy.root"
    write_toy_tree(path, entries=4000, basket_entries=500)
    other = tmp_path / "other.root"
    write_toy_tree(other, entries=4000, basket_entries=500, seed=1)
    os.utime(other, ns=(1, 1))

    class Swap(BuildProgress):
        def start(self, total_entries: int) -> None:  # noqa: ARG002
            other.replace(path)

    with pytest.raises(SourceChangedError, match=r"toy\.root changed while it was being converted"):
        convert(str(path), name="x", workers=workers, chunk_bytes=50_000, progress=Swap())
    check_nothing_seen(opened)


def test_a_source_that_changes_in_between_is_not_left_out_as_bad(tmp_path: Path, opened: Cache) -> None:
    paths = [tmp_path / f"{number}.root" for number in range(3)]
    for number, path in enumerate(paths):
        write_toy_tree(path, entries=500, seed=number)

    class Touch(BuildProgress):
        def start(self, total_entries: int) -> None:  # noqa: ARG002
            os.utime(paths[2], ns=(1, 1))

    options: dict[str, Any] = {"workers": 1, "chunk_bytes": 20_000, "on_bad_source": "skip"}
    with pytest.raises(SourceChangedError, match="run the command again"):
        convert(list(map(str, paths)), name="x", progress=Touch(), **options)
    assert len(convert(list(map(str, paths)), name="x", **options)) == 1500


def test_a_zarr_folder_is_known_again(tmp_path: Path) -> None:
    folder = tmp_path / "in.zarr"
    group = zarr.open_group(folder, mode="w")
    group.create_array("x", data=np.arange(10))
    other = tmp_path / "other.zarr"
    shutil.copytree(folder, other)
    first = convert(str(folder), name="x", workers=1)
    assert convert(str(folder), name="x", workers=1).manifest == first.manifest
    assert len(append("x", [str(folder), str(other)], workers=1)) == 20
    group.create_array("y", data=np.arange(10))
    with pytest.raises(SourceChangedError, match=r"in\.zarr has changed since"):
        append("x", str(folder))


def test_skipped_columns_are_in_the_order_of_the_columns(tmp_path: Path) -> None:
    """Not in that in which workers came upon them, or the manifest would differ."""
    write_toy_tree(tmp_path / "toy.root", entries=10)
    location, spec = Location(str(tmp_path / "toy.root")), ConversionSpec(((str(tmp_path / "toy.root"), None),))
    with closing(KeptSource()) as kept:
        found = inspect_sources([location], spec, load_settings(), "", kept)
    first, second = found.names[1], found.names[4]
    one = without_columns(without_columns(found, {first: "odd"}, spec), {second: "odd"}, spec)
    other = without_columns(without_columns(found, {second: "odd"}, spec), {first: "odd"}, spec)
    assert one == other
    assert [s.name for s in one.skipped] == [first, second]


def test_no_secret_in_any_artefact(tmp_path: Path, opened: Cache, capfd: pytest.CaptureFixture[str]) -> None:
    from storagering.catalog.query import sql

    (tmp_path / "in").mkdir()
    write_toy_tree(tmp_path / "in" / "toy.root", entries=2000, basket_entries=100)
    with http_server(tmp_path / "in") as server, warnings.catch_warnings():
        url = f"{server.url('toy.root')}?authz=Bearer%20{CANARY}&token={CANARY}".replace("//", f"//me:{CANARY}@")
        dataset = convert({"a": url}, name="x", workers=2, chunk_bytes=20_000)
        assert f"{CANARY}" in server.requests[0].path
    sql("SELECT count(*) FROM x")
    artefacts = [p for p in opened.root.rglob("*") if p.is_file()]
    assert len(artefacts) > 5
    for path in artefacts:
        assert CANARY.encode() not in path.read_bytes(), path
    assert CANARY not in repr(dataset.manifest) + "".join(capfd.readouterr())
    assert dataset.manifest.sources[0].url.endswith("/toy.root")
