"""The Zarr store: the contract, and what a plain Zarr library sees."""

import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import zarr

from storagering.cache.codecs import LZ4, RAW, encode_array, encode_sparse
from storagering.cache.zarr_store import ZarrStore
from storagering.errors import CorruptDataError
from storagering.testing.contracts import (
    PROFILES,
    StoreContract,
    make_batch,
    sample_columns,
    sample_numbers,
    sample_unions,
    write_chunk,
)
from storagering.testing.sparse_contract import SparseStoreContract
from storagering.types import Batch, Column, Profile


class TestZarrStore(StoreContract):
    store = ZarrStore()


class TestSparseColumns(SparseStoreContract):
    store = ZarrStore()


def open_plainly(path: Path) -> Any:
    with warnings.catch_warnings():  # numcodecs' codecs are not part of the Zarr specification yet
        warnings.simplefilter("ignore")
        return zarr.open_group(zarr.storage.ZipStore(path, mode="r"), mode="r")


def read_plainly(group: Any, path: str) -> Any:
    """An array of the group, or the one that a link in the attributes of its group leads to."""
    parent, _, leaf = path.rpartition("/")
    if parent and leaf in group[parent].attrs:
        path = str(group[parent].attrs[leaf]).lstrip("/")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return group[path][...]


def path_in_zarr(column: Column, part: str) -> str:
    return f"{column.key}/{part}" if part else column.key


def check_against_plain_zarr(group: Any, batch: Batch) -> None:
    for column in batch.schema.columns:
        for part, want in zip(column.parts, batch.arrays[column.name], strict=True):
            got = read_plainly(group, path_in_zarr(column, part.name))
            if part.role == "counts":
                np.testing.assert_array_equal(got, np.diff(want))
            else:
                assert (got.dtype, got.shape) == (want.dtype, want.shape), column.name
                assert got.tobytes() == want.tobytes(), column.name


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("entries", [1, 9, 500])
def test_plain_zarr_reads_every_array(tmp_path: Path, profile: Profile, entries: int) -> None:
    batch = make_batch(sample_columns(entries) | sample_unions(entries))
    write_chunk(ZarrStore(), tmp_path / "chunk.zarr.zip", batch, profile)
    check_against_plain_zarr(open_plainly(tmp_path / "chunk.zarr.zip"), batch)


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not")
def test_names_units_and_titles_are_attributes(tmp_path: Path) -> None:
    batch = make_batch({"../pt": np.arange(3), "jets": ak.Array([[1.5], [], [2.5, 3.5]])})
    columns = [replace(c, unit="GeV", doc="a title") for c in batch.schema.columns]
    write_chunk(ZarrStore(), tmp_path / "c", Batch(replace(batch.schema, columns=tuple(columns)), 3, batch.arrays))
    group = open_plainly(tmp_path / "c")
    assert group.attrs["storagering"] == {"entries": 3}
    assert dict(group["col000000"].attrs) == {"name": "../pt", "unit": "GeV", "doc": "a title"}
    assert dict(group["jets"].attrs) == {"unit": "GeV", "doc": "a title"}


