"""Files that are fetched whole before they are read: when, how often, and what their checksums say."""

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from zlib import adler32

import numpy as np
import pytest
import zarr

from storagering.config import Settings, load_settings
from storagering.errors import ChecksumError, SourceChangedError, SourceError, SpecError
from storagering.formats.blob import open_blob
from storagering.formats.readers import open_source
from storagering.formats.source import Location
from storagering.formats.whole import open_reliably, settle_location
from storagering.testing.http import HTTPServer, http_server
from storagering.testing.toys import write_toy_tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    write_toy_tree(folder / "toy.root", entries=3000)
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[HTTPServer]:
    with http_server(folder) as server:
        yield server


@pytest.fixture
def settings() -> Settings:
    return load_settings(retries=1)


def sum_of(path: Path) -> str:
    return f"adler32:{adler32(path.read_bytes()):08x}"


def whole(server: HTTPServer, settings: Settings, checksum: str = "") -> Location:
    url = server.url("toy.root")
    with closing(open_reliably(Location(url), settings)) as blob:
        return Location(url, whole=True, checksum=checksum, state=blob.state)


def settle(location: Location, settings: Settings, names: list[str] | None = None) -> Location:
    with closing(open_source(location, None, settings)) as source:
        return settle_location(location, source, names or list(source.columns), settings, "")


def files(spool: Path) -> list[Path]:
    return [path for path in spool.iterdir() if path.suffix != ".lock"]


def test_it_is_fetched_once(server: HTTPServer, folder: Path, settings: Settings, tmp_path: Path) -> None:
    location = whole(server, settings, sum_of(folder / "toy.root"))
    with closing(open_blob(location, settings, str(tmp_path / "spool"))) as blob:
        assert blob.read(0, blob.size) == (folder / "toy.root").read_bytes()
        assert (blob.url, blob.checksum) == (location.url, location.checksum)
        assert location.state
        assert blob.version == location.state.version
    server.fault = "500"
    server.requests.clear()
    with closing(open_blob(location, settings, str(tmp_path / "spool"))) as blob:
        assert bytes(blob.read(0, 4)) == b"root"
    assert not server.requests
    assert len(files(tmp_path / "spool")) == 1


def test_a_wrong_checksum_leaves_nothing(server: HTTPServer, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ChecksumError, match=r"toy\.root: its bytes give adler32:.*should give adler32:00000001"):
        open_blob(whole(server, settings, "adler32:00000001"), settings, str(tmp_path / "spool"))
    assert files(tmp_path / "spool") == []


def test_a_damaged_copy_is_left_for_a_replica(
    server: HTTPServer, folder: Path, settings: Settings, tmp_path: Path
) -> None:
    good = (folder / "toy.root").read_bytes()
    location = replace(whole(server, settings, sum_of(folder / "toy.root")), replicas=(str(tmp_path / "copy"),))
    (tmp_path / "copy").write_bytes(good)
    damaged = good[:1000] + bytes([good[1000] ^ 1]) + good[1001:]
    before = (folder / "toy.root").stat().st_mtime_ns
    (folder / "toy.root").write_bytes(damaged)
    os.utime(folder / "toy.root", ns=(before, before))
    with closing(open_blob(location, settings, str(tmp_path / "spool"))) as blob:
        assert blob.read(0, blob.size) == good


def test_a_file_that_changed_since_is_refused(
    server: HTTPServer, folder: Path, settings: Settings, tmp_path: Path
) -> None:
    location = whole(server, settings)
    os.utime(folder / "toy.root", (1, 1))
    with pytest.raises(SourceChangedError):
        open_blob(location, settings, str(tmp_path / "spool"))


def test_a_server_that_dies_meanwhile(server: HTTPServer, settings: Settings, tmp_path: Path) -> None:
    location = whole(server, settings)
    server.fault = "short"
    with pytest.raises(SourceError):
        open_blob(location, settings, str(tmp_path / "spool"))
    assert files(tmp_path / "spool") == []


def test_most_columns_are_fetched_whole_few_by_ranges(server: HTTPServer, folder: Path, settings: Settings) -> None:
    server.digest = f"adler32={sum_of(folder / 'toy.root').partition(':')[2]}"
    url = server.url("toy.root")
    most, few = settle(Location(url), settings), settle(Location(url), settings, ["run"])
    assert (most.whole, most.checksum) == (True, sum_of(folder / "toy.root"))
    assert (few.whole, few.checksum) == (False, "")
    assert most.state == few.state
    small = replace(settings, whole_file_bytes=1000)
    assert not settle(Location(url), small).whole
    assert settle(Location(url, checksum="adler32:00000001"), small, ["run"]).whole


def test_replicas_are_known_by_the_checksum(server: HTTPServer, settings: Settings) -> None:
    server.digest = "adler32=00000001"
    location = Location(server.url("toy.root"), replicas=(server.url("copy.root"),))
    known = whole(server, settings).state
    assert known is not None
    assert settle(location, settings, ["run"]).state == replace(known, checksum="adler32:00000001")


def test_local_files_are_compared_at_once(folder: Path, settings: Settings) -> None:
    location = Location(str(folder / "toy.root"), checksum=sum_of(folder / "toy.root"))
    assert settle(location, settings) == location
    with pytest.raises(ChecksumError, match=r"toy\.root"):
        settle(replace(location, checksum="adler32:00000001"), settings)


def test_a_file_without_entries_is_compared_at_once(server: HTTPServer, folder: Path, settings: Settings) -> None:
    write_toy_tree(folder / "empty.root", entries=0)
    url = server.url("empty.root")
    assert not settle(Location(url), settings).whole
    assert settle(Location(url, checksum=sum_of(folder / "empty.root")), settings).whole
    with pytest.raises(ChecksumError):
        settle(Location(url, checksum="adler32:00000001"), settings)


def test_formats_read_from_beginning_to_end_are_fetched_before(
    server: HTTPServer, folder: Path, settings: Settings
) -> None:
    (folder / "some.csv").write_text("x,y\n" + "1,2\n" * 1000)
    server.digest = f"adler32={sum_of(folder / 'some.csv').partition(':')[2]}"
    with closing(open_source(server.url("some.csv"), None, settings)) as source:
        assert source.checksum == sum_of(folder / "some.csv")
        assert source.read(["y"], 0, 3)["y"].tolist() == [2, 2, 2]
    server.digest = "adler32=00000001"
    os.utime(folder / "some.csv", (1, 1))
    with pytest.raises(ChecksumError):
        open_source(server.url("some.csv"), None, settings)


def test_a_zarr_folder_has_no_checksum(tmp_path: Path, settings: Settings) -> None:
    zarr.open_group(str(tmp_path / "x.zarr"), mode="w").create_array("x", data=np.arange(3))
    location = Location(str(tmp_path / "x.zarr"), checksum="adler32:00000001")
    with (
        closing(open_source(location, None, settings)) as source,
        pytest.raises(SpecError, match="no checksum as a whole"),
    ):
        settle_location(location, source, ["x"], settings, "")
