"""The bytes of HDF5 files: from servers, in few requests, and checked where the file has checksums."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tests.formats.hdf5_files import everything, read, same, write_salt

from storagering.config import Settings, load_settings
from storagering.errors import CorruptDataError, StorageringError
from storagering.formats.readers import open_source
from storagering.testing import xrootd
from storagering.testing.http import http_server


@pytest.fixture
def settings() -> Settings:
    return load_settings()


@pytest.fixture(params=["http", pytest.param("xrootd", marks=pytest.mark.xrootd)])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Turns a file's path into an address on a server."""
    if request.param == "http":
        with http_server(tmp_path) as server:
            yield lambda path: server.url(path.name)
    elif not xrootd.available():
        pytest.skip("no xrootd on the PATH: apt-get install xrootd-server")
    else:
        with xrootd.xrootd_server() as server:
            yield server.add


def test_from_a_server(tmp_path: Path, serve: Callable[[Path], str], settings: Settings) -> None:
    jets, tracks = write_salt(tmp_path / "salt.h5")
    with closing(open_source(serve(tmp_path / "salt.h5"), None, settings)) as source:
        assert same(read(source, "jets/pt"), jets["pt"])
        assert same(source.read(["tracks/d0"], 60, 140)["tracks/d0"], tracks["d0"][60:140])


def test_few_requests_and_few_bytes(tmp_path: Path, settings: Settings) -> None:
    values = np.random.default_rng(1).random((40_000, 8))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name in "ab":
            file.create_dataset(name, data=values, chunks=(100, 8), compression="gzip")
    with http_server(tmp_path) as server, closing(open_source(server.url("x.h5"), None, settings)) as source:
        before = len(server.requests)
        assert same(read(source, "a"), values)
        assert len(server.requests) - before < 12  # of 400 chunks


def test_a_server_that_dies_is_no_damage(tmp_path: Path, settings: Settings) -> None:
    values = np.random.default_rng(1).random((40_000, 8))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(1000, 8), compression="gzip")
    with http_server(tmp_path) as server, closing(open_source(server.url("x.h5"), None, settings)) as source:
        server.fault = "403"
        with pytest.raises(StorageringError) as caught:
            read(source, "x")
        assert not isinstance(caught.value, CorruptDataError)


def test_every_byte_of_a_file_with_checksums_is_checked(tmp_path: Path, settings: Settings) -> None:
    values = np.arange(40, dtype="i4")
    with h5py.File(tmp_path / "x.h5", "w", libver=("v110", "latest")) as file:
        file.create_dataset("x", data=values, chunks=(16,), fletcher32=True)
    with closing(open_source(str(tmp_path / "x.h5"), None, settings)) as source:
        assert source.self_checked
    data = (tmp_path / "x.h5").read_bytes()
    wrong = []
    for at in range(0, len(data), 2):
        (tmp_path / "bad.h5").write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        try:
            found = everything(tmp_path / "bad.h5")
        except StorageringError:
            continue
        if list(found) != ["x"] or not same(found["x"], values):
            wrong.append(at)
    assert not wrong


def test_old_files_are_not_called_checked(tmp_path: Path, settings: Settings) -> None:
    with h5py.File(tmp_path / "old.h5", "w", libver="earliest") as file:
        file.create_dataset("x", data=np.arange(40), chunks=(16,), fletcher32=True)
    with h5py.File(tmp_path / "heap.h5", "w", libver=("v110", "latest")) as file:
        file.create_dataset("x", data=["a"] * 40, dtype=h5py.string_dtype(), chunks=(16,))
    for name in ("old.h5", "heap.h5"):
        with closing(open_source(str(tmp_path / name), None, settings)) as source:
            assert not source.self_checked
