"""Rows of many chunks at once: what is gathered is what the columns hold, whatever each chunk's packing."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storagering.cache.packed import PackedRows
from storagering.cache.zarr_store import ZarrStore
from storagering.errors import ChecksumError, CorruptDataError, LoaderError, SchemaError
from storagering.loaders.rows import RowGatherer
from storagering.testing.contracts import flipped, make_batch, sample_numbers, write_chunk
from storagering.types import Array, Batch, Chunk

DTYPES = ("?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")


class Chunks:
    """Chunk files of the rows layout, and what is in them."""

    def __init__(self, folder: Path, contents: Sequence[dict[str, Array]]) -> None:
        folder.mkdir(exist_ok=True)
        self.batches = [make_batch(columns) for columns in contents]
        self.paths = [folder / f"chunk{number}" for number in range(len(contents))]
        self.chunks = [
            write_chunk(ZarrStore("rows"), path, batch) for path, batch in zip(self.paths, self.batches, strict=True)
        ]
        self.opened: list[int] = []

    def open(self, number: int) -> PackedRows:
        self.opened.append(number)
        chunk: Chunk = self.chunks[number]
        packed = ZarrStore().open(self.paths[number], chunk, self.batches[number].schema).packed_rows()
        assert packed is not None
        return packed

    def gatherer(self, names: Sequence[str], dtype: str) -> RowGatherer:
        columns = self.batches[0].schema.select(names).columns
        return RowGatherer(len(self.chunks), self.open, columns, np.dtype(dtype))

    def some_rows(self, count: int, seed: int = 0) -> tuple[Array, Array]:
        rng = np.random.default_rng(seed)
        chunk = rng.integers(0, len(self.chunks), count).astype(np.int32)
        return chunk, (rng.random(count) * np.array([len(b) for b in self.batches])[chunk]).astype(np.int64)

    def column(self, name: str, chunk: Array, row: Array) -> Array:
        columns = [batch.arrays[name][0] for batch in self.batches]
        return np.array([columns[c][r] for c, r in zip(chunk, row, strict=True)], columns[0].dtype)

    def entries(self, number: int) -> Batch:
        return self.batches[number]


def content(rng: np.random.Generator, rows: int) -> dict[str, Array]:
    """Columns of all types, packed in every way, each time another one."""
    columns: dict[str, Array] = {}
    for number, dtype in enumerate(DTYPES):
        for way in range(3):
            array = sample_numbers(dtype, rows + 20)[int(rng.integers(20)) :][:rows]
            if array.dtype == np.uint64:
                array = array >> np.uint64(1)
            if way == 1:  # few values, or one
                array = array[rng.integers(0, rng.integers(1, min(17, rows + 1)), rows)]
            elif way == 2 and array.dtype.kind == "f":
                array = rng.normal(size=rows).astype(dtype)
            elif way == 2 and array.dtype.kind != "b":
                array = rng.integers(0, 100, rows).astype(dtype)
            columns[f"x{number}_{way}"] = array
    return columns


@pytest.fixture
def chunks(tmp_path: Path) -> Chunks:
    rng = np.random.default_rng(1)
    return Chunks(tmp_path / "chunks", [content(rng, rows) for rows in (1, 700, 2000, 33, 5000)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_of_one_type_come_bit_for_bit(chunks: Chunks, dtype: str) -> None:
    number = DTYPES.index(dtype)
    names = [f"x{number}_{way}" for way in (2, 0, 1)]
    chunk, row = chunks.some_rows(200)
    gatherer = chunks.gatherer(names, dtype)
    out = np.empty((200, 3), dtype)
    gatherer.gather(chunk, row, out)
    for at, name in enumerate(names):
        assert out[:, at].tobytes() == chunks.column(name, chunk, row).tobytes()
        single = np.empty(200, dtype)
        chunks.gatherer([name], dtype).gather(chunk, row, single)
        assert single.tobytes() == out[:, at].tobytes()
    assert sorted(chunks.opened[:5]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("stored", "wide"), [("<u2", "<i4"), ("<u4", "<i8"), ("<u8", "<i8")])
def test_unsigned_integers_become_signed_ones_that_hold_them(chunks: Chunks, stored: str, wide: str) -> None:
    names = [f"x{DTYPES.index(stored)}_{way}" for way in range(3)]
    chunk, row = chunks.some_rows(300)
    out = np.empty((300, 3), wide)
    chunks.gatherer(names, wide).gather(chunk, row, out)
    for at, name in enumerate(names):
        np.testing.assert_array_equal(out[:, at], chunks.column(name, chunk, row).astype(wide))


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("count", [1, 7, 8, 9, 36])
def test_a_stack_of_several_types_is_float32(chunks: Chunks, count: int) -> None:
    names = np.random.default_rng(count).permutation(chunks.entries(0).schema.names)[:count].tolist()
    chunk, row = chunks.some_rows(400)
    out = np.empty((400, count), np.float32)
    chunks.gatherer(names, "<f4").gather(chunk, row, out)
    for at, name in enumerate(names):
        with np.errstate(invalid="ignore"):
            want = chunks.column(name, chunk, row).astype(np.float32)
        np.testing.assert_array_equal(out[:, at], want)  # any NaN equals any
        np.testing.assert_array_equal(np.signbit(out[:, at]), np.signbit(want))


def test_every_half_precision_number_becomes_the_same_float32(tmp_path: Path) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    chunks = Chunks(tmp_path / "c", [{"x": halves, "y": np.arange(1 << 16, dtype=np.int32)}])
    out = np.empty((1 << 16, 2), np.float32)
    chunks.gatherer(["x", "y"], "<f4").unpack(0, 0, out)
    np.testing.assert_array_equal(out[:, 0], halves.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(out[:, 0]), np.signbit(halves))
    np.testing.assert_array_equal(out[:, 1], np.arange(1 << 16, dtype=np.float32))


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_bits_of_any_chunks_come_back(tmp_path: Path, data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([4, 8]))
    contents = []
    count = data.draw(st.integers(1, 12))
    for _ in range(data.draw(st.integers(1, 3))):
        rows = data.draw(st.integers(1, 30))
        shift = data.draw(st.integers(0, 8 * size - 1))
        raw = data.draw(st.binary(min_size=rows * size * count, max_size=rows * size * count))
        bits = np.frombuffer(raw, f"<u{size}") >> np.array(shift, f"<u{size}") << np.array(shift, f"<u{size}")
        table = bits.reshape(count, rows).view(f"<f{size}")
        contents.append({f"x{number}": column for number, column in enumerate(table)})
    chunks = Chunks(tmp_path / "any", contents)
    names = data.draw(st.permutations(list(contents[0])))
    chunk, row = chunks.some_rows(data.draw(st.integers(0, 50)))
    out = np.empty((len(chunk), count), f"<f{size}")
    chunks.gatherer(names, f"<f{size}").gather(chunk, row, out)
    for at, name in enumerate(names):
        assert out[:, at].tobytes() == chunks.column(name, chunk, row).tobytes()


def test_a_range_of_rows_is_unpacked_row_by_row(chunks: Chunks) -> None:
    names = [f"x{DTYPES.index('<f4')}_{way}" for way in range(3)]
    gatherer = chunks.gatherer(names, "<f4")
    for start, stop in ((0, 5000), (17, 18), (100, 100), (4990, 5000)):
        out = np.empty((stop - start, 3), np.float32)
        gatherer.unpack(4, start, out)
        for at, name in enumerate(names):
            assert out[:, at].tobytes() == chunks.entries(4).arrays[name][0][start:stop].tobytes()
    with pytest.raises(LoaderError, match="its chunk has not"):
        gatherer.unpack(4, 4999, np.empty((2, 3), np.float32))


def test_threads_share_a_gatherer_and_parts_of_a_batch(chunks: Chunks) -> None:
    names = [f"x{DTYPES.index('<f4')}_{way}" for way in range(3)] + ["x5_0", "x11_0", "x7_1", "x0_0"]
    gatherer = chunks.gatherer(names, "<f4")
    chunk, row = chunks.some_rows(20_000)
    out = np.full((20_000, len(names)), -1, np.float32)
    cuts = [slice(start, start + 333) for start in range(0, 20_000, 333)]
    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(gatherer.gather, chunk[cut], row[cut], out[cut]) for cut in cuts]:
            future.result()
    assert sorted(chunks.opened) == [0, 1, 2, 3, 4]  # each once
    again = np.empty_like(out)
    gatherer.gather(chunk, row, again)
    assert again.tobytes() == out.tobytes()
    assert out[:, 0].tobytes() == chunks.column(names[0], chunk, row).tobytes()


def test_damage_is_an_error_where_it_is_and_only_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    contents = [{f"x{n}": rng.normal(size=20_000).astype("f4") for n in range(4)} for _ in range(2)]
    chunks = Chunks(tmp_path / "c", contents)
    words, shift = chunks.open(1).words, chunks.open(1).block_shift
    offset = chunks.paths[1].read_bytes().index(words[1 << shift :][:4].tobytes())
    with flipped(chunks.paths[1], 8 * offset):
        gatherer = chunks.gatherer(["x1", "x3"], "<f4")
        sound = np.arange(1 << shift)
        out = np.empty((len(sound), 2), np.float32)
        gatherer.gather(np.ones(len(sound), np.int32), sound, out)
        assert out[:, 1].tobytes() == contents[1]["x3"][: 1 << shift].tobytes()
        for _ in range(2):
            with pytest.raises(ChecksumError, match=r"chunk1.*entries .* damaged"):
                gatherer.gather(np.ones(2, np.int32), np.array([0, 1 << shift]), out[:2])
            with pytest.raises(ChecksumError, match=r"chunk1.*entries .* damaged"):
                gatherer.unpack(1, 10, np.empty((1 << shift, 2), np.float32))
        gatherer.gather(np.zeros(2, np.int32), np.array([0, 1 << shift]), out[:2])


def test_what_is_not_there_is_refused(chunks: Chunks) -> None:
    gatherer = chunks.gatherer(["x10_0", "x10_1"], "<f4")
    out = np.empty((2, 2), np.float32)
    for chunk, row in (([0, 5], [0, 0]), ([0, -1], [0, 0]), ([0, 0], [0, 1]), ([0, 4], [0, -1]), ([4, 4], [0, 5000])):
        with pytest.raises(LoaderError, match="its chunk has not"):
            gatherer.gather(np.array(chunk, np.int32), np.array(row), out)
    for wrong in (np.empty((2, 2)), np.empty((2, 3), np.float32), np.empty((2, 4), np.float32)[:, ::2]):
        with pytest.raises(LoaderError, match="not float32 of their size"):
            gatherer.gather(np.zeros(2, np.int32), np.zeros(2, np.int64), wrong)
    other = Chunks(chunks.paths[0].parent / "other", [{"x10_0": np.arange(30.0), "x10_1": np.arange(30.0)}])
    mixed = RowGatherer(1, other.open, chunks.entries(0).schema.select(["x10_0"]).columns, np.dtype("<f4"))
    with pytest.raises(CorruptDataError, match=r"'x10_0' is not packed as float32"):
        mixed.gather(np.zeros(1, np.int32), np.zeros(1, np.int64), np.empty(1, np.float32))


@pytest.mark.parametrize("few", [True, False])
def test_integers_that_no_tensor_holds_are_refused(tmp_path: Path, few: bool) -> None:
    numbers = np.arange(40, dtype=np.uint64)
    fine, large = numbers.copy(), numbers.copy()
    fine[-1], large[-1] = (1 << 63) - 1, 1 << 63
    if few:
        fine, large = fine[-3:], large[-3:]
    chunks = Chunks(tmp_path / "c", [{"x": fine}, {"x": large}])
    out = np.empty(1, np.int64)
    gatherer = chunks.gatherer(["x"], "<i8")
    gatherer.gather(np.zeros(1, np.int32), np.array([len(fine) - 1]), out)
    assert out.tolist() == [(1 << 63) - 1]
    with pytest.raises(SchemaError, match="'x' has values above"):
        gatherer.gather(np.ones(1, np.int32), np.array([0]), out)


@pytest.mark.parametrize("columns", [1, 3, 8, 13])
def test_nothing_is_written_beside_the_rows(chunks: Chunks, columns: int) -> None:
    names = [f"x{number}_{way}" for number in range(12) for way in range(3)][-columns:]
    gatherer = chunks.gatherer(names, "<f4")
    for rows in (0, 1, 2, 7, 40):
        chunk, row = chunks.some_rows(rows)
        held = np.full((rows + 20, columns), 5, np.float32)
        gatherer.gather(chunk, row, held[10 : 10 + rows])
        assert (held[:10] == 5).all()
        assert (held[10 + rows :] == 5).all()
        np.testing.assert_array_equal(held[10 : 10 + rows, -1], chunks.column(names[-1], chunk, row).astype("f4"))
