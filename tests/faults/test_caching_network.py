"""A node in front of a source, with room for some of what is asked for: who is served from where, and how often."""

from __future__ import annotations

import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest

from storagering.api import convert, pull, verify
from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.fetch import ChunkFetcher
from storagering.cache.layout import open_cache
from storagering.cache.peers.client import Peers
from storagering.config import load_settings
from storagering.testing.http import HTTPServer, http_server
from storagering.testing.nodes import serving_node

FILES, ROOM = 30, 5
ENTRIES = 500


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HTTPServer]:
    """The server of thirty sources of one size."""
    folder = tmp_path_factory.mktemp("origin")
    for number in range(FILES):
        np.savez(folder / f"{number}.npz", x=np.random.default_rng(number).random(ENTRIES))
    with http_server(folder) as server:
        yield server


@pytest.fixture(scope="module")
def whole(origin: HTTPServer, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """All of it at a node of its own: a chunk a file."""
    settings = load_settings(cache=tmp_path_factory.mktemp("a") / "cache", workers=1)
    urls = [origin.url(f"{number}.npz") for number in range(FILES)]
    dataset = convert(urls, name="files", chunk_bytes=4096, settings=settings)
    assert len(dataset.manifest.chunks) == FILES
    return dataset


def hits_of_a_reference(requests: list[int], room: int) -> int:
    """How many of the requests an LRU cache with that many places answers from within."""
    places: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for name in requests:
        if name in places:
            hits += 1
            places.move_to_end(name)
            continue
        if len(places) == room:
            places.popitem(last=False)
        places[name] = None
    return hits


@pytest.mark.parametrize("count", [100, pytest.param(3000, marks=pytest.mark.soak)])
def test_hits_of_a_small_room_are_those_of_a_reference(whole: Dataset, tmp_path: Path, count: int) -> None:
    """Requests after zipf's law for thirty equal files, room for five."""
    chunks = whole.manifest.chunks
    weights = 1 / np.arange(1, FILES + 1)
    requests = np.random.default_rng(1).choice(FILES, count, p=weights / weights.sum()).tolist()
    largest = max(chunk.nbytes for chunk in chunks)
    assert largest - min(chunk.nbytes for chunk in chunks) < largest / (2 * FILES)
    quota = str(ROOM * largest + largest // 2)
    with serving_node(whole.path.parents[1]) as first:
        pull("files", lazy=True, settings=load_settings(cache=tmp_path / "b", peers=first.url))
    there = tmp_path / "b" / "datasets" / "files"
    hits = 0
    with serving_node(
        tmp_path / "b", "--forward", STORAGERING_QUOTA=quota, STORAGERING_LOW_WATER="1.0", STORAGERING_WORKERS="1"
    ) as node:
        peers = Peers.from_settings(load_settings(peers=node.url))
        for step, number in enumerate(requests):
            hits += (there / chunks[number].file).exists()
            assert peers.fetch_chunk(chunks[number].digest, chunks[number].nbytes, tmp_path / f"{step}")
            assert len(list(there.glob("chunk-*"))) <= ROOM
    assert abs(hits - hits_of_a_reference(requests, ROOM)) / count <= 0.02


def read_alone(origin: HTTPServer, whole: Dataset, root: Path, number: int) -> int:
    """By how many requests one reader alone gets that chunk from its source."""
    with serving_node(whole.path.parents[1]) as first:
        pull("files", lazy=True, settings=load_settings(cache=root, peers=first.url))
    before = len(origin.requests)
    with closing(ChunkFetcher(open_cache(load_settings(cache=root)), whole.manifest)) as fetcher:
        fetcher.ensure([number])
    return reads_of(origin, before, number)


def reads_of(origin: HTTPServer, before: int, number: int) -> int:
    return sum(request.path == f"/{number}.npz" for request in origin.requests[before:])


def test_sixteen_who_ask_at_once_cost_one_read_of_the_source(
    origin: HTTPServer, whole: Dataset, tmp_path: Path
) -> None:
    alone = read_alone(origin, whole, tmp_path / "alone", 7)
    with serving_node(whole.path.parents[1]) as first:
        pull("files", lazy=True, settings=load_settings(cache=tmp_path / "b", peers=first.url))
    chunk = whole.manifest.chunks[7]
    barrier = threading.Barrier(16)
    found: list[bool] = []
    with serving_node(tmp_path / "b", "--forward") as node:
        before = len(origin.requests)

        def run(number: int) -> None:
            peers = Peers.from_settings(load_settings(peers=node.url))
            barrier.wait(20)
            found.append(peers.fetch_chunk(chunk.digest, chunk.nbytes, tmp_path / f"{number}"))

        in_parallel(run, 16)
    assert found == [True] * 16
    assert reads_of(origin, before, 7) == alone > 0


def in_parallel(run: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_nodes_that_want_the_same_at_once_share_the_work(origin: HTTPServer, whole: Dataset, tmp_path: Path) -> None:
    """Three nodes that know each other train in the same order: no waiting in circles, and one read for all."""
    alone = read_alone(origin, whole, tmp_path / "alone", 7)
    roots = [tmp_path / name for name in "bcd"]
    with serving_node(whole.path.parents[1]) as first:
        for root in roots:
            pull("files", lazy=True, settings=load_settings(cache=root, peers=first.url))
    ports = free_ports(3)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    settings = [load_settings(cache=root, peers=",".join(urls[:at] + urls[at + 1 :])) for at, root in enumerate(roots)]
    with (
        serving_node(roots[0], "--forward", "--port", ports[0], STORAGERING_PEERS=settings[0].peers),
        serving_node(roots[1], "--forward", "--port", ports[1], STORAGERING_PEERS=settings[1].peers),
        serving_node(roots[2], "--forward", "--port", ports[2], STORAGERING_PEERS=settings[2].peers),
    ):
        before, begin = len(origin.requests), time.monotonic()
        sums: list[float] = []

        def run(at: int) -> None:
            dataset = open_dataset("files", cache=open_cache(settings[at]))
            sums.append(float(np.sum(dataset.arrays(["x"]).x)))

        in_parallel(run, 3)
        assert time.monotonic() - begin < 30
    assert len(sums) == 3
    assert len(set(sums)) == 1
    # Every reader opens the first file, to see its columns.
    assert [reads_of(origin, before, number) for number in range(1, FILES)] == [alone] * (FILES - 1)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with ExitStack() as stack:
        links = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [link.getsockname()[1] for link in links]


def test_a_conversion_that_another_node_has_done_is_taken_over(
    whole: Dataset, origin: HTTPServer, tmp_path: Path
) -> None:
    urls = [origin.url(f"{number}.npz") for number in range(FILES)]
    with serving_node(whole.cache.root) as node:
        settings = load_settings(cache=tmp_path / "b", peers=node.url, workers=1)
        before = len([request for request in origin.requests if request.method == "GET"])
        dataset = convert(urls, name="files", chunk_bytes=4096, settings=settings)
        assert dataset.manifest == whole.manifest
        np.testing.assert_array_equal(dataset.arrays().x, whole.arrays().x)
        assert len([request for request in origin.requests if request.method == "GET"]) == before
        other = convert(urls[:2], name="files-2", chunk_bytes=4096, settings=settings)  # nobody has this one
        assert len(other) == 2 * ENTRIES


def test_damage_is_mended_from_another_node(whole: Dataset, origin: HTTPServer, tmp_path: Path) -> None:
    with serving_node(whole.cache.root) as node:
        settings = load_settings(cache=tmp_path / "b", peers=node.url, workers=1)
        dataset = pull("files", settings=settings)
        path = dataset.path / dataset.manifest.chunks[3].file
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        before = len(origin.requests)
        assert verify("files", repair=True, settings=settings) == ()
        assert path.read_bytes() == good
        assert len(origin.requests) == before
