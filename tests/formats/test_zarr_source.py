"""Zarr stores as zarr, our exporter and our own chunks write them, against zarr itself."""

import json
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import zarr

import storagering as sr
from storagering.config import Settings, load_settings
from storagering.errors import CorruptDataError, FormatError, NotFoundError, StorageringError
from storagering.formats.readers import open_source
from storagering.formats.source import Location, SeveralTablesError, Source, UnreadableColumnsError
from storagering.formats.writers import writer_class
from storagering.formats.writers.output import write_output
from storagering.formats.writers.writer import WriteOptions
from storagering.testing import xrootd
from storagering.testing.contracts import make_batch, sample_columns, sample_unions
from storagering.testing.http import http_server
from storagering.testing.s3 import s3_server
from storagering.testing.source_contract import SourceContract, assert_same
from storagering.types import Array

JETS = np.dtype([("pt", "f4"), ("flavour", "i4")])


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def columns_of(entries: int = 100) -> dict[str, Array]:
    rng = np.random.default_rng(entries)
    return {
        "pt": rng.random(entries, "f4"),
        "n": rng.integers(1, 9, entries, "u1"),
        "big": rng.integers(1, 9, entries).astype(">i8"),
        "image": rng.random((entries, 3, 4)),
        "word": np.array([f"é{i}" for i in range(entries)], "U5"),
        "raw": np.array([b"a%d" % i for i in range(entries)], "S4"),
        "good": np.ones(entries, bool),
        "when": (np.arange(entries) + 1).astype("M8[ns]"),
        "z": rng.random(entries) + 1j,
    }


@pytest.fixture(params=[2, 3])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Zarr remarks on types that are not in its specification yet when it writes them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(specification|Consolidated metadata)")
        yield


def write_store(path: Any, version: int, *, entries: int = 100, shards: int | None = None) -> dict[str, Array]:
    columns = columns_of(entries)
    root = zarr.open_group(path, mode="w", zarr_format=version)
    group = root.create_group("events")
    for name, values in columns.items():
        rest = values.shape[1:]
        inner = {"shards": (shards, *rest)} if shards and version == 3 and values.dtype.kind not in "US" else {}
        group.create_array(name, data=values, chunks=(16, *rest), attributes={"units": "GeV"}, **inner)
    return columns


def assert_equal(source: Source, columns: Mapping[str, Array], start: int, stop: int) -> None:
    arrays = source.read(list(columns), start, stop)
    for name, values in columns.items():
        want = values[start:stop]
        if want.dtype.kind in "US":
            assert arrays[name].to_list() == [w.decode() if isinstance(w, bytes) else w for w in want.tolist()]
        else:
            want = want.astype(want.dtype.newbyteorder("="))
            want = want.view("i8") if want.dtype.kind == "M" else want
            got = ak.to_numpy(arrays[name])
            assert (got.dtype, got.shape, got.tobytes()) == (want.dtype, want.shape, want.tobytes()), name


def test_folders(tmp_path: Path, settings: Settings, version: int) -> None:
    columns = write_store(tmp_path / "x.zarr", version)
    files = [f for f in (tmp_path / "x.zarr").rglob("*") if f.is_file()]
    with closing(open_source(str(tmp_path / "x.zarr"), None, settings)) as source:
        assert (source.format, source.tree, source.entries) == ("zarr", "events", 100)
        assert set(source.columns) == set(columns)
        assert source.columns["image"] == "float64[3][4]"
        assert source.nbytes == sum(f.stat().st_size for f in files)
        assert source.doc("pt") == "[GeV]"
        assert source.doc("when") == "[GeV] time since 1970-01-01 [ns]"
        assert source.boundaries(["pt", "image"]) == [0, 16, 32, 48, 64, 80, 96, 100]
        assert 0 < source.nbytes_of(["n"]) < source.nbytes_of(["image"]) < source.nbytes
        assert not source.self_checked
        for start, stop in [(0, 100), (15, 33), (99, 100), (50, 50)]:
            assert_equal(source, columns, start, stop)


def test_zip_files(tmp_path: Path, settings: Settings, version: int) -> None:
    with closing(zarr.storage.ZipStore(tmp_path / "x.zip", mode="w")) as store:
        columns = write_store(store, version)
    write_store(tmp_path / "y.zarr", version)
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "y.zarr")
    for name in ("x.zip", "packed.zip"):
        with closing(open_source(str(tmp_path / name), None, settings)) as source:
            assert source.nbytes == (tmp_path / name).stat().st_size
            assert source.self_checked
            assert_equal(source, columns, 7, 81)