def test_equal_counts_are_stored_once_and_linked(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(4.0, 5000)
    jets = {f"Jet_{n}": ak.unflatten(sample_numbers("u1", int(counts.sum())), counts) for n in range(8)}
    one = write_chunk(ZarrStore(), tmp_path / "one", make_batch({"Jet_0": jets["Jet_0"]}))
    eight = write_chunk(ZarrStore(), tmp_path / "eight", make_batch(jets))
    values = int(counts.sum())  # random bytes do not shrink
    assert eight.nbytes < one.nbytes + 7 * (values + 1500)
    group = open_plainly(tmp_path / "eight")
    assert group["Jet_7"].attrs["counts"] == "/Jet_0/counts"
    check_against_plain_zarr(group, make_batch(jets))


def test_raw_arrays_begin_on_cache_lines(tmp_path: Path) -> None:
    batch = make_batch({name: sample_numbers("f4", 1000) for name in ("a", "bcd", "efghij")})
    write_chunk(ZarrStore(), tmp_path / "c", batch, "fast")
    data = (tmp_path / "c").read_bytes()
    with zipfile.ZipFile(tmp_path / "c") as file:
        for info in file.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                continue
            extra = int.from_bytes(data[info.header_offset + 28 : info.header_offset + 30], "little")
            begin = info.header_offset + 30 + len(info.filename.encode()) + extra
            assert begin % 64 == 0, info.filename
        assert file.testzip() is None


def test_equal_counts_of_other_lengths_are_not_mixed_up(tmp_path: Path) -> None:
    """Arrays without bytes begin where the next one does."""
    columns = {
        "no_lists": ak.Array(ak.contents.ListOffsetArray(ak.index.Index64(np.zeros(3, int)), ak.to_layout([1.0])[:0])),
        "empty": ak.unflatten(ak.unflatten(np.zeros(0), np.zeros(0, int)), [0, 0]),
        "string": ak.Array(["", "a"]),
        "strings": ak.Array([["x"], []]),
    }
    batch = make_batch(columns)
    chunk = write_chunk(ZarrStore(), tmp_path / "c", batch)
    reader = ZarrStore().open(tmp_path / "c", chunk, batch.schema)
    for _ in range(2):
        for name in reversed(columns):
            for got, want in zip(reader.read_column(name), batch.arrays[name], strict=True):
                np.testing.assert_array_equal(got, want)


def test_a_column_larger_than_the_chunk_is_refused(tmp_path: Path) -> None:
    batch = make_batch({"x": np.zeros(1000)})
    chunk = replace(write_chunk(ZarrStore(), tmp_path / "c", batch), raw_bytes=100)
    with pytest.raises(CorruptDataError, match=r"'x'.*claims 1000 numbers"):
        ZarrStore().open(tmp_path / "c", chunk, batch.schema).read_column("x")


def test_one_reader_serves_many_threads(tmp_path: Path) -> None:
    batch = make_batch(sample_columns(2000))
    chunk = write_chunk(ZarrStore(), tmp_path / "c", batch)
    reader = ZarrStore().open(tmp_path / "c", chunk, batch.schema)
    names = list(batch.schema.names) * 4
    with ThreadPoolExecutor(8) as threads:
        for name, got in zip(names, threads.map(reader.read_column, names), strict=True):
            assert all(a.tobytes() == b.tobytes() for a, b in zip(got, batch.arrays[name], strict=True)), name


@pytest.mark.parametrize("dtype", ["<i2", "<i4", "<i8", "<u2", "<u4", "<u8"])
def test_integers_take_the_smallest_type_that_holds_them(tmp_path: Path, dtype: str) -> None:
    """Every limit of a smaller type, one within and one beyond."""
    rng, wide = np.random.default_rng(0), np.iinfo(dtype)
    columns, expected = {}, {}
    for size in (1, 2, 4, 8):
        own = np.iinfo(f"{dtype[1]}{size}")
        limits = (("at", own.min, own.max), ("below", own.min - 1, own.max), ("above", own.min, own.max + 1))
        for name, low, high in limits:
            if wide.min <= low and high <= wide.max:
                middle = rng.integers(max(low, -100), min(high, 100), 500).astype(dtype)
                columns[f"{name}{size}"] = np.concatenate([middle, np.array([low, high], dtype)])
                expected[f"{name}{size}"] = min(wide.bits // 8, size * (1 if name == "at" else 2))
    batch = make_batch(columns)
    chunk = write_chunk(ZarrStore(), tmp_path / "c", batch, "fast")
    check_against_plain_zarr(open_plainly(tmp_path / "c"), batch)
    reader = ZarrStore().open(tmp_path / "c", chunk, batch.schema)
    with zipfile.ZipFile(tmp_path / "c") as file:
        for name, want in columns.items():
            assert reader.read_column(name)[0].tobytes() == want.tobytes(), name
            stored = file.getinfo(f"{name}/c/0").file_size
            assert stored <= expected[name] * len(want), name


def test_numbers_that_do_not_fit_their_codec_are_refused() -> None:
    codec, encoded = encode_array(np.arange(-100, 100, dtype=np.int64), "data", "fast")
    assert len(encoded) == 200
    out = np.empty(200, np.int64)
    codec.decode(memoryview(encoded), out)
    assert out.tolist() == list(range(-100, 100))
    for wrong in (encoded[:1], encoded[:199], bytes(encoded) + b"x"):
        with pytest.raises(ValueError, match="numbers instead of 200"):
            codec.decode(memoryview(wrong), out)


@pytest.mark.parametrize("dtype", ["u2", "f4", "f8"])
def test_bytes_that_say_nothing_are_left_out_of_sparse_columns(dtype: str) -> None:
    """A zero byte in every number takes no room; numbers without any are stored as ever."""
    size = np.dtype(dtype).itemsize
    random = np.frombuffer(np.random.default_rng(0).bytes(500_000 * size), dtype).copy()
    assert encode_sparse(random, "data", "fast")[0] == RAW
    assert encode_sparse(random, "counts", "fast")[0] == RAW
    assert encode_sparse(random[:9], "data", "small")[0] == encode_array(random[:9], "data", "small")[0]
    random.view("u1")[::size] = 0
    codec, encoded = encode_sparse(random, "data", "fast")
    assert len(encoded) < random.nbytes * (1.02 - 1 / size)
    assert codec.zarr[1]["name"] == "blosc"
    out = np.ones_like(random)
    codec.decode(memoryview(encoded), out)
    assert out.tobytes() == random.tobytes()
    for wrong in (encoded[:-1], bytes(encoded) + b"x", encoded[:10]):
        with pytest.raises(ValueError, match=r"bytes that hold|buffer is smaller"):
            codec.decode(memoryview(wrong), out)
    with pytest.raises(ValueError, match="bytes that hold"):
        codec.decode(memoryview(encoded), out[:-1])


def test_floats_that_do_not_shrink_are_stored_as_they_are() -> None:
    numbers = np.random.default_rng(0).random(100_000)
    codec, encoded = encode_array(numbers, "data", "fast")
    assert (codec, bytes(encoded)) == (RAW, numbers.tobytes())
    assert np.shares_memory(np.frombuffer(encoded, np.uint8), numbers)  # no copy on the way to disk
    codec, encoded = encode_array(np.repeat(numbers[:1000], 100), "data", "fast")
    assert codec == LZ4
    assert len(encoded) < 100_000
