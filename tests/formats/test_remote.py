"""Failures of servers and what becomes of them: a typed error in seconds, and no secret in any message."""

import ssl
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import get_args
from urllib.parse import quote

import aiohttp
import pytest

from storagering.config import Settings, load_settings
from storagering.errors import (
    AuthError,
    CorruptDataError,
    FormatError,
    NotFoundError,
    RefusedError,
    SourceError,
    SourceTimeoutError,
    StorageringError,
    TruncatedError,
    UnreachableError,
)
from storagering.formats.readers import open_source
from storagering.formats.remote.errors import map_source_error
from storagering.testing import http, xrootd
from storagering.testing.toys import write_toy_tree
from storagering.urls import redact_text, redact_url

LIMIT_SECONDS = 10.0
CANARY = "CANARY-s3cr3t+/=%25"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_toy_tree(folder / "toy.root", entries=20_000, basket_entries=1000)
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[http.HTTPServer]:
    with http.http_server(folder) as server:
        yield server


@pytest.fixture
def settings() -> Settings:
    return load_settings(connect_timeout_seconds=1, request_timeout_seconds=1, retries=1)


def read_all(url: str, settings: Settings) -> None:
    with closing(open_source(url, None, settings)) as source:
        source.read(list(source.columns), 0, source.entries)


FAULTS: dict[str, type[StorageringError]] = {
    "404": NotFoundError,
    "403": AuthError,
    "500": SourceError,
    "reset": SourceError,
    "stall": SourceTimeoutError,
    "short": SourceError,
    "slow": SourceTimeoutError,
    "wrong-range": SourceError,
    "no-range": RefusedError,
    "redirect-loop": RefusedError,
}


def test_all_faults_are_covered() -> None:
    assert set(FAULTS) == set(get_args(http.Fault))


@pytest.mark.parametrize("fault", FAULTS)
def test_an_http_fault_on_opening(server: http.HTTPServer, settings: Settings, fault: http.Fault) -> None:
    server.fault = fault
    begin = time.monotonic()
    with pytest.raises(FAULTS[fault], match=r"toy\.root"):
        read_all(server.url("toy.root") + "?authz=" + CANARY, settings)
    assert time.monotonic() - begin < LIMIT_SECONDS
    assert len(server.requests) < 20


@pytest.mark.parametrize("fault", FAULTS)
def test_an_http_fault_while_reading(server: http.HTTPServer, settings: Settings, fault: http.Fault) -> None:
    with closing(open_source(server.url("toy.root") + "?authz=" + CANARY, None, settings)) as source:
        before = len(server.requests)
        server.fault = fault
        begin = time.monotonic()
        with pytest.raises(FAULTS[fault], match=r"toy\.root") as caught:
            source.read(list(source.columns), 0, source.entries)
        assert time.monotonic() - begin < LIMIT_SECONDS
        assert len(server.requests) - before < 20
        assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("times", [1, 2])
def test_a_passing_fault_never_gives_other_data(server: http.HTTPServer, settings: Settings, times: int) -> None:
    with closing(open_source(server.url("toy.root"), None, settings)) as source:
        want = source.read(["event"], 0, 5000)["event"].to_numpy()
    for fault in ("500", "reset", "short"):
        with closing(open_source(server.url("toy.root"), None, settings)) as source:
            server.fail(fault, times)
            try:
                got = source.read(["event"], 0, 5000)["event"].to_numpy()
            except SourceError:
                continue
            finally:
                server.fault = None
            assert (got == want).all()


def test_nobody_listens(settings: Settings) -> None:
    begin = time.monotonic()
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9/x\.root.*is it up"):
        open_source("http://127.0.0.1:9/x.root", None, settings)
    assert time.monotonic() - begin < LIMIT_SECONDS


def test_no_such_host(settings: Settings) -> None:
    with pytest.raises(UnreachableError, match=r"nowhere\.invalid"):
        open_source("http://nowhere.invalid/x.root", None, settings)


needs_xrootd = pytest.mark.skipif(not xrootd.available(), reason="no xrootd on the PATH: apt-get install xrootd-server")


