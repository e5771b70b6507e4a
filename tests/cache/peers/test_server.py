"""The service of a node over real connections: what it answers, refuses, and does once for many."""

from __future__ import annotations

import asyncio
import http.client
import select
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.types import Message, Receive, Scope, Send
from tests.cache.peers.conftest import Original

from storagering.cache.layout import PARTIAL_NAME, Cache, open_cache
from storagering.cache.manifest import MANIFEST_NAME, encode_manifest, seal_manifest
from storagering.cache.peers.guard import Guard, Rules
from storagering.cache.peers.merging import MergedResolve
from storagering.config import load_settings
from storagering.errors import PeerError
from storagering.testing.http import http_server
from storagering.testing.nodes import Node, scripted_peer, serving_node
from storagering.types import sha256_hex

SECONDS = "0.6"


@pytest.fixture(scope="module")
def node(original: Original) -> Iterator[Node]:
    """A node that serves the original."""
    with serving_node(original.cache.root, STORAGERING_PEER_TIMEOUT_SECONDS=SECONDS) as node:
        yield node


def connect(node: Node) -> socket.socket:
    return socket.create_connection(("127.0.0.1", urlsplit(node.url).port or 0), timeout=20)


def ask(node: Node, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    parts = urlsplit(node.url)
    with closing(http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=20)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read(), response.headers


def raw(node: Node, request: bytes) -> bytes:
    """All that comes back until the node hangs up."""
    with connect(node) as link:
        link.sendall(request)
        found = b""
        with suppress(ConnectionResetError):
            while data := link.recv(1 << 16):
                found += data
        return found


def test_every_endpoint(original: Original, node: Node) -> None:
    manifest = original.manifest
    for number, chunk in enumerate(manifest.chunks):
        status, data, headers = ask(node, f"/v1/chunks/{chunk.digest}")
        assert (status, data) == (200, original.data(number))
        assert headers["content-length"] == str(chunk.nbytes)
    stored = (original.folder / MANIFEST_NAME).read_bytes()
    assert ask(node, "/v1/manifests/toys")[:2] == (200, stored)
    assert ask(node, f"/v1/specs/{manifest.spec_key}")[:2] == (200, stored)
    file, digest = manifest.chunk_statistics
    assert ask(node, f"/v1/statistics/{digest}")[:2] == (200, (original.folder / file).read_bytes())


def test_heads(original: Original, node: Node) -> None:
    for path, size in (
        (f"chunks/{original.manifest.chunks[0].digest}", original.manifest.chunks[0].nbytes),
        ("manifests/toys", (original.folder / MANIFEST_NAME).stat().st_size),
    ):
        status, data, headers = ask(node, f"/v1/{path}", "HEAD")
        assert (status, data, headers["content-length"]) == (200, b"", str(size))


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/chunks/", "/v1/chunks/" + "0" * 64, "/v1/chunks/" + "A" * 64, "/v1/chunks/manifest.json",
     "/v1/chunks/../manifests/toys", "/v1/chunks/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/v1/manifests/..%2ftoys",
     "/v1/manifests/toys%00", "/v1/manifests/other", "/v1/specs/x", "/v1/statistics/x", "/v2/manifests/toys",
     "/v1/manifests/toys/", "//v1/manifests/toys", "/datasets/toys/manifest.json"],
)  # fmt: skip
def test_what_is_not_found(node: Node, path: str) -> None:
    status, data, _ = ask(node, path)
    assert status == 404
    assert data in (b"", b"Not Found")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(node: Node, method: str) -> None:
    assert ask(node, "/v1/manifests/toys", method)[:2] == (405, b"")


def test_requests_that_are_refused(node: Node) -> None:
    def status(*lines: str) -> str:
        return raw(node, "\r\n".join((*lines, "", "")).encode()).split(b"\r\n")[0].decode().split(" ", 1)[1]

    host = "Host: 127.0.0.1"
    path = "GET /v1/manifests/toys HTTP/1.1"
    assert status(path, host, "Content-Length: 5").startswith("413")
    assert status(path, host, "Transfer-Encoding: chunked").startswith("413")
    assert status(f"GET /{'x' * 600} HTTP/1.1", host).startswith("414")
    assert status(f"GET /?{'x' * 600} HTTP/1.1", host).startswith("414")
    assert status(path, "Host: evil.site").startswith("421")
    assert status(path, "Host: 127.0.0.1.evil.site:8760").startswith("421")
    assert status(path).startswith("400")
    assert status(path, host, f"X: {'x' * 20_000}").startswith(("400", "431"))
    assert status("nonsense").startswith("400")
    assert status(path, host, "Upgrade: websocket", "Connection: Upgrade, close").startswith("200")


