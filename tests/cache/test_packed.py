"""The rows layout on disk: the contract of stores, what a plain Zarr library sees, and checks block by block."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import zarr

from storagering.cache.packed import PackedRows
from storagering.cache.store import ChunkReader
from storagering.cache.zarr_store import ZarrStore
from storagering.errors import ChecksumError, CorruptDataError
from storagering.testing.contracts import (
    StoreContract,
    flipped,
    make_batch,
    sample_columns,
    sample_numbers,
    sample_unions,
    write_chunk,
)
from storagering.types import Array, Batch, Chunk

STORE = ZarrStore("rows")


class TestRowsStore(StoreContract):
    store = STORE


def decode(words: Array, field: dict[str, Any]) -> Array:
    """A column from the words and what their attributes say, as anybody may write it."""
    unsigned = np.dtype(f"<u{np.dtype(field['dtype']).itemsize}")
    rows = np.unpackbits(words.astype("<u4").view(np.uint8), axis=1, bitorder="little")
    bits = rows[:, field["bit"] : field["bit"] + field["bits"]]
    c = sum((bits[:, n].astype(np.uint64) << np.uint64(n) for n in range(field["bits"])), np.zeros(len(words), "<u8"))
    if field["kind"] == "dictionary":
        return np.array(field["values"], unsigned)[c].view(field["dtype"])
    m = (c >> np.uint64(field["signed"])).astype(unsigned)
    value = (m - unsigned.type(field["zero"]) << unsigned.type(field["shift"])) + unsigned.type(field["base"])
    if field["zero"]:
        value[m == 0] = 0
    if field["signed"]:
        value |= c.astype(unsigned) << unsigned.type(8 * unsigned.itemsize - 1)
    decoded: Array = value.view(field["dtype"])
    return decoded


@pytest.mark.parametrize("entries", [1, 9, 500])
def test_plain_zarr_and_ten_lines_of_numpy_read_it(tmp_path: Path, entries: int) -> None:
    batch = make_batch(sample_columns(entries) | sample_unions(entries))
    write_chunk(STORE, tmp_path / "chunk.zarr.zip", batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.open_group(zarr.storage.ZipStore(tmp_path / "chunk.zarr.zip", mode="r"), mode="r")
        rows = group["storagering.rows"]
        words, packing = rows[...], {field["name"]: field for field in rows.attrs["packing"]}
        jagged = group["jagged_f4/values"][...]
    flat = [c.name for c in batch.schema.columns if c.kind == "flat" and c.dtype != "complex64"]
    assert sorted(packing) == sorted(flat)
    for name in flat:
        assert decode(words, packing[name]).tobytes() == batch.arrays[name][0].tobytes(), packing[name]
    assert jagged.tobytes() == batch.arrays["jagged_f4"][1].tobytes()


def open_rows(path: Path, chunk: Chunk, batch: Batch) -> tuple[ChunkReader, PackedRows]:
    reader = STORE.open(path, chunk, batch.schema)
    packed = reader.packed_rows()
    assert packed is not None
    return reader, packed


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, Chunk, Batch]:
    """A chunk of several blocks of rows."""
    columns = {f"x{number}": sample_numbers("f8", 20_000 + number)[number:] for number in range(4)}
    batch = make_batch(columns | {"jets": ak.unflatten(np.arange(40_000), 2)})
    return tmp_path / "chunk", write_chunk(STORE, tmp_path / "chunk", batch), batch


def test_a_block_is_checked_when_a_row_of_it_is_read(large: tuple[Path, Chunk, Batch]) -> None:
    path, chunk, batch = large
    _, packed = open_rows(path, chunk, batch)
    assert packed.words.ctypes.data % 64 == 0
    rows = 1 << packed.block_shift
    assert 32 << 10 < rows * 4 * packed.words.shape[1] <= 64 << 10
    offset = path.read_bytes().index(packed.words[2 * rows : 2 * rows + 9].tobytes())
    with flipped(path, 8 * offset + 3):
        reader, packed = open_rows(path, chunk, batch)
        packed.check(np.array([0, rows - 1, 5 * rows]))
        assert packed.checked.nonzero()[0].tolist() == [0, 5]
        for row in (2 * rows, 3 * rows - 1):
            with pytest.raises(ChecksumError, match=rf"chunk .* entries {2 * rows} to {3 * rows - 1} .* damaged"):
                packed.check(np.array([0, row]))
        with pytest.raises(ChecksumError, match="column 'x1' is damaged"):
            reader.read_column("x1")
        packed.check_range(3 * rows, len(batch))
        assert packed.checked.sum() > len(packed.checked) / 2
    reader.read_column("x1")
    assert packed.checked.all()
    packed.check(np.array([2 * rows]))


def test_what_precedes_the_words_is_checked(large: tuple[Path, Chunk, Batch]) -> None:
    path, chunk, batch = large
    name = path.read_bytes().index(b"storagering.rows/c/0/0")
    with flipped(path, 8 * name), pytest.raises(ChecksumError, match="columns: all"):
        open_rows(path, chunk, batch)


def test_one_reader_serves_many_threads(large: tuple[Path, Chunk, Batch]) -> None:
    path, chunk, batch = large
    reader, packed = open_rows(path, chunk, batch)
    names = ["x0", "x1", "x2", "x3"] * 4
    rng = np.random.default_rng(0)
    with ThreadPoolExecutor(8) as threads:
        checks = [threads.submit(packed.check, rng.integers(0, len(batch), 500)) for _ in range(20)]
        for name, got in zip(names, threads.map(reader.read_column, names), strict=True):
            assert got[0].tobytes() == batch.arrays[name][0].tobytes()
        assert [check.result() for check in checks] == [None] * 20
    assert packed.sound


def test_no_flat_columns_and_no_bits(tmp_path: Path) -> None:
    jets = make_batch({"jets": ak.unflatten(np.arange(6), [1, 2, 3])})
    lists = STORE.open(tmp_path / "a", write_chunk(STORE, tmp_path / "a", jets), jets.schema)
    assert lists.packed_rows() is None
    constant = make_batch({"x": np.full(7, 2.5), "n": np.full(7, 3)})
    reader, packed = open_rows(tmp_path / "b", write_chunk(STORE, tmp_path / "b", constant), constant)
    packed.check(np.arange(7))
    assert packed.words.shape == (7, 0)
    assert reader.read_column("x")[0].tolist() == [2.5] * 7
    columns = ZarrStore().open(tmp_path / "c", write_chunk(ZarrStore(), tmp_path / "c", constant), constant.schema)
    assert columns.packed_rows() is None


def test_a_column_of_that_name_has_another_key(tmp_path: Path) -> None:
    batch = make_batch({"storagering.rows": sample_numbers("f4", 20), "x": sample_numbers("i4", 20)})
    assert batch.schema.columns[0].key == "col000000"
    reader, _ = open_rows(tmp_path / "c", write_chunk(STORE, tmp_path / "c", batch), batch)
    assert reader.read_column("storagering.rows")[0].tobytes() == batch.arrays["storagering.rows"][0].tobytes()


@pytest.mark.parametrize("change", ["rows", "words", "block_shift", "bits", "dtype", "kind"])
def test_a_sound_index_that_cannot_be_is_refused(tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checksums prove who wrote it, not that it is right: nothing beyond the file may be read by address."""
    from storagering.cache import packed as module

    real = module.encode_index

    def wrong(words: Array, *others: Any) -> bytes:
        data = bytearray(real(words, *others))
        head = np.frombuffer(data, module._HEAD, 1)
        fields = np.frombuffer(data, module._FIELD, 1, module._HEAD.itemsize)
        values: dict[str, Any] = {
            "rows": 1 << 40,
            "words": 3,
            "block_shift": 60,
            "bits": 40,
            "dtype": b"<x9",
            "kind": 7,
        }
        (head if change in ("rows", "words", "block_shift") else fields)[change] = values[change]
        return bytes(data)

    monkeypatch.setattr("storagering.cache.zarr_store.encode_index", wrong)
    batch = make_batch({"x": sample_numbers("f4", 20)})
    chunk = write_chunk(STORE, tmp_path / "c", batch)
    with pytest.raises(CorruptDataError):
        STORE.open(tmp_path / "c", chunk, batch.schema).read_column("x")
