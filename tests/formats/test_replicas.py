"""Replicas: used when a server fails, skipped when they are other files, never mixed up with them."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from zlib import adler32

import numpy as np
import pytest

from storagering.config import Settings, load_settings
from storagering.errors import AuthError, NotFoundError, RefusedError, SourceChangedError, UnreachableError
from storagering.formats.blob import open_blob
from storagering.formats.remote import reliable
from storagering.formats.source import FileState, Location
from storagering.formats.whole import open_reliably
from storagering.testing.http import HTTPServer, http_server

CONTENT = np.random.default_rng(0).bytes(100_000)
CHECKSUM = f"adler32:{adler32(CONTENT):08x}"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[HTTPServer]]:
    with ExitStack() as stack:
        found: list[HTTPServer] = []
        for name in ("first", "second", "third"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file.bin").write_bytes(CONTENT)
            os.utime(tmp_path / name / "file.bin", (len(found), len(found)))
            found.append(stack.enter_context(http_server(tmp_path / name)))
        yield found


@pytest.fixture
def settings() -> Settings:
    return load_settings(connect_timeout_seconds=1, request_timeout_seconds=1, retries=1)


def location(servers: list[HTTPServer], checksum: str = "", state: FileState | None = None) -> Location:
    first, *others = (server.url("file.bin") for server in servers)
    return Location(first, replicas=tuple(others), checksum=checksum, state=state)


@pytest.mark.parametrize("fault", ["404", "403", "500", "reset", "short", "wrong-range", "no-range"])
def test_reading_goes_on_with_the_next(
    servers: list[HTTPServer], settings: Settings, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(open_reliably(location(servers), settings)) as blob:
        version = blob.version
        assert blob.read(0, 50_000) == CONTENT[:50_000]
        servers[0].fault = fault  # type: ignore[assignment]
        assert blob.read(50_000, 90_000) == CONTENT[50_000:90_000]
        servers[1].fault = fault  # type: ignore[assignment]
        assert blob.read(0, 90_000) == CONTENT[:90_000]
        assert blob.version == version
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert f"going on with {servers[1].url('file.bin')}" in caplog.text


def test_opening_goes_on_with_the_next(servers: list[HTTPServer], settings: Settings) -> None:
    servers[0].fault = "404"
    with closing(open_blob(location(servers), settings)) as blob:
        assert blob.read(0, 10) == CONTENT[:10]
        assert blob.url == servers[0].url("file.bin")


def test_all_failures_are_told(servers: list[HTTPServer], settings: Settings) -> None:
    for server, fault in zip(servers, ("404", "500", "403"), strict=True):
        server.fault = fault  # type: ignore[assignment]
    with pytest.raises(AuthError, match=r"no such file; .*answers 500.*; .*access denied"):
        open_reliably(location(servers), settings)


def test_a_file_of_another_size_is_no_replica(servers: list[HTTPServer], settings: Settings) -> None:
    (servers[1].root / "file.bin").write_bytes(CONTENT[:-1])
    with closing(open_reliably(location(servers), settings)) as blob:
        servers[0].fault = "500"
        assert blob.read(0, 100_000) == CONTENT
        assert servers[2].requests
        servers[2].fault = "500"
    with pytest.raises(RefusedError, match=r"99,999 bytes, .* has 100,000: not a replica"):
        open_reliably(location(servers[:2], state=blob.state), settings)


@pytest.mark.parametrize("vouched", [True, False])
def test_a_file_of_another_checksum_is_no_replica(servers: list[HTTPServer], settings: Settings, vouched: bool) -> None:
    (servers[1].root / "file.bin").write_bytes(CONTENT[::-1])
    for server in servers:
        server.digest = f"adler32={adler32((server.root / 'file.bin').read_bytes()):08x}"
    with closing(open_reliably(location(servers, CHECKSUM if vouched else ""), settings)) as blob:
        assert blob.state.checksum == ("" if vouched else CHECKSUM)
        servers[0].fault = "500"
        assert blob.read(0, 100_000) == CONTENT
        assert servers[2].requests


def test_a_change_is_not_covered_up(servers: list[HTTPServer], settings: Settings) -> None:
    with closing(open_reliably(location(servers), settings)) as blob:
        (servers[0].root / "file.bin").write_bytes(CONTENT[::-1])
        with pytest.raises(SourceChangedError):
            blob.read(0, 10)


def test_what_was_found_at_a_replica_is_known_to_others(servers: list[HTTPServer], settings: Settings) -> None:
    servers[0].fault = "500"
    with closing(open_reliably(location(servers), settings)) as blob:
        state = blob.state
    assert state.url == servers[1].url("file.bin")
    servers[0].fault = None
    with closing(open_reliably(location(servers, state=state), settings)) as blob:
        assert blob.read(0, 100_000) == CONTENT
        assert blob.version == state.version
    os.utime(servers[1].root / "file.bin", (99, 99))
    servers[0].fault = "500"
    with pytest.raises(SourceChangedError):
        open_reliably(location(servers, state=state), settings)


def test_a_local_file_has_and_is_a_replica(servers: list[HTTPServer], settings: Settings, tmp_path: Path) -> None:
    local = str(servers[2].root / "file.bin")
    servers[0].fault = "404"
    with closing(open_blob(Location(servers[0].url("file.bin"), replicas=(local,)), settings)) as blob:
        assert blob.read(0, 100_000) == CONTENT
    with closing(open_blob(Location(str(tmp_path / "absent"), replicas=(local,)), settings)) as blob:
        assert blob.read(0, 100_000) == CONTENT
    with pytest.raises(NotFoundError, match=r"absent: no such file; .*gone: no such file"):
        open_blob(Location(str(tmp_path / "absent"), replicas=(str(tmp_path / "gone"),)), settings)


def test_a_server_that_is_down_is_left_alone_for_a_while(servers: list[HTTPServer], settings: Settings) -> None:
    dead, url = "http://127.0.0.1:9/file.bin", servers[0].url("file.bin")
    begin = time.monotonic()
    for _ in range(20):
        with closing(open_reliably(Location(dead, replicas=(url,)), replace(settings, retries=3))) as blob:
            assert blob.read(0, 10) == CONTENT[:10]
    assert time.monotonic() - begin < 4
    with pytest.raises(UnreachableError):  # but asked, if there is nobody else
        open_reliably(Location(dead), settings)


@pytest.fixture(autouse=True)
def _no_memory_of_servers() -> Iterator[None]:
    yield
    reliable._down.clear()


def test_secrets_of_replicas_are_not_told(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    urls = [f"http://user:CANARY@127.0.0.1:{port}/x?authz=CANARY" for port in (9, 10)]
    with pytest.raises(UnreachableError) as caught:
        open_reliably(Location(urls[0], replicas=(urls[1],)), settings)
    assert "CANARY" not in str(caught.value) + caplog.text
    assert "127.0.0.1:10" in caplog.text
