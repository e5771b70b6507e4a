"""Chunks that were evicted come back when somebody reads them; what is read stays; nothing is ever wrong."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.cache.small import ENTRIES, check_whole, dataset, files, largest

from storagering.api import append, convert, verify
from storagering.cache.access import ChunkAccess
from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.fetch import ChunkFetcher
from storagering.cache.layout import PARTIAL_NAME, open_cache
from storagering.cache.store import read_batch
from storagering.config import load_settings
from storagering.errors import CacheError, CacheFullError, NotFoundError, TruncatedError
from storagering.housekeeping import du, evict
from storagering.testing.http import http_server
from storagering.testing.toys import toy_columns, write_toy_tree
from storagering.types import Chunk

__all__ = ["dataset"]


def test_what_was_evicted_comes_back(dataset: Dataset) -> None:
    before = {path.name: path.read_bytes() for path in dataset.path.iterdir()}
    gone = evict(["toy"])
    assert {chunk.file for chunk in gone} == {chunk.file for chunk in dataset.manifest.chunks}
    assert not files(dataset)
    check_whole(dataset)
    after = {path.name: path.read_bytes() for path in dataset.path.iterdir()}
    assert after.pop(PARTIAL_NAME) == b""
    assert after == before
    assert verify("toy") == ()


def test_chunks_of_a_selection_come_back(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=ENTRIES, basket_entries=2000)
    dataset = convert(
        str(tmp_path / "toy.root"),
        name="some",
        workers=1,
        chunk_bytes=20_000,
        where="MET_pt > 20",
        define={"x": "2*MET_pt"},
    )
    assert len(dataset.manifest.chunks) > 4
    before = dataset.arrays()
    evict(["some"])
    middle = dataset.manifest.chunks[2]
    assert dataset.arrays(["x"], middle.start, middle.stop).x.tolist() == before.x[middle.start : middle.stop].tolist()
    assert dataset.arrays().tolist() == before.tolist()


def test_an_appended_dataset_comes_back_in_all_versions(dataset: Dataset, tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "more.root", entries=500, basket_entries=250)
    newer = append("toy", str(tmp_path / "more.root"))
    evict(["toy"])
    check_whole(open_dataset("toy", version=1))
    assert len(newer.arrays(["event"])) == ENTRIES + 500
    assert verify("toy") == ()


def test_an_absent_chunk_is_damage_where_nothing_was_evicted(dataset: Dataset) -> None:
    (dataset.path / dataset.manifest.chunks[1].file).unlink()
    with pytest.raises(TruncatedError, match="is missing"):
        dataset.arrays()
    assert [fault.chunk for fault in verify("toy")] == [1]


def test_what_could_not_come_back_stays(dataset: Dataset, tmp_path: Path) -> None:
    source = tmp_path / "toy.root"
    os.utime(source, (1, 1))
    with pytest.raises(CacheError, match=r"toy\.root has changed"):
        evict(["toy"])
    source.unlink()
    with pytest.raises(CacheError, match=r"toy\.root is gone"):
        evict(["toy"])
    assert evict(to="1B") == []
    assert len(files(dataset)) == len(dataset.manifest.chunks)


def test_a_source_that_went_after_eviction_is_named(dataset: Dataset, tmp_path: Path) -> None:
    evict(["toy"])
    (tmp_path / "toy.root").unlink()
    with pytest.raises(NotFoundError, match=r"toy\.root"):
        dataset.arrays()
    assert not list((open_cache(load_settings()).root / "staging").iterdir())


def test_one_fetch_for_all_who_ask(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "served" / "toy.root", entries=ENTRIES, basket_entries=250)
    with http_server(tmp_path / "served") as server:
        dataset = convert(server.url("toy.root"), name="toy", workers=1, chunk_bytes=40_000)
        evict(["toy"])
        chunk = dataset.manifest.chunks[3]
        before = len(server.requests)
        with dataset.access() as access:
            access.open(chunk)
        once = len(server.requests) - before
        evict(["toy"])
        before = len(server.requests)
        accesses = [dataset.access() for _ in range(16)]
        threads = [threading.Thread(target=access.open, args=(chunk,)) for access in accesses]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for access in accesses:
            access.close()
        assert len(server.requests) - before == once > 0


def test_a_reader_pins_all_that_fits(dataset: Dataset) -> None:
    with dataset.access("training on") as access:
        access.hold([dataset.manifest.chunks])
        (usage,) = du().datasets
        assert usage.pins[0].startswith("training on toy (")
        with pytest.raises(CacheError, match="dataset 'toy' is needed: training on toy"):
            evict(["toy"])
        assert evict(to="1B") == []
    assert len(evict(to="1B")) == len(dataset.manifest.chunks)


@pytest.mark.scenario(29)
def test_a_chunk_stays_until_the_last_pin_goes(dataset: Dataset) -> None:
    settings = load_settings(quota=f"{largest(dataset) * 2 + 100}B")
    cache = open_cache(settings)
    chunk = dataset.manifest.chunks[0]
    slow, fast = ChunkAccess(cache, dataset.manifest), ChunkAccess(cache, dataset.manifest)
    for access in (slow, fast):
        access.hold([[one] for one in dataset.manifest.chunks])
    with slow.held([chunk]):
        with fast.held([chunk]):
            pass
        evict(to="1B", settings=settings)
        assert files(dataset) == {chunk.file}
    evict(to="1B", settings=settings)
    assert not files(dataset)
    slow.close()
    fast.close()


@pytest.mark.scenario(28)
@pytest.mark.parametrize("reads", [60, pytest.param(2500, marks=pytest.mark.soak)])
def test_a_reader_never_fails_while_chunks_are_evicted(dataset: Dataset, reads: int) -> None:
    """Readers that pin, and one that does not, against two who evict all the time."""
    cache = open_cache(load_settings())
    columns = toy_columns(ENTRIES)["event"]
    stop = threading.Event()
    evicted: list[int] = []

    def drive_out() -> None:
        while not stop.is_set():
            evicted.append(len(evict(to="1B")))

    def read(number: int, chunks: Sequence[Chunk]) -> None:
        rng = np.random.default_rng(number)
        with ChunkAccess(cache, dataset.manifest) as access:
            if number:
                access.hold([[one] for one in chunks])
            for _ in range(reads):
                chunk = chunks[int(rng.integers(len(chunks)))]
                with access.held([chunk]):
                    batch = read_batch(access.open(chunk), dataset.schema.select(["event"]), chunk.num_entries)
                np.testing.assert_array_equal(batch.arrays["event"][0], columns[chunk.start : chunk.stop])

    evictors = [threading.Thread(target=drive_out) for _ in range(2)]
    for thread in evictors:
        thread.start()
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            read(number, dataset.manifest.chunks)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    readers = [threading.Thread(target=guarded, args=(number,)) for number in (0, 0, 0, 1)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    for thread in evictors:
        thread.join()
    assert not errors
    assert sum(evicted) > 10


def test_the_memory_tier_keeps_copies_and_drops_what_is_old(dataset: Dataset, tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    quota = 3 * largest(dataset) + 100
    settings = load_settings(ram_tier=str(ram), ram_quota=f"{quota}B", low_water=1.0)
    cache = open_cache(settings)
    first, *_ = dataset.manifest.chunks
    with ChunkAccess(cache, dataset.manifest) as access:
        for chunk in dataset.manifest.chunks:
            with access.held([first, chunk]):
                access.open(first)
                access.open(chunk)
            assert sum(path.stat().st_size for path in (ram / "chunks").iterdir()) <= quota
        copies = {path.name.partition(".")[0] for path in (ram / "chunks").iterdir()}
        assert first.digest in copies
        assert dataset.manifest.chunks[1].digest not in copies
        (dataset.path / first.file).unlink()  # it is read from memory now
        assert access.open(first) is not None


def test_a_damaged_copy_in_memory_is_not_used(dataset: Dataset, tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    cache = open_cache(load_settings(ram_tier=str(ram)))
    chunk = dataset.manifest.chunks[0]
    with ChunkAccess(cache, dataset.manifest) as access:
        access.open(chunk)
        (copy,) = (ram / "chunks").iterdir()
        data = bytearray(copy.read_bytes())
        data[-1] ^= 1
        copy.write_bytes(data)
        batch = read_batch(access.open(chunk), dataset.schema.select(["event"]), chunk.num_entries)
        np.testing.assert_array_equal(batch.arrays["event"][0], toy_columns(ENTRIES)["event"][: chunk.stop])


def test_without_a_ledger_what_is_in_memory_goes(dataset: Dataset, tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    cache = open_cache(load_settings(ram_tier=str(ram)))
    with ChunkAccess(cache, dataset.manifest) as access:
        access.open(dataset.manifest.chunks[0])
    for path in ram.glob("ledger*"):
        path.unlink()
    with ChunkAccess(cache, dataset.manifest):
        assert not list((ram / "chunks").iterdir())


@pytest.mark.scenario(11)
def test_a_build_that_cannot_fit_is_refused_before_it_reads(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=ENTRIES, basket_entries=250)
    settings = load_settings(quota="20KB")
    with pytest.raises(CacheFullError, match=r"a chunk of dataset 'toy' may take 40,000 bytes.*quota.* is 20,000"):
        convert(str(tmp_path / "toy.root"), name="toy", workers=1, chunk_bytes=40_000, settings=settings)
    assert not list((open_cache(settings).root / "staging").iterdir())


def test_a_dataset_larger_than_the_quota_is_built_and_read(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=ENTRIES, basket_entries=250)
    settings = load_settings(quota="100KB")
    dataset = convert(str(tmp_path / "toy.root"), name="toy", workers=1, chunk_bytes=40_000, settings=settings)
    plain = convert(str(tmp_path / "toy.root"), name="plain", workers=1, chunk_bytes=40_000)
    assert [c.digest for c in dataset.manifest.chunks] == [c.digest for c in plain.manifest.chunks]
    assert 0 < len(files(dataset)) < len(dataset.manifest.chunks)
    check_whole(dataset)
    assert files(dataset) | {PARTIAL_NAME} < {path.name for path in dataset.path.iterdir()}


def test_a_build_makes_room_by_evicting_others(tmp_path: Path, dataset: Dataset) -> None:
    total = sum(chunk.nbytes for chunk in dataset.manifest.chunks)
    settings = load_settings(quota=f"{int(total * 1.5)}B")
    other = convert(str(tmp_path / "toy.root"), name="other", workers=1, chunk_bytes=40_000, settings=settings)
    assert len(files(other)) == len(other.manifest.chunks)
    assert len(files(dataset)) < len(dataset.manifest.chunks)
    assert du(settings=settings).used <= total * 1.5
    check_whole(dataset)


def test_a_cache_that_cannot_be_written_is_read_without_pins(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("leases", "ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        path = open_cache(load_settings()).root / name
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    (open_cache(load_settings()).root / "leases").write_text("in the way")
    with dataset.access() as access:
        access.hold([dataset.manifest.chunks])
        with access.held(dataset.manifest.chunks):
            assert access.open(dataset.manifest.chunks[0]) is not None


def test_what_another_one_has_brought_is_not_fetched(dataset: Dataset) -> None:
    cache = open_cache(load_settings())
    evict(["toy"])
    fetcher = ChunkFetcher(cache, dataset.manifest)
    fetcher.ensure([0, 2])
    assert files(dataset) == {dataset.manifest.chunks[0].file, dataset.manifest.chunks[2].file}
    stamp = (dataset.path / dataset.manifest.chunks[0].file).stat().st_mtime_ns
    fetcher.ensure(range(len(dataset.manifest.chunks)))
    assert (dataset.path / dataset.manifest.chunks[0].file).stat().st_mtime_ns == stamp
    fetcher.close()
    fetcher.close()
    assert len(files(dataset)) == len(dataset.manifest.chunks)
    assert not list(cache.root.glob("locks/*.fetch"))
    assert not list(cache.root.glob("leases/*"))
