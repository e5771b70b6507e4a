"""Bytes from web servers: every answer is checked to be the range of the file that was asked for."""

import os
import socketserver
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from storagering.config import Settings, load_settings
from storagering.errors import (
    RefusedError,
    SourceChangedError,
    SourceError,
    SourceTimeoutError,
    StorageringError,
)
from storagering.formats.remote import http as remote_http
from storagering.formats.remote.http import bearer_token
from storagering.formats.remote.reliable import ReliableBlob
from storagering.formats.source import Location
from storagering.formats.whole import open_reliably
from storagering.testing.http import Fault, HTTPServer, http_server, make_certificate

CONTENT = np.random.default_rng(0).bytes(3 << 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "file.bin").write_bytes(CONTENT)
    (folder / "empty.bin").touch()
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[HTTPServer]:
    with http_server(folder) as server:
        yield server


@pytest.fixture
def settings() -> Settings:
    return load_settings(connect_timeout_seconds=1, request_timeout_seconds=1, retries=2, retry_seconds=2)


@pytest.fixture
def blob(server: HTTPServer, settings: Settings) -> Iterator[ReliableBlob]:
    with closing(open_reliably(Location(server.url("file.bin")), settings)) as blob:
        yield blob


def test_ranges(server: HTTPServer, blob: ReliableBlob) -> None:
    ranges = [(n, n + 1000) for n in range(0, len(CONTENT), 100_000)] + [(5, 5), (0, 1 << 20)]
    assert all(d == CONTENT[a:b] for d, (a, b) in zip(blob.read_ranges(ranges), ranges, strict=True))
    assert blob.read(0, blob.size) == CONTENT
    assert blob.read_ranges([]) == []
    assert all(request.range for request in server.requests)


def test_an_empty_file(server: HTTPServer, settings: Settings) -> None:
    with closing(open_reliably(Location(server.url("empty.bin")), settings)) as blob:
        assert blob.size == 0


def test_webdav_is_http(server: HTTPServer, settings: Settings) -> None:
    with closing(open_reliably(Location(server.url("file.bin").replace("http", "dav")), settings)) as blob:
        assert blob.read(5, 10) == CONTENT[5:10]


@pytest.mark.parametrize("fault", ["500", "reset", "short", "wrong-range"])
def test_a_fault_that_passes_is_not_seen(server: HTTPServer, blob: ReliableBlob, fault: Fault) -> None:
    server.fail(fault, times=1)
    assert blob.read(1000, 2000) == CONTENT[1000:2000]


@pytest.mark.parametrize(
    ("fault", "error", "attempts"),
    [
        ("500", SourceError, 3),
        ("reset", SourceError, 6),  # the client itself asks again over a new connection
        ("short", SourceError, 3),
        ("wrong-range", SourceError, 5),  # opened anew each time
        ("403", StorageringError, 1),
        ("404", StorageringError, 1),
        ("no-range", RefusedError, 1),
        ("redirect-loop", RefusedError, 9),
    ],
)
def test_attempts_are_bounded(
    server: HTTPServer, blob: ReliableBlob, fault: Fault, error: type[StorageringError], attempts: int
) -> None:
    server.requests.clear()
    server.fault = fault
    with pytest.raises(error, match=r"file\.bin"):
        blob.read(1000, 2000)
    assert 1 <= len(server.requests) <= attempts


@pytest.mark.parametrize("fault", ["stall", "slow"])
def test_a_server_that_takes_for_ever(server: HTTPServer, blob: ReliableBlob, fault: Fault) -> None:
    server.fault = fault
    begin = time.monotonic()
    with pytest.raises(SourceTimeoutError):
        blob.read(1000, 2000)
    assert time.monotonic() - begin < 9


@pytest.mark.parametrize("change", ["contents", "length"])
def test_a_file_that_changes(folder: Path, blob: ReliableBlob, change: str) -> None:
    blob.read(0, 10)
    (folder / "file.bin").write_bytes(CONTENT[::-1] if change == "contents" else CONTENT + b"x")
    os.utime(folder / "file.bin", (1, 1))
    with pytest.raises(SourceChangedError, match=r"file\.bin changed while it was being read"):
        blob.read(10, 20)


def test_a_file_that_changes_while_the_server_fails(folder: Path, server: HTTPServer, blob: ReliableBlob) -> None:
    (folder / "file.bin").write_bytes(CONTENT[::-1])
    os.utime(folder / "file.bin", (1, 1))
    server.fail("500", times=1)
    with pytest.raises(SourceChangedError):
        blob.read(10, 20)


def test_a_checksum_in_the_headers(server: HTTPServer, blob: ReliableBlob) -> None:
    assert blob.stated_checksum() == ""
    server.digest = "adler32=1a2b3c4d"
    assert blob.stated_checksum() == "adler32:1a2b3c4d"
    server.fault = "500"
    assert blob.stated_checksum() == ""


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path)


