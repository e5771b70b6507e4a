"""The loopback HTTP server: ranges, request log and faults."""

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from storagering.errors import InputError, NotFoundError
from storagering.testing.http import HTTPServer, Request, http_server, make_certificate

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HTTPServer]:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "a b.bin").write_bytes(CONTENT)
    (tmp_path / "root" / "sub" / "c.bin").write_bytes(b"c")
    (tmp_path / "secret").write_bytes(b"secret")
    with http_server(tmp_path / "root") as running:
        yield running


def get(url: str, byte_range: str | None = None, method: str = "GET", timeout: float = 10) -> tuple[int, bytes]:
    headers = {"Range": byte_range} if byte_range else {}
    request = urllib.request.Request(url, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return answer.status, answer.read()


def status_of(url: str, byte_range: str | None = None) -> int:
    with pytest.raises(urllib.error.HTTPError) as error:
        get(url, byte_range)
    error.value.close()
    return error.value.code


def test_whole_files_and_subfolders(server: HTTPServer) -> None:
    assert get(server.url("a b.bin")) == (200, CONTENT)
    assert get(server.url("/sub/c.bin")) == (200, b"c")
    assert get(server.url("a b.bin"), method="HEAD") == (200, b"")


@pytest.mark.parametrize(
    ("byte_range", "part"),
    [
        ("bytes=0-9", CONTENT[:10]),
        ("bytes=10-", CONTENT[10:]),
        ("bytes=-7", CONTENT[-7:]),
        ("bytes=100-999999", CONTENT[100:]),
        ("bytes=-999999", CONTENT),
    ],
)
def test_ranges(server: HTTPServer, byte_range: str, part: bytes) -> None:
    assert get(server.url("a b.bin"), byte_range) == (206, part)


@pytest.mark.parametrize("byte_range", ["bytes=0-1,4-5", "bytes=-", "lines=0-1"])
def test_ranges_that_are_ignored(server: HTTPServer, byte_range: str) -> None:
    assert get(server.url("a b.bin"), byte_range) == (200, CONTENT)


@pytest.mark.parametrize("byte_range", ["bytes=999999-", "bytes=5-2", "bytes=-0"])
def test_ranges_outside_the_file(server: HTTPServer, byte_range: str) -> None:
    assert status_of(server.url("a b.bin"), byte_range) == 416


@pytest.mark.parametrize("name", ["nope", "sub", "../secret", "%2e%2e/secret"])
def test_what_is_not_served(server: HTTPServer, name: str) -> None:
    assert status_of(f"http://127.0.0.1:{server.port}/{name}") == 404


def test_etag_changes_with_the_file(server: HTTPServer) -> None:
    def etag() -> str:
        with urllib.request.urlopen(server.url("sub/c.bin"), timeout=10) as answer:
            assert answer.headers["Last-Modified"]
            return str(answer.headers["ETag"])

    before = etag()
    assert etag() == before
    (server.root / "sub" / "c.bin").write_bytes(b"longer")
    assert etag() != before


def test_log_counts_requests_of_a_kept_connection(server: HTTPServer) -> None:
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for start in (0, 5):
        link.request("GET", "/a%20b.bin", headers={"Range": f"bytes={start}-{start}"})
        assert link.getresponse().read() == CONTENT[start : start + 1]
    link.close()
    assert server.requests == [
        Request("GET", "/a%20b.bin", "bytes=0-0"),
        Request("GET", "/a%20b.bin", "bytes=5-5"),
    ]


@pytest.mark.parametrize("fault", ["403", "404", "500"])
def test_status_faults(server: HTTPServer, fault: str) -> None:
    server.fault = fault  # type: ignore[assignment]
    assert status_of(server.url("a b.bin")) == int(fault)
    server.fault = None
    assert get(server.url("a b.bin"))[0] == 200
    assert len(server.requests) == 2


def test_reset(server: HTTPServer) -> None:
    server.fault = "reset"
    with pytest.raises(ConnectionResetError):
        get(server.url("a b.bin"))


def test_short(server: HTTPServer) -> None:
    server.fault = "short"
    with pytest.raises(http.client.IncompleteRead) as error:
        get(server.url("a b.bin"))
    assert error.value.partial == CONTENT[: len(CONTENT) // 2]


def test_stall_ends_with_the_fault(server: HTTPServer) -> None:
    server.fault = "stall"
    with pytest.raises(TimeoutError):
        get(server.url("a b.bin"), timeout=0.2)
    server.fault = None
    assert get(server.url("a b.bin")) == (200, CONTENT)


def test_stalled_and_kept_connections_do_not_delay_the_end(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(CONTENT)
    with http_server(tmp_path) as server:
        server.fault = "stall"
        link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        link.request("GET", "/f")
        answer = link.getresponse()
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    link.close()


def test_wrong_ranges(server: HTTPServer) -> None:
    server.fault = "wrong-range"
    assert get(server.url("a b.bin"), "bytes=5-9") == (206, CONTENT[6:11])
    server.fault = "no-range"
    assert get(server.url("a b.bin"), "bytes=5-9") == (200, CONTENT)


def test_slow(server: HTTPServer) -> None:
    server.fault = "slow"
    link = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    link.request("GET", "/a%20b.bin")
    answer = link.getresponse()
    assert answer.read(1) == CONTENT[:1]
    server.fault = None
    link.close()


def test_redirections(server: HTTPServer, tmp_path: Path) -> None:
    with http_server(tmp_path / "root" / "sub") as other:
        other.redirect_to = server.url("sub")
        assert get(other.url("c.bin")) == (200, b"c")
        other.fault = "redirect-loop"
        assert status_of(other.url("c.bin")) == 302


def test_digests(server: HTTPServer) -> None:
    server.digest = "adler32=1"
    with urllib.request.urlopen(server.url("sub/c.bin"), timeout=10) as answer:
        assert answer.headers["Repr-Digest"] == "adler32=1"


def test_encrypted(server: HTTPServer, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with http_server(tmp_path / "root", certificate) as secure:
        assert secure.url("x").startswith("https://")
        with pytest.raises(urllib.error.URLError, match="certificate verify failed"):
            get(secure.url("sub/c.bin"))
        context = ssl.create_default_context(cafile=certificate[0])
        with urllib.request.urlopen(secure.url("sub/c.bin"), timeout=10, context=context) as answer:
            assert answer.read() == b"c"


def test_fault_that_heals_itself(server: HTTPServer) -> None:
    server.fail("500", times=2)
    assert [status_of(server.url("sub/c.bin")) for _ in range(2)] == [500, 500]
    assert get(server.url("sub/c.bin")) == (200, b"c")
    assert server.fault is None


def test_mistakes(server: HTTPServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are: 404, 403"):
        server.fault = "teapot"  # type: ignore[assignment]
    with pytest.raises(NotFoundError, match="not a folder"), http_server(tmp_path / "secret"):
        pass
