"""Nodes that share their caches while some lie, stall or die: readers get right bytes, in time, or are told."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from storagering.api import convert, pull, verify
from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.layout import open_cache
from storagering.cache.manifest import MANIFEST_NAME
from storagering.cache.peers.client import Peers
from storagering.cache.progress import BuildProgress
from storagering.config import Settings, load_settings
from storagering.errors import PeerError, SpecError
from storagering.testing.http import Fault, HTTPServer, http_server
from storagering.testing.nodes import lay_out_answers, scripted_peer, serving_node
from storagering.testing.toys import toy_columns, write_toy_tree

ENTRIES = 6000
SECONDS = 0.5


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HTTPServer]:
    """The server of the source."""
    folder = tmp_path_factory.mktemp("origin")
    write_toy_tree(folder / "toy.root", entries=ENTRIES, basket_entries=500)
    with http_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def first(origin: HTTPServer, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The dataset at the node that read the source."""
    settings = load_settings(cache=tmp_path_factory.mktemp("a") / "cache", workers=1)
    return convert(origin.url("toy.root"), name="toys", chunk_bytes=60_000, settings=settings)


@pytest.fixture
def answers(first: Dataset, tmp_path: Path) -> Path:
    """A folder by which an HTTP server answers as that node."""
    lay_out_answers(tmp_path / "answers", first.path, first.manifest, (first.path / MANIFEST_NAME).read_bytes())
    return tmp_path / "answers"


def node(root: Path, *peers: str) -> Settings:
    return load_settings(cache=root, peers=",".join(peers), peer_timeout_seconds=SECONDS)


def check_right(settings: Settings) -> None:
    assert verify("toys", settings=settings) == ()
    event = open_dataset("toys", cache=open_cache(settings)).arrays(["event"]).event
    np.testing.assert_array_equal(event, toy_columns(ENTRIES)["event"])


def test_three_nodes_read_the_source_once(origin: HTTPServer, first: Dataset, tmp_path: Path) -> None:
    reads = len(origin.requests)
    roots = [first.path.parents[1], tmp_path / "b", tmp_path / "c"]
    with serving_node(roots[0]) as a:
        b = node(roots[1], a.url)
        pull("toys", settings=b)
        check_right(b)
        with serving_node(roots[1]) as other:
            c = node(roots[2], a.url, other.url)
            pull("toys", lazy=True, settings=c)
            a.process.kill()
            a.process.wait()
            pull("toys", settings=c)
            check_right(c)
            with serving_node(roots[2]) as third:
                other.process.kill()
                other.process.wait()
                d = node(tmp_path / "d", a.url, other.url, third.url)
                pull("toys", settings=d)
                check_right(d)
    assert len(origin.requests) == reads, "the source was read again"


def test_chunks_are_passed_on_by_a_node_that_lacks_them(first: Dataset, tmp_path: Path) -> None:
    with serving_node(first.path.parents[1]) as a:
        pull("toys", lazy=True, settings=node(tmp_path / "b", a.url))
        with serving_node(tmp_path / "b", "--forward", STORAGERING_PEERS=a.url) as b:
            c = load_settings(cache=tmp_path / "c", peers=b.url)
            pull("toys", settings=c)
            check_right(c)
    check_right(node(tmp_path / "b"))