@pytest.fixture
def trusting(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The client trusts the test's certificate, and has connections of its own."""
    remote_http._session.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    yield
    remote_http._session.cache_clear()


def test_certificates_are_verified(folder: Path, certificate: tuple[Path, Path], settings: Settings) -> None:
    with http_server(folder, certificate) as server, pytest.raises(RefusedError, match="certificate"):
        open_reliably(Location(server.url("file.bin")), settings)


@pytest.mark.usefixtures("trusting")
def test_tokens_go_to_their_server_only(
    folder: Path,
    server: HTTPServer,
    certificate: tuple[Path, Path],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BEARER_TOKEN", "CANARY")
    with http_server(folder, certificate) as secure:
        with closing(open_reliably(Location(secure.url("file.bin")), settings)) as blob:
            assert blob.read(0, 10) == CONTENT[:10]
        assert {request.authorization for request in secure.requests} == {"Bearer CANARY"}
        secure.redirect_to = server.url("")[:-1]
        with closing(open_reliably(Location(secure.url("file.bin")), settings)) as blob:
            assert blob.read(0, 10) == CONTENT[:10]
        assert server.requests
        assert {request.authorization for request in server.requests} == {None}


def test_passwords_go_to_their_server_only(folder: Path, server: HTTPServer, settings: Settings) -> None:
    with http_server(folder) as other:
        server.redirect_to = other.url("")[:-1]
        url = server.url("file.bin").replace("//", "//user:word@") + "?authz=CANARY"
        with closing(open_reliably(Location(url), settings)) as blob:
            assert blob.read(0, 10) == CONTENT[:10]
        assert {r.authorization is not None for r in server.requests} == {True}
        assert {r.authorization for r in other.requests} == {None}


@pytest.mark.usefixtures("trusting")
def test_a_password_in_the_url_takes_the_place_of_the_token(
    folder: Path, certificate: tuple[Path, Path], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEARER_TOKEN", "CANARY")
    with http_server(folder, certificate) as secure:
        url = secure.url("file.bin").replace("//", "//user:word@")
        with closing(open_reliably(Location(url), settings)) as blob:
            assert blob.read(0, 10) == CONTENT[:10]
        assert {request.authorization for request in secure.requests} == {"Basic dXNlcjp3b3Jk"}


def test_no_token_over_a_plain_connection(
    server: HTTPServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEARER_TOKEN", "CANARY")
    open_reliably(Location(server.url("file.bin")), settings).close()
    assert {request.authorization for request in server.requests} == {None}


def test_where_tokens_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BEARER_TOKEN", "BEARER_TOKEN_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert bearer_token() == ""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / f"bt_u{os.getuid()}").write_text("third\n")
    assert bearer_token() == "third"
    (tmp_path / "token").write_text("second\n")
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "token"))
    assert bearer_token() == "second"
    monkeypatch.setenv("BEARER_TOKEN", "first")
    assert bearer_token() == "first"


def test_each_range_is_one_request(server: HTTPServer, blob: ReliableBlob) -> None:
    server.requests.clear()
    ranges = [(n, n + 10) for n in range(0, len(CONTENT), 50_000)]
    assert len(blob.read_ranges(ranges)) == len(ranges) == len(server.requests)


@contextmanager
def raw_server(answer: Iterable[bytes]) -> Iterator[str]:
    """A server that sends these pieces to every client, a tenth of a second apart."""
    stopped = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                for piece in answer:
                    self.wfile.write(piece)
                    if stopped.wait(0.1):
                        return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/f.root"
        stopped.set()
        server.shutdown()


def test_headers_at_a_drip() -> None:
    impatient = load_settings(connect_timeout_seconds=1, request_timeout_seconds=1, retries=1)
    drip = [b"HTTP/1.1 206 Partial Content\r\n", *(b"X-%d: x\r\n" % number for number in range(100))]
    begin = time.monotonic()
    with raw_server(drip) as url, pytest.raises(SourceTimeoutError):
        open_reliably(Location(url), impatient)
    assert time.monotonic() - begin < 9


@pytest.mark.parametrize("target", ["root://disk.site:1094//f.root", "http://[::1/f.root"])
def test_secrets_of_redirects(settings: Settings, target: str) -> None:
    """The server gives them out; they are none of ours, and no one else's either."""
    answer = f"HTTP/1.1 302 Found\r\nLocation: {target}?authz=CANARYs3cr3t\r\nContent-Length: 0\r\n\r\n"
    with raw_server([answer.encode()]) as url, pytest.raises(StorageringError) as caught:
        open_reliably(Location(url), settings)
    assert "CANARYs3cr3t" not in str(caught.value)