def test_shards_are_not_cut(tmp_path: Path, settings: Settings) -> None:
    columns = write_store(tmp_path / "x.zarr", 3, shards=48)
    with closing(open_source(str(tmp_path / "x.zarr"), None, settings)) as source:
        assert source.boundaries(["pt"]) == [0, 48, 96, 100]
        assert_equal(source, columns, 40, 99)


def test_a_version_changes_with_any_file(tmp_path: Path, settings: Settings) -> None:
    write_store(tmp_path / "x.zarr", 3)
    seen = []
    for _ in range(2):
        with closing(open_source(str(tmp_path / "x.zarr"), None, settings)) as source:
            seen.append(source.version)
        with (tmp_path / "x.zarr" / "events" / "pt" / "c" / "0").open("ab") as file:
            file.write(b"x")
    assert seen[0] != seen[1]
    assert all(seen)


def test_structured_arrays_and_tables(tmp_path: Path, settings: Settings) -> None:
    jets = np.array([(i, -i) for i in range(9)], JETS)
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=2)
    group.create_array("jets", shape=(9,), dtype=JETS, chunks=(4,))[:] = jets
    with closing(open_source(str(tmp_path / "x.zarr"), None, settings)) as source:
        assert (source.tree, list(source.columns)) == ("jets", ["pt", "flavour"])
        assert_equal(source, {n: jets[n] for n in ("pt", "flavour")}, 0, 9)
    group.create_array("events", data=np.arange(1, 4))
    with pytest.raises(SeveralTablesError) as caught:
        open_source(str(tmp_path / "x.zarr"), None, settings)
    assert set(caught.value.tables) == {"jets", "events"}
    with closing(open_source(str(tmp_path / "x.zarr"), "events", settings)) as source:
        assert source.read(["events"], 0, 3)["events"].to_list() == [1, 2, 3]
    with pytest.raises(NotFoundError, match="jts"):
        open_source(str(tmp_path / "x.zarr"), "jts", settings)


def test_a_store_that_is_one_array(tmp_path: Path, settings: Settings, version: int) -> None:
    zarr.create_array(tmp_path / "a.zarr", data=np.arange(1, 9), chunks=(3,), zarr_format=version)
    with closing(open_source(str(tmp_path / "a.zarr"), None, settings)) as source:
        assert (source.tree, list(source.columns)) == ("", ["values"])
        assert source.read(["values"], 2, 8)["values"].to_list() == [3, 4, 5, 6, 7, 8]


def test_variable_length_strings_and_bytes(tmp_path: Path, settings: Settings, version: int) -> None:
    words = ["naïve", "", "x" * 99, "nul\0inside"]
    group = zarr.open_group(tmp_path / "x.zarr", mode="w", zarr_format=version)
    group.create_array("s", shape=(4,), dtype="str", chunks=(3,))[:] = np.array(words, np.dtypes.StringDType())
    kind = zarr.core.dtype.VariableLengthBytes()
    group.create_array("b", shape=(4,), dtype=kind, chunks=(3,))[:] = np.array([w.encode() for w in words], object)
    with closing(open_source(str(tmp_path / "x.zarr"), None, settings)) as source:
        arrays = source.read(["s", "b"], 0, 4)
    assert arrays["s"].to_list() == arrays["b"].to_list() == words


@pytest.mark.scenario(18)
@pytest.mark.parametrize("packed", [False, True])
def test_an_absent_chunk_is_an_error_never_fill_values(
    tmp_path: Path, settings: Settings, version: int, packed: bool
) -> None:
    columns = write_store(tmp_path / "x.zarr", version)
    (tmp_path / "x.zarr" / "events" / "pt" / ("c/2" if version == 3 else "2")).unlink()
    path = tmp_path / "x.zarr"
    if packed:
        path = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "x.zarr"))
    with closing(open_source(str(path), None, settings)) as source:
        assert_equal(source, {"pt": columns["pt"]}, 0, 32)
        assert_equal(source, {"image": columns["image"]}, 0, 100)
        with pytest.raises(CorruptDataError, match=rf"{path.name}.*'events/pt'.*absent.*FILL_ABSENT_CHUNKS"):
            source.read(["pt"], 31, 33)
    with pytest.raises(CorruptDataError, match="absent"):
        sr.convert(path, name="lost", workers=1)
    with closing(open_source(str(path), None, load_settings(fill_absent_chunks=True))) as source:
        assert source.read(["pt"], 31, 34)["pt"].to_list() == [columns["pt"][31], 0, 0]