def test_an_asker_that_does_not_finish_its_request_is_dropped(node: Node) -> None:
    assert raw(node, b"") == b""
    assert raw(node, b"GET /v1/manifests/toys HTTP/1.1\r\nHost: ") == b""
    finished = b"GET /v1/manifests/other HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    answer = raw(node, finished + b"GET /v1/mani")
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.startswith(b"HTTP/1.1 404")


@pytest.fixture
def large(original: Original) -> Iterator[tuple[Node, str, int]]:
    """A node that gives a file larger than any buffer between it and an asker; its path and size."""
    cache = copy_of(original)
    digest = grow_statistics(cache)
    with serving_node(cache.root, STORAGERING_PEER_TIMEOUT_SECONDS=SECONDS) as node:
        yield node, f"/v1/statistics/{digest}", 24 << 20


def copy_of(original: Original, *, without: tuple[int, ...] = ()) -> Cache:
    cache = open_cache(load_settings())
    shutil.copytree(original.folder, cache.path("toys"))
    if without:
        (cache.path("toys") / PARTIAL_NAME).touch()
    for number in without:
        (cache.path("toys") / original.manifest.chunks[number].file).unlink()
    return cache


def grow_statistics(cache: Cache) -> str:
    manifest, folder = cache.manifest("toys"), cache.path("toys")
    data = bytes(24 << 20)
    (folder / manifest.chunk_statistics[0]).write_bytes(data)
    table = (manifest.chunk_statistics[0], sha256_hex(data))
    (folder / MANIFEST_NAME).write_bytes(encode_manifest(seal_manifest(replace(manifest, chunk_statistics=table))))
    return table[1]


def test_an_asker_that_does_not_read_is_dropped(large: tuple[Node, str, int]) -> None:
    node, path, size = large
    with connect(node) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        link.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        poller = select.poll()
        poller.register(link, select.POLLHUP | select.POLLERR)
        assert poller.poll(20_000), "it waits for ever"
    status, data, _ = ask(node, path)
    assert (status, len(data)) == (200, size)


def test_no_more_requests_at_once_than_it_can_answer(original: Original) -> None:
    """The 65th is told to come back; the others are answered once what they wait for has come."""
    cache = copy_of(original, without=(0,))
    chunk = original.manifest.chunks[0]
    release = threading.Event()

    def wait_and_answer(link: socket.socket, over: threading.Event) -> None:
        release.wait(20)
        link.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {chunk.nbytes}\r\n\r\n".encode() + original.data(0))

    request = f"GET /v1/chunks/{chunk.digest} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    with (
        scripted_peer(wait_and_answer) as upstream,
        serving_node(cache.root, "--forward", STORAGERING_PEERS=upstream.url) as node,
    ):
        links = [connect(node) for _ in range(70)]
        for link in links:
            link.sendall(request)
        refused = [link for link in links if _answers_now(link, node)]
        release.set()
        answers = [link.makefile("rb").read() for link in links if link not in refused]
        for link in links:
            link.close()
        assert len(refused) == 6
        assert all(answer.endswith(original.data(0)) for answer in answers)
        assert len(upstream.requests) == 1


def _answers_now(link: socket.socket, node: Node) -> bool:
    """Whether a refusal has come; a request after it on another connection was answered, so all were seen."""
    ask(node, "/v1/manifests/toys")
    readable, _, _ = select.select([link], [], [], 0)
    return bool(readable) and link.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 503"