@needs_xrootd
@pytest.mark.xrootd
class TestXRootD:
    @pytest.fixture
    def server(self, folder: Path) -> Iterator[xrootd.XRootDServer]:
        with xrootd.xrootd_server(folder) as server:
            yield server

    def test_a_missing_file(self, server: xrootd.XRootDServer) -> None:
        with pytest.raises(NotFoundError, match=r"absent\.root"):
            open_source(server.url("absent.root"), None, load_settings())

    def test_a_file_that_may_not_be_read(self, server: xrootd.XRootDServer, folder: Path) -> None:
        url = server.add(folder / "toy.root", "private.root", mode=0)
        with pytest.raises(AuthError, match=r"private\.root"):
            open_source(url, None, load_settings())

    def test_a_folder(self, server: xrootd.XRootDServer, folder: Path) -> None:
        server.add(folder / "toy.root", "sub/toy.root")
        with pytest.raises((NotFoundError, FormatError, SourceError), match="sub"):
            open_source(server.url("sub"), None, load_settings())

    def test_a_truncated_file(self, server: xrootd.XRootDServer, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "cut.root").write_bytes((folder / "toy.root").read_bytes()[:5000])
        with pytest.raises(TruncatedError, match=r"cut\.root"):
            open_source(server.add(tmp_path / "cut.root"), None, load_settings())

    def test_a_server_that_is_not_there(self, server: xrootd.XRootDServer) -> None:
        server.kill()
        begin = time.monotonic()
        with pytest.raises(SourceError, match=r"toy\.root"):
            open_source(server.url("toy.root"), None, load_settings())
        assert time.monotonic() - begin < LIMIT_SECONDS


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError("x"), NotFoundError),
        (PermissionError("x"), AuthError),
        (IsADirectoryError("x"), NotFoundError),
        (TimeoutError(), SourceTimeoutError),
        (OSError("[ERROR] Operation expired"), SourceTimeoutError),
        (OSError("[3011] No such file"), NotFoundError),
        (OSError("[3010] permission denied"), AuthError),
        (ConnectionResetError("x"), UnreachableError),
        (OSError("[FATAL] Connection error"), UnreachableError),
        (aiohttp.ServerDisconnectedError(), UnreachableError),
        (aiohttp.ClientPayloadError("Response payload is not completed"), SourceError),
        (OSError("expected Chunk of length 10"), TruncatedError),
        (OSError("Input/output error"), SourceError),
        (OSError("[3030] authentication failed"), AuthError),
        (OSError("[3034] request timed out"), SourceTimeoutError),
        (OSError("[ERROR] Invalid session"), UnreachableError),
        (OSError("[FATAL] Redirect limit has been reached"), RefusedError),
        (ssl.SSLError("certificate verify failed"), RefusedError),
        (MemoryError(), CorruptDataError),
        (ValueError("no"), FormatError),
        (KeyError("no"), FormatError),
    ],
)
def test_errors_are_mapped(error: Exception, kind: type[StorageringError]) -> None:
    assert isinstance(map_source_error(error, "root://host//x.root"), kind)
    assert "x.root" in str(map_source_error(error, "root://host//x.root"))


@pytest.mark.parametrize(
    "url",
    [
        f"https://host/x.root?authz={CANARY}",
        f"https://host/x.root?a=1&access_token={CANARY}&b=2",
        f"https://user:{quote(CANARY, safe='')}@host:8443/x.root",
        f"https://host/x.root?X-Amz-Signature={CANARY}",
        f"root://host//x.root?xrdcl.requuid={CANARY}&authz=Bearer%20{CANARY}",
        f"https://host/x.root#{CANARY}",
        f"https://host/x.root?sig={CANARY}",
    ],
)
def test_urls_lose_their_secrets(url: str) -> None:
    assert "CANARY" not in redact_url(url)
    assert redact_url(url).partition("://")[2].startswith("host")
    assert "x.root" in redact_url(url)
    assert redact_url(redact_url(url)) == redact_url(url)
    for text in (f"cannot open {url} now", f"Cannot connect: url={url!r}", f"GET {url.partition('host')[2]}"):
        assert "CANARY" not in redact_text(text, url)


@pytest.mark.parametrize("fault", ["404", "403", "500", "reset", "stall", "short", None])
def test_no_secret_in_any_message(server: http.HTTPServer, settings: Settings, fault: http.Fault | None) -> None:
    url = server.url("toy.root" if fault else "absent.root").replace("//", f"//user:{quote(CANARY, safe='')}@")
    server.fault = fault
    with pytest.raises(StorageringError) as caught:
        read_all(f"{url}?access_token={CANARY}&x=1", settings)
    assert "CANARY" not in str(caught.value)
    assert "CANARY" not in "".join(traceback.format_exception_only(caught.value))