def test_chunks_that_a_shard_leaves_out_are_fill_values(tmp_path: Path, settings: Settings) -> None:
    """The shard says itself that they are, under a checksum."""
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    values = np.array([1, 2, 0, 0, 5, 6])
    group.create_array("x", shape=(6,), dtype="i8", chunks=(2,), shards=(6,))[:] = values
    with closing(open_source(str(tmp_path / "x.zarr"), None, settings)) as source:
        assert_equal(source, {"x": values}, 0, 6)


@pytest.mark.parametrize("lost", [".zarray", "zarr.json"])
def test_lost_metadata_lose_no_column_silently(tmp_path: Path, settings: Settings, lost: str) -> None:
    write_store(tmp_path / "x.zarr", 3 if lost == "zarr.json" else 2)
    (tmp_path / "x.zarr" / "events" / "pt" / lost).unlink()
    with pytest.raises(CorruptDataError, match=r"events/pt.*metadata are lost"):
        open_source(str(tmp_path / "x.zarr"), None, settings)


@pytest.mark.parametrize("packed", [False, True])
def test_a_lost_array_that_the_index_lists(tmp_path: Path, settings: Settings, version: int, packed: bool) -> None:
    write_store(tmp_path / "x.zarr", version)
    zarr.consolidate_metadata(tmp_path / "x.zarr")
    open_source(str(tmp_path / "x.zarr"), None, settings).close()
    shutil.rmtree(tmp_path / "x.zarr" / "events" / "pt")
    path = tmp_path / "x.zarr"
    if packed:
        path = Path(shutil.make_archive(str(tmp_path / "y"), "zip", path))
    with pytest.raises(CorruptDataError, match=r"the array 'events/pt' is listed in .* and not there"):
        open_source(str(path), None, settings)


def test_damaged_metadata_and_chunks(tmp_path: Path, settings: Settings) -> None:
    write_store(tmp_path / "x.zarr", 3)
    chunk = tmp_path / "x.zarr" / "events" / "image" / "c" / "0" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with (
        closing(open_source(str(tmp_path / "x.zarr"), None, settings)) as source,
        pytest.raises(CorruptDataError, match=r"x\.zarr.*'events/image' is damaged"),
    ):
        source.read(["image"], 0, 5)
    (tmp_path / "x.zarr" / "events" / "zarr.json").write_text('{"zarr_format"')
    with pytest.raises(CorruptDataError, match=r"events/zarr\.json.*damaged"):
        open_source(str(tmp_path / "x.zarr"), None, settings)


@pytest.mark.scenario(49)
def test_unknown_codecs_and_types_are_named(tmp_path: Path, settings: Settings) -> None:
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    for name in ("good", "codec", "huge"):
        group.create_array(name, data=np.arange(1, 4))
    group.create_array("raw", shape=(3,), dtype="V3")
    for name, change in {
        "codec": {"codecs": [{"name": "someone.secret"}]},
        "huge": {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1 << 40]}}},
    }.items():
        path = tmp_path / "x.zarr" / name / "zarr.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with closing(open_source(str(tmp_path / "x.zarr"), None, settings)) as source:
        with pytest.raises(UnreadableColumnsError) as caught:
            source.read(list(source.columns), 0, 3)
        assert source.read(["good"], 0, 3)["good"].to_list() == [1, 2, 3]
    reasons = caught.value.reasons
    assert set(reasons) == {"codec", "huge", "raw"}
    assert "someone.secret" in reasons["codec"]
    assert "bytes each" in reasons["huge"]


def test_our_own_chunks_are_sources(tmp_path: Path) -> None:
    """Also with counts that several columns share, and with names that are no paths."""
    columns = sample_columns(50) | sample_unions(50) | {"a/b": np.arange(50)}
    del columns["empty_record"]
    columns["twin_u1"] = ~columns["jagged_u1"]
    batch = make_batch(columns)
    write_output(writer_class("zarr"), tmp_path / "in.zip", batch.schema, lambda: [batch], WriteOptions(), force=True)
    for profile in ("small", "fast"):
        dataset = sr.convert(tmp_path / "in.zip", name=f"chunks-{profile}", profile=profile, workers=1)
        with closing(open_source(str(dataset.path / dataset.manifest.chunks[0].file), None, load_settings())) as source:
            assert list(source.columns) == list(columns)
            assert_same(source.read(list(columns), 0, 50), columns)
            assert_same(source.read(["twin_u1", "union"], 9, 31), {n: columns[n][9:31] for n in ("twin_u1", "union")})


