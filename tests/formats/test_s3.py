"""Bytes from a real S3 server (moto's), and from other file systems of fsspec."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import fsspec
import numpy as np
import pytest

from storagering.config import Settings, load_settings
from storagering.errors import ConfigError, MissingExtraError, NotFoundError, SourceChangedError, SourceError
from storagering.formats.remote.options import storage_options
from storagering.formats.remote.reliable import ReliableBlob
from storagering.formats.source import Location
from storagering.formats.sources import resolve_sources
from storagering.formats.whole import open_reliably
from storagering.testing.s3 import S3Server, s3_server

CONTENT = np.random.default_rng(0).bytes(6 << 20)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("s3") / "file.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture(scope="module")
def server(path: Path) -> Iterator[S3Server]:
    with s3_server() as server:
        server.add(path)
        yield server


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def opened(url: str, settings: Settings) -> ReliableBlob:
    return open_reliably(Location(url), settings)


def test_ranges(server: S3Server, settings: Settings) -> None:
    ranges = [(n, n + 1000) for n in range(0, len(CONTENT), 1_000_000)] + [(5, 5), (0, 1 << 20)]
    with closing(opened(server.url("file.bin"), settings)) as blob:
        assert all(d == CONTENT[a:b] for d, (a, b) in zip(blob.read_ranges(ranges), ranges, strict=True))
        assert blob.read(0, blob.size) == CONTENT
        assert blob.read_ranges([]) == []


def test_what_is_not_there(server: S3Server, settings: Settings) -> None:
    for url in (server.url("absent"), "s3://nobucket/absent"):
        with pytest.raises(NotFoundError, match="absent: no such file"):
            opened(url, settings)


def test_an_object_that_changes(server: S3Server, settings: Settings, path: Path, tmp_path: Path) -> None:
    with closing(opened(server.add(path, "changing"), settings)) as blob:
        blob.read(0, 10)
        (tmp_path / "other").write_bytes(CONTENT[::-1])
        server.add(tmp_path / "other", "changing")
        with pytest.raises(SourceChangedError, match="changing changed while it was being read"):
            blob.read(10, 20)


def test_an_etag_is_a_checksum_unless_there_were_parts(server: S3Server, settings: Settings, path: Path) -> None:
    with closing(opened(server.url("file.bin"), settings)) as blob:
        assert blob.stated_checksum() == "md5:" + blob.version.strip('"')
    with closing(opened(server.add_in_parts(path, "parts"), settings)) as blob:
        assert blob.stated_checksum() == ""
        assert blob.read(0, blob.size) == CONTENT


def test_patterns(server: S3Server, settings: Settings, path: Path) -> None:
    for name in ("some/a.root", "some/b.root", "some/c.txt"):
        server.add(path, name)
    want = [(server.url("some/a.root"), None), (server.url("some/b.root"), None)]
    assert resolve_sources(server.url("some/*.root"), settings) == want


@pytest.mark.usefixtures("server")
def test_nobody_listens(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY")
    s3fs.S3FileSystem.clear_instance_cache()
    begin = time.monotonic()
    try:
        with pytest.raises(SourceError, match=r"127\.0\.0\.1:9.*is it up") as caught:
            opened("s3://bucket/x", settings)
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
    assert time.monotonic() - begin < 10
    assert "CANARY" not in str(caught.value)


def test_any_file_system_that_fsspec_knows(settings: Settings) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/storagering/file.bin", CONTENT)
    try:
        with closing(opened("memory://storagering/file.bin", settings)) as blob:
            assert blob.read(5, 1000) == CONTENT[5:1000]
            memory.pipe_file("/storagering/file.bin", CONTENT[::-1])
            with pytest.raises(SourceChangedError):
                blob.read(5, 1000)
    finally:
        memory.rm("/storagering", recursive=True)


@pytest.mark.parametrize("url", ["nope://host/x", "simplecache::s3://bucket/x", "reference://x", "data://x"])
def test_other_schemes_are_refused(url: str, settings: Settings) -> None:
    with pytest.raises(ConfigError):
        storage_options(url, settings)


def test_what_a_scheme_needs_is_named(settings: Settings) -> None:
    with pytest.raises(MissingExtraError, match="gcsfs"):
        storage_options("gs://bucket/x", settings)