@pytest.mark.parametrize("askers", [16])
def test_one_read_for_all_who_ask_at_once(original: Original, askers: int) -> None:
    cache = copy_of(original, without=tuple(range(len(original.manifest.chunks))))
    found: list[tuple[int, bytes]] = []
    barrier = threading.Barrier(askers)
    with (
        http_server(original.answers) as upstream,
        serving_node(cache.root, "--forward", STORAGERING_PEERS=upstream.url("")) as node,
    ):

        def run() -> None:
            for chunk in original.manifest.chunks:
                barrier.wait(20)
                found.append(ask(node, f"/v1/chunks/{chunk.digest}")[:2])

        threads = [threading.Thread(target=run) for _ in range(askers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        paths = [request.path for request in upstream.requests]
        assert sorted(paths) == sorted(f"/v1/chunks/{chunk.digest}" for chunk in original.manifest.chunks)
    wanted = [(200, original.data(number)) for number in range(len(original.manifest.chunks))]
    assert sorted(found) == sorted(wanted * askers)


def test_requests_that_were_passed_on_go_no_further(original: Original) -> None:
    cache = copy_of(original, without=(0,))
    path = f"/v1/chunks/{original.manifest.chunks[0].digest}"
    with (
        http_server(original.answers) as upstream,
        serving_node(cache.root, "--forward", STORAGERING_PEERS=upstream.url("")) as node,
    ):
        for hops in ("1", "7", "-1", "x", "9" * 500):
            assert ask(node, path, Storagering_Hops=hops)[0] == 404
        assert not upstream.requests
        assert ask(node, path, Storagering_Hops="0")[:2] == (200, original.data(0))
        assert len(upstream.requests) == 1


def test_a_node_whose_peers_fail_takes_the_source_or_says_in_time_that_it_cannot(original: Original) -> None:
    cache = copy_of(original, without=(0, 1, 2))
    source = Path(original.manifest.sources[0].url)
    paths = [f"/v1/chunks/{chunk.digest}" for chunk in original.manifest.chunks]
    with (
        http_server(original.answers) as upstream,
        serving_node(
            cache.root, "--forward", STORAGERING_PEERS=upstream.url(""), STORAGERING_PEER_TIMEOUT_SECONDS=SECONDS
        ) as node,
    ):
        source.rename(source.with_suffix(".gone"))
        try:
            upstream.fault = "stall"
            assert ask(node, paths[0])[0] == 503
            upstream.fault = "500"
            assert ask(node, paths[1])[:2] == (404, b"")
        finally:
            source.with_suffix(".gone").rename(source)
        answers = iter(lambda: ask(node, paths[2])[:2], None)  # busy for as long as reading the source takes
        assert next(answer for answer in answers if answer != (503, b"")) == (200, original.data(2))
        assert node.stop() == 0
    assert f"chunk {original.manifest.chunks[1].digest} cannot be had" in node.told


@pytest.mark.parametrize("started", [False, True])
def test_a_fault_of_the_node_is_told_to_its_operator_alone(started: bool) -> None:
    sent: list[Any] = []
    told: list[str] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("/home/me/secret")

    async def keep(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        scope = {"type": "http", "method": "GET", "raw_path": b"/", "query_string": b"", "headers": []}
        await Guard(app, Rules(local_only=False), told.append)(scope, keep, keep)  # type: ignore[arg-type]

    with pytest.raises(ValueError) if started else nullcontext():  # uvicorn then cuts the connection
        asyncio.run(run())
    assert told == ["a request failed: ValueError: /home/me/secret"]
    assert [message.get("status") for message in sent] == ([200] if started else [500, None])
    assert "secret" not in str(sent)


def test_merging_keeps_nothing(tmp_path: Path) -> None:
    calls: list[str] = []
    release = threading.Event()

    def resolve(digest: str) -> Path | None:
        calls.append(digest)
        release.wait(20)
        if digest == "bad":
            raise PeerError("no node has it")
        return tmp_path / digest

    async def run() -> None:
        merged = MergedResolve(resolve)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(merged.resolve("a"), 0.05)
        waiting = [asyncio.create_task(merged.resolve(name)) for name in ("a", "a", "b", "bad", "bad")]
        await asyncio.sleep(0)
        waiting[0].cancel()
        release.set()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:3] == [tmp_path / "a", tmp_path / "b"]
        assert all(isinstance(result, PeerError) for result in results[3:])
        assert sorted(calls) == ["a", "b", "bad"]
        assert await merged.resolve("a") == tmp_path / "a"
        assert sorted(calls) == ["a", "a", "b", "bad"]

    asyncio.run(run())