@pytest.mark.xrootd
def test_from_a_server_that_lists(tmp_path: Path, settings: Settings) -> None:
    if not xrootd.available():
        pytest.skip("no xrootd on the PATH: apt-get install xrootd-server")
    columns = write_store(tmp_path / "x.zarr", 3)
    with xrootd.xrootd_server(tmp_path) as server:
        replicas = (server.url("x.zarr"),)
        with closing(open_source(Location("root://127.0.0.1:1//x.zarr", replicas), None, settings)) as source:
            assert source.nbytes == sum(f.stat().st_size for f in (tmp_path / "x.zarr").rglob("*") if f.is_file())
            assert source.version
            assert_equal(source, columns, 10, 60)
        with pytest.raises(NotFoundError):
            open_source(server.url("absent.zarr"), None, settings)


def test_from_object_storage(tmp_path: Path, settings: Settings) -> None:
    columns = {"x": np.arange(1, 10)}
    zarr.open_group(tmp_path / "x.zarr", mode="w").create_array("x", data=columns["x"], chunks=(4,))
    with s3_server() as server:
        for file in (tmp_path / "x.zarr").rglob("*"):
            if file.is_file():
                server.add(file, file.relative_to(tmp_path).as_posix())
        versions = []
        for _ in range(2):
            with closing(open_source(server.url("x.zarr"), None, settings)) as source:
                assert_equal(source, columns, 2, 9)
                versions.append(source.version)
            server.add(tmp_path / "x.zarr" / "zarr.json", "x.zarr/x/c/9")
        assert len(set(versions)) == 2


def test_from_a_server_that_cannot_list(tmp_path: Path, settings: Settings, version: int) -> None:
    columns = write_store(tmp_path / "x.zarr", version)
    zarr.create_array(tmp_path / "one.zarr", data=columns["pt"], chunks=(9,), zarr_format=version)
    with http_server(tmp_path) as server:
        with pytest.raises(FormatError, match="consolidate_metadata"):
            open_source(server.url("x.zarr"), None, settings)
        zarr.consolidate_metadata(tmp_path / "x.zarr")
        with closing(open_source(server.url("x.zarr"), None, settings)) as source:
            assert_equal(source, columns, 10, 60)
            (tmp_path / "x.zarr" / "events" / "pt" / ("c/1" if version == 3 else "1")).unlink()
            with pytest.raises(CorruptDataError, match="absent"):
                source.read(["pt"], 10, 60)
            server.fault = "403"
            with pytest.raises(StorageringError) as caught:
                source.read(["image"], 0, 60)
            assert not isinstance(caught.value, CorruptDataError)
        server.fault = None
        with closing(open_source(server.url("one.zarr"), None, settings)) as source:
            assert_equal(source, {"values": columns["pt"]}, 5, 50)
        with pytest.raises(NotFoundError):
            open_source(server.url("absent.zarr"), None, settings)


def test_converting_a_folder(tmp_path: Path) -> None:
    columns = write_store(tmp_path / "x.zarr", 3, entries=3000)
    dataset = sr.convert(tmp_path / "x.zarr", name="folder", columns=["pt", "image"], chunk_bytes=50_000, workers=2)
    arrays = dataset.arrays(["pt", "image"])
    assert len(dataset.manifest.chunks) > 3
    assert ak.array_equal(arrays["image"], columns["image"], dtype_exact=True)
    assert ak.array_equal(arrays["pt"], columns["pt"], dtype_exact=True)


def test_damage_in_a_zip_file_is_seen_wherever_it_is(tmp_path: Path, settings: Settings) -> None:
    values = np.arange(1, 25, dtype="i4")
    with closing(zarr.storage.ZipStore(tmp_path / "x.zip", mode="w")) as store:
        zarr.create_array(store, name="x", data=values, chunks=(12,), compressors=None)
    data = (tmp_path / "x.zip").read_bytes()
    wrong = []
    for at in range(0, len(data), 3):
        (tmp_path / "bad.zip").write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        try:
            with closing(open_source(str(tmp_path / "bad.zip"), None, settings)) as source:
                found = source.read(["x"], 0, source.entries)["x"].to_list()
        except StorageringError:
            continue
        if found != values.tolist():
            wrong.append(at)
    assert not wrong


def test_a_zip_file_without_a_store(tmp_path: Path, settings: Settings) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("readme.txt", "nothing")
    with pytest.raises(FormatError, match=r"x\.zip"):
        open_source(str(tmp_path / "x.zip"), None, settings)


class TestContract(SourceContract):
    format = "zarr"
    checked = True
    samples = 40

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        batch = make_batch(columns)
        place = path.with_name(f"{path.name}.tmp.zip")
        write_output(writer_class("zarr"), place, batch.schema, lambda: [batch], WriteOptions(), force=True)
        place.rename(path)