@pytest.mark.soak
def test_nodes_that_all_pass_on_go_in_no_circles(first: Dataset, tmp_path: Path) -> None:
    """Two nodes that know only each other, and both lack a chunk: the one that was asked reads the source."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    with serving_node(first.path.parents[1]) as a:
        for name in ("b", "c"):
            pull("toys", lazy=True, settings=node(tmp_path / name, a.url))
    with (
        serving_node(tmp_path / "b", "--forward", "--port", ports[0], STORAGERING_PEERS=urls[1]),
        serving_node(tmp_path / "c", "--forward", "--port", ports[1], STORAGERING_PEERS=urls[0]),
    ):
        peers = Peers.from_settings(load_settings(peers=urls[0]))
        begin = time.monotonic()
        chunk = first.manifest.chunks[0]
        assert peers.fetch_chunk(chunk.digest, chunk.nbytes, tmp_path / "chunk")
        assert time.monotonic() - begin < 5
        assert peers.why() == ""
    assert [len(list((tmp_path / name / "datasets" / "toys").glob("chunk-*"))) for name in "bc"] == [1, 0]


SOAK = [pytest.param(fault, marks=pytest.mark.soak) for fault in ("404", "500", "reset", "slow", "redirect-loop")]


@pytest.mark.parametrize("fault", ["stall", "short", *SOAK])
def test_a_reader_is_not_harmed_by_one_bad_peer(first: Dataset, answers: Path, tmp_path: Path, fault: Fault) -> None:
    settings = node(tmp_path / "b")
    with http_server(answers) as bad, http_server(answers) as good:
        settings = node(tmp_path / "b", bad.url(""), good.url(""))
        pull("toys", lazy=True, settings=settings)
        bad.fault = fault
        asked = len(bad.requests)
        begin = time.monotonic()
        pull("toys", settings=settings)
        assert time.monotonic() - begin < 10 * SECONDS
        assert len(bad.requests) > asked
    check_right(settings)


def lie(answers: Path, first: Dataset) -> Path:
    """The folder with every chunk exchanged for another, or for other bytes of its length."""
    lying = answers.with_name("lying")
    shutil.copytree(answers, lying)
    chunks = first.manifest.chunks
    for number, chunk in enumerate(chunks):
        path = lying / "v1" / "chunks" / chunk.digest
        if number % 2:
            path.write_bytes((first.path / chunks[number - 1].file).read_bytes())
        else:
            path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    return lying


def test_lies_are_never_written(first: Dataset, answers: Path, tmp_path: Path) -> None:
    settings = node(tmp_path / "b")
    with http_server(lie(answers, first)) as bad:
        settings = node(tmp_path / "b", bad.url(""))
        with pytest.raises(PeerError, match=r"chunks of dataset 'toys' could not be had: http://127") as caught:
            pull("toys", settings=settings)
        assert "the same command goes on" in str(caught.value)
        folder = open_cache(settings).path("toys")
        assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "partial", "statistics.parquet"]
        assert not list((settings.cache / "staging").iterdir())
        with http_server(answers) as good:
            settings = node(tmp_path / "b", bad.url(""), good.url(""))
            pull("toys", settings=settings)
    check_right(settings)


def test_a_node_that_dies_while_it_sends(first: Dataset, answers: Path, tmp_path: Path) -> None:
    """The connection is cut at every part of a file in turn; the other node gives the rest."""
    cuts = iter(range(10**6))

    def die(link: socket.socket, over: threading.Event) -> None:
        chunk = first.manifest.chunks[0]
        sent = chunk.nbytes * (next(cuts) % 10) // 10
        link.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {chunk.nbytes}\r\n\r\n".encode())
        link.sendall((first.path / chunk.file).read_bytes()[:sent])

    chunk = first.manifest.chunks[0]
    with scripted_peer(die) as bad, http_server(answers) as good:
        for number in range(10):
            peers = Peers.from_settings(node(tmp_path, bad.url, good.url("")))
            assert peers.fetch_chunk(chunk.digest, chunk.nbytes, tmp_path / f"{number}")
            assert (tmp_path / f"{number}").read_bytes() == (first.path / chunk.file).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_node_that_is_killed_or_stopped_during_a_pull(
    first: Dataset, answers: Path, tmp_path: Path, number: signal.Signals
) -> None:
    class AfterTwo(BuildProgress):
        """Ends or stops the node once two chunks are there."""

        count = 0

        def advance(self, *_done: int) -> None:
            self.count += 1
            if self.count == 2:
                os.kill(there.process.pid, number)

    settings = node(tmp_path / "b")
    with serving_node(first.path.parents[1]) as there:
        settings = node(tmp_path / "b", there.url)
        begin = time.monotonic()
        with pytest.raises(PeerError, match="the same command goes on"):
            pull("toys", settings=settings, progress=AfterTwo())
        assert time.monotonic() - begin < 10 * SECONDS
    left = list(open_cache(settings).path("toys").glob("chunk-*"))
    assert 2 <= len(left) < len(first.manifest.chunks)
    with http_server(answers) as good:
        pull("toys", settings=node(tmp_path / "b", good.url("")))
        asked = [request.path for request in good.requests]
    assert len(asked) == len(first.manifest.chunks) - len(left)
    check_right(settings)


def test_another_dataset_of_the_name(first: Dataset, answers: Path, tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "other.root", entries=10)
    settings = node(tmp_path / "b")
    mine = convert(str(tmp_path / "other.root"), name="toys", settings=settings).manifest
    with http_server(answers) as good:
        settings = node(tmp_path / "b", good.url(""))
        with pytest.raises(SpecError, match="is there already"):
            pull("toys", digest=first.manifest.digest, settings=settings)
        assert pull("toys", settings=settings).manifest == mine
        assert not good.requests


def test_processes_that_pull_at_once_fetch_once(first: Dataset, answers: Path, tmp_path: Path) -> None:
    code = "import storagering as sr; print(sr.pull('toys').manifest.digest)"
    with http_server(answers) as good:
        variables = {"STORAGERING_CACHE": str(tmp_path / "b"), "STORAGERING_PEERS": good.url("")}
        processes = [
            subprocess.Popen([sys.executable, "-c", code], env=os.environ | variables, stdout=subprocess.PIPE)
            for _ in range(2)
        ]
        outputs = {process.communicate(timeout=60)[0].decode().strip() for process in processes}
        paths = [request.path for request in good.requests]
    assert outputs == {first.manifest.digest}
    assert len(paths) == len(set(paths)) == len(first.manifest.chunks) + 2
    check_right(node(tmp_path / "b"))
