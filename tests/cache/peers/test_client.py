"""Whatever peers answer, only right bytes are taken, in bounded time, and who does wrong is left alone."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.cache.peers.conftest import Original

from storagering.cache.manifest import encode_manifest, seal_manifest
from storagering.cache.peers import health
from storagering.cache.peers.client import Peers
from storagering.cache.peers.identity import NODE_HEADER, rank
from storagering.config import load_settings
from storagering.errors import CacheError, ConfigError, InputError
from storagering.testing.http import Fault, HTTPServer, http_server, make_certificate
from storagering.testing.nodes import scripted_peer
from storagering.types import Manifest

TOKEN = "canary-0123456789abcdef"
SECONDS = 0.3


def peers_at(*urls: str, seconds: float = SECONDS) -> Peers:
    return Peers.from_settings(load_settings(peers=",".join(urls), peer_timeout_seconds=seconds))


def elsewhere_always(_host: str) -> bool:
    """Instead of `is_loopback`, as these servers are all on this machine."""
    return False


def token_sent_to(server: HTTPServer) -> str | None:
    return server.requests[-1].authorization


def fetch(peers: Peers, original: Original, target: Path, number: int = 0) -> bool:
    chunk = original.manifest.chunks[number]
    return peers.fetch_chunk(chunk.digest, chunk.nbytes, target)


def test_chunks_statistics_and_manifests(original: Original, tmp_path: Path) -> None:
    manifest = original.manifest
    with http_server(original.answers) as server:
        peers = peers_at(server.url(""))
        assert fetch(peers, original, tmp_path / "chunk")
        assert (tmp_path / "chunk").read_bytes() == original.data(0)
        assert peers.fetch_statistics(manifest.chunk_statistics[1], tmp_path / "table")
        assert (tmp_path / "table").read_bytes() == (original.folder / manifest.chunk_statistics[0]).read_bytes()
        assert peers.manifest("toys") == peers.find_manifest(manifest.spec_key) == manifest
        assert peers.manifest("other") is peers.find_manifest("0" * 64) is None
        assert peers.why() == ""
    assert not peers.fetch_chunk("0" * 64, 10, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_without_peers_nobody_is_asked(tmp_path: Path) -> None:
    peers = Peers.from_settings(load_settings())
    assert not peers
    assert not peers.fetch_chunk("0" * 64, 10, tmp_path / "none")
    assert peers.manifest("toys") is None


def asked_for_chunks(server: HTTPServer) -> list[str]:
    """Paths of the requests, but for the one by which it is asked who it is."""
    return [request.path for request in server.requests if not request.path.endswith("0" * 64)]


@pytest.mark.parametrize("fault", ["403", "500", "reset", "stall", "short", "slow", "redirect-loop"])
def test_the_next_peer_serves_when_one_fails(original: Original, tmp_path: Path, fault: Fault) -> None:
    with http_server(original.answers) as bad, http_server(original.answers) as good:
        bad.fault = fault
        peers = peers_at(bad.url(""), good.url(""))
        begin = time.monotonic()
        for number in range(len(original.manifest.chunks)):
            assert fetch(peers, original, tmp_path / str(number), number)
            assert (tmp_path / str(number)).read_bytes() == original.data(number)
        assert time.monotonic() - begin < 8 * SECONDS
        assert len(asked_for_chunks(bad)) <= 1, "it was asked again"
        assert bad.url("").rstrip("/") in peers.why()
        bad.fault = None


def test_a_peer_that_failed_is_asked_again_after_a_while(
    original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with http_server(original.answers) as server:
        server.fail("500", times=2)
        peers = peers_at(server.url(""))
        monkeypatch.setattr(health, "_FIRST_PAUSE_SECONDS", 0.0)
        assert [fetch(peers, original, tmp_path / "chunk") for _ in range(3)] == [False, False, True]
        assert peers.why() == ""


OTHER = "HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n"
Answer = Callable[[socket.socket, threading.Event, bytes], None]


def other_bytes(link: socket.socket, _over: threading.Event, data: bytes) -> None:
    link.sendall(OTHER.format(size=len(data)).encode() + data[:-1] + bytes([data[-1] ^ 1]))


def too_many(link: socket.socket, _over: threading.Event, data: bytes) -> None:
    link.sendall(OTHER.format(size=len(data) + 1).encode() + data + b"x")


def absurdly_many(link: socket.socket, _over: threading.Event, data: bytes) -> None:
    link.sendall(OTHER.format(size=1 << 62).encode() + data)


def no_size(link: socket.socket, _over: threading.Event, data: bytes) -> None:
    link.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + data)


def endless(link: socket.socket, over: threading.Event, data: bytes) -> None:
    link.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not over.is_set():
        link.sendall(b"5\r\nhello\r\n")


def trickle(link: socket.socket, over: threading.Event, data: bytes) -> None:
    """Each byte comes in time, but the whole never does."""
    link.sendall(OTHER.format(size=len(data)).encode())
    for number in range(len(data)):
        link.sendall(data[number : number + 1])
        if over.wait(SECONDS / 10):
            break


def trickling_headers(link: socket.socket, over: threading.Event, data: bytes) -> None:
    link.sendall(b"HTTP/1.1 200 OK\r\n")
    while not over.wait(SECONDS / 10):
        link.sendall(b"X: y\r\n")


def continues(link: socket.socket, over: threading.Event, data: bytes) -> None:
    while not over.is_set():
        link.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def long_header(link: socket.socket, over: threading.Event, data: bytes) -> None:
    link.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not over.is_set():
        link.sendall(b"x" * 65536)


def no_http(link: socket.socket, _over: threading.Event, data: bytes) -> None:
    link.sendall(b"220 mail.site ESMTP\r\n")


def silent(link: socket.socket, over: threading.Event, data: bytes) -> None:
    over.wait()


def nothing(link: socket.socket, _over: threading.Event, data: bytes) -> None:
    """Ends at once."""


@pytest.mark.parametrize(
    "answer",
    [other_bytes, too_many, absurdly_many, no_size, endless, trickle, trickling_headers, continues, long_header,
     no_http, silent, nothing],
)  # fmt: skip
def test_liars_and_dawdlers(original: Original, tmp_path: Path, answer: Answer) -> None:
    with scripted_peer(lambda link, over: answer(link, over, original.data(0))) as peer:
        peers = peers_at(peer.url)
        begin = time.monotonic()
        assert not fetch(peers, original, tmp_path / "chunk")
        assert not fetch(peers, original, tmp_path / "chunk")
        assert time.monotonic() - begin < 5 * SECONDS
        assert len(peer.requests) == 1
        assert peers.why().startswith(peer.url)
    assert not list(tmp_path.glob("chunk*"))


def test_another_chunk_of_the_dataset_is_wrong_too(original: Original, tmp_path: Path) -> None:
    chunk = original.manifest.chunks[0]
    path = tmp_path / "answers" / "v1" / "chunks" / chunk.digest
    path.parent.mkdir(parents=True)
    path.write_bytes(original.data(1))
    with http_server(tmp_path / "answers") as server:
        peers = peers_at(server.url(""))
        assert not peers.fetch_chunk(chunk.digest, len(original.data(1)), tmp_path / "chunk")
        assert "other bytes" in peers.why()


def test_a_peer_that_is_busy_is_not_at_fault(original: Original, tmp_path: Path) -> None:
    def busy(link: socket.socket, _over: threading.Event) -> None:
        link.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")

    with scripted_peer(busy) as peer:
        peers = peers_at(peer.url)
        assert not fetch(peers, original, tmp_path / "chunk")
        assert not fetch(peers, original, tmp_path / "chunk")
        assert (len(peer.requests), peers.why()) == (2, "")


def test_a_peer_that_is_not_there(original: Original, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    peers = peers_at(url)
    assert not fetch(peers, original, tmp_path / "chunk")
    assert "Connection refused" in peers.why()


def test_the_disk_s_faults_are_errors(original: Original, tmp_path: Path) -> None:
    with http_server(original.answers) as server, pytest.raises(CacheError):
        fetch(peers_at(server.url("")), original, tmp_path / "absent" / "chunk")


def test_all_nodes_ask_the_same_one_first(original: Original, tmp_path: Path) -> None:
    with http_server(original.answers) as one, http_server(original.answers) as two:
        for number in range(len(original.manifest.chunks)):
            for urls in ((one.url(""), two.url("")), (two.url(""), one.url(""))):
                assert fetch(peers_at(*urls), original, tmp_path / f"{number} {urls}"[:60].replace("/", ""), number)
        paths = [set(asked_for_chunks(server)) for server in (one, two)]
        assert not paths[0] & paths[1]
        assert all(paths), "the load is not shared"


def test_nodes_are_met_before_they_are_ranked(tmp_path: Path) -> None:
    """Else an asker would take its own way until it has happened to meet all, and two nodes would do the same work."""
    asked: list[str] = []

    def lacking(node: str) -> Callable[[socket.socket, threading.Event], None]:
        def answer(link: socket.socket, _over: threading.Event) -> None:
            asked.append(node)
            link.sendall(f"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n{NODE_HEADER}: {node}\r\n\r\n".encode())

        return answer

    nodes = [f"{number:016x}" for number in range(3)]
    with ExitStack() as stack:
        urls = [stack.enter_context(scripted_peer(lacking(node))).url for node in nodes]
        peers = peers_at(*urls, seconds=10.0)
        for number in range(8):
            digest = f"{number + 1:064x}"
            assert not peers.fetch_chunk(digest, 10, tmp_path / "none")
            assert asked[-3:] == sorted(nodes, key=lambda node: rank(node, digest))
    assert len(asked) == 3 + 8 * 3


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "not a manifest": lambda data: data[:-20],
    "damaged": lambda data: data.replace(b'"Jet_pt"', b'"Jet_px"'),
    "is not a manifest: Object missing": lambda data: b"{}" + b" " * len(data),
}
LIES: dict[str, dict[str, Any]] = {
    "another name": {"name": "other"},
    "another specification": {"spec_key": "0" * 64},
    "a path": {"chunk_statistics": ("../../x", "0" * 64)},
}


def manifest_of_a_liar(folder: Path, data: bytes) -> tuple[Manifest | None, str]:
    """What is taken from a peer that gives that manifest, and what is said of it."""
    path = folder / "v1" / "manifests" / "toys"
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    with http_server(folder) as server:
        peers = peers_at(server.url(""))
        return peers.manifest("toys"), peers.why()


@pytest.mark.parametrize("words", DAMAGES)
def test_damaged_manifests_are_not_taken(original: Original, tmp_path: Path, words: str) -> None:
    found, why = manifest_of_a_liar(tmp_path, DAMAGES[words](encode_manifest(original.manifest)))
    assert found is None
    assert words in why


@pytest.mark.parametrize("lie", LIES)
def test_false_manifests_are_not_taken(original: Original, tmp_path: Path, lie: str) -> None:
    data = encode_manifest(seal_manifest(replace(original.manifest, **LIES[lie])))
    found, why = manifest_of_a_liar(tmp_path, data)
    assert found is None
    assert "of its statistics" in why if lie == "a path" else "another dataset" in why


def test_a_manifest_above_the_limit_is_not_read(original: Original) -> None:
    with http_server(original.answers) as server:
        settings = load_settings(peers=server.url(""), max_manifest_bytes=1000)
        peers = Peers.from_settings(settings)
        assert peers.manifest("toys") is None
        assert "1,000 or fewer" in peers.why()


def test_who_may_say_what_a_dataset_is(original: Original, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("storagering.cache.peers.address.is_loopback", elsewhere_always)
    digest = original.manifest.digest
    with http_server(original.answers) as server:
        with pytest.warns(UserWarning, match="without TLS"):
            peers = peers_at(server.url(""))
        with pytest.raises(ConfigError, match="--digest"):
            peers.manifest("toys")
        found = peers.find_manifest(original.manifest.spec_key)
        assert found is None
        assert server.requests == []
        assert peers.manifest("toys", "0" * 64) is None
        assert peers.manifest("toys", digest) == original.manifest
        assert fetch(peers, original, tmp_path / "chunk")
    with pytest.raises(ConfigError, match="64 hexadecimal"):
        peers.manifest("toys", "12")
    with pytest.raises(InputError, match="dataset name"):
        peers.manifest("../toys")


def test_the_token_stays_on_safe_ways(original: Original, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STORAGERING_PEER_TOKEN", TOKEN)
    certificate = make_certificate(tmp_path)
    with http_server(original.answers) as plain, http_server(original.answers, certificate) as safe:
        fetch(peers_at(plain.url("")), original, tmp_path / "1")
        assert token_sent_to(plain) == f"Bearer {TOKEN}"
        monkeypatch.setattr("storagering.cache.peers.address.is_loopback", elsewhere_always)
        with pytest.warns(UserWarning, match="without TLS"):
            peers = peers_at(plain.url(""))
        assert fetch(peers, original, tmp_path / "2")
        assert token_sent_to(plain) is None

        untrusting = peers_at(safe.url(""))
        assert not fetch(untrusting, original, tmp_path / "3")
        assert "SSL_CERT_FILE" in untrusting.why()
        assert not safe.requests
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        trusting = peers_at(safe.url(""))
        assert fetch(trusting, original, tmp_path / "4")
        assert token_sent_to(safe) == f"Bearer {TOKEN}"
        assert trusting.manifest("toys") == original.manifest


def test_a_name_that_leads_elsewhere_gets_no_token(
    original: Original, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``localhost`` is a name like any other to the machine that looks it up."""
    monkeypatch.setenv("STORAGERING_PEER_TOKEN", TOKEN)
    with http_server(original.answers) as server:
        monkeypatch.setattr("storagering.cache.peers.exchange.is_loopback", elsewhere_always)
        assert fetch(peers_at(f"http://localhost:{server.port}"), original, tmp_path / "chunk")
        assert token_sent_to(server) is None


def test_redirections_are_not_followed(original: Original, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STORAGERING_PEER_TOKEN", TOKEN)
    with http_server(original.answers) as elsewhere, http_server(original.answers) as server:
        server.redirect_to = elsewhere.url("").rstrip("/")
        peers = peers_at(server.url(""))
        assert not fetch(peers, original, tmp_path / "chunk")
        assert not elsewhere.requests
        assert "elsewhere" in peers.why()


def test_proxies_and_passwords_of_the_environment_are_not_used(
    original: Original, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with http_server(original.answers) as server, http_server(original.answers) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url(""))
        assert fetch(peers_at(server.url("")), original, tmp_path / "chunk")
        assert not proxy.requests
        assert token_sent_to(server) is None


def test_tls_is_checked() -> None:
    tls = peers_at("https://a.site")._tls
    assert tls is not None
    assert tls.verify_mode == ssl.CERT_REQUIRED
    assert tls.check_hostname
    assert tls.minimum_version >= ssl.TLSVersion.TLSv1_2
