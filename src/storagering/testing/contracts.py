"""The contract that every chunk store keeps, as a pytest class to subclass.

    class TestMyStore(StoreContract):
        store = MyStore()

Needs pytest and hypothesis.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import awkward as ak
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storagering.cache.store import ChunkStore, digest_of, read_batch
from storagering.errors import ChecksumError, CorruptDataError, TruncatedError
from storagering.formats.forms import assign_keys, describe_column, to_awkward, to_batch
from storagering.formats.sparse import with_sparse
from storagering.types import Array, Batch, Chunk, Profile

PROFILES: tuple[Profile, ...] = ("small", "fast")
REAL = ("bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8")
#: What is not six numbers of type float32.
_OTHERS: dict[str, Any] = {
    "wider": np.arange(6, dtype="f8"),
    "integers": np.arange(6, dtype="i4"),
    "fewer": np.arange(5, dtype="f4"),
    "more": np.arange(7, dtype="f4"),
    "of a shape": np.arange(12, dtype="f4").reshape(6, 2),
    "lists": [[1.0], [], [2.0], [3.0], [], [4.0, 5.0]],
    "text": ["a", "b", "c", "d", "e", "f"],
}
_WORDS = ("", "a", "HLT_Mu24", "naïve", "粒子", "\U0001f9c0", "x" * 300, "nul\0inside", "")


def make_batch(columns: Mapping[str, Any], sparse: Sequence[str] = ()) -> Batch:
    """A batch of arrays, as a conversion would make it."""
    arrays = {name: ak.Array(array) for name, array in columns.items()}
    schema = assign_keys([describe_column(name, array) for name, array in arrays.items()])
    return to_batch(with_sparse(schema, sparse), arrays, len(next(iter(arrays.values()))))


def write_chunk(store: ChunkStore, path: Path, batch: Batch, profile: Profile = "small") -> Chunk:
    """Write a batch as a chunk file; returns what a manifest would say of it."""
    encoded = store.encode(batch, profile)
    path.write_bytes(encoded.data)
    raw = sum(a.nbytes for arrays in batch.arrays.values() for a in arrays)
    digest = digest_of(encoded.data)
    return Chunk(
        0, len(batch), path.name, len(encoded.data), raw, digest, encoded.trusted_from, encoded.checksum, spans=()
    )


def bits(arrays: tuple[Array, ...]) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Everything about arrays that must survive storage: NaN payloads and signs of zeros included."""
    return [(a.dtype.str, a.shape, np.ascontiguousarray(a).tobytes()) for a in arrays]


def sample_numbers(dtype: str, count: int) -> Array:
    """Numbers of a type, its extremes and oddities first."""
    kind = np.dtype(dtype)
    rng = np.random.default_rng(count)
    if kind.kind == "b":
        return rng.random(count) < 0.5
    if kind.kind == "c":
        return (rng.normal(size=count) + 1j * rng.normal(size=count)).astype(kind)
    if kind.kind == "f":
        info = np.finfo(kind)
        payload = np.array([-1], f"i{kind.itemsize}").view(kind)[0]  # a NaN with every bit set
        odd = [np.nan, payload, -0.0, 0.0, np.inf, -np.inf, info.smallest_subnormal, -info.tiny, info.max, info.min]
        return np.concatenate([np.array(odd, kind), rng.normal(size=count).astype(kind)])[:count]
    ends = np.iinfo(kind)
    numbers = rng.integers(ends.min, ends.max, count, kind, endpoint=True)
    numbers[:2] = np.array([ends.max, ends.min], kind)[:count]
    return numbers


def sample_counts(count: int) -> Array:
    """List lengths, with empty lists at both ends."""
    counts = np.random.default_rng(count).integers(0, 5, count)
    counts[:1] = counts[-1:] = 0
    return counts


def sample_columns(entries: int) -> dict[str, Any]:
    """One column of every kind that a store must keep; `sample_unions` has those that only Zarr can."""
    counts = sample_counts(entries)
    total = int(counts.sum())
    words = ak.Array([_WORDS[i % len(_WORDS)] for i in range(max(entries, total) + 1)])
    inner = sample_counts(total)
    floats = sample_numbers("f4", total)
    columns: dict[str, Any] = {f"flat_{dtype}": sample_numbers(dtype, entries) for dtype in REAL}
    columns |= {f"jagged_{dtype}": ak.unflatten(sample_numbers(dtype, total), counts) for dtype in REAL}
    return columns | {
        "fixed_f4": sample_numbers("f4", entries * 6).reshape(entries, 3, 2),
        "fixed_bool": sample_numbers("bool", entries * 3).reshape(entries, 3),
        "fixed_u8": sample_numbers("u8", entries).reshape(entries, 1),
        "jagged_fixed": ak.unflatten(sample_numbers("f8", total * 4).reshape(total, 2, 2), counts),
        "jagged_empty": ak.unflatten(np.zeros(0, "f4"), np.zeros(entries, int)),
        "doubly": ak.unflatten(ak.unflatten(sample_numbers("i2", int(inner.sum())), inner), counts),
        "string": words[:entries],
        "jagged_string": ak.unflatten(words[:total], counts),
        "bytes": ak.enforce_type(ak.without_parameters(words[:entries]), "bytes"),
        "record": ak.zip({"x": sample_numbers("f4", entries), "a b/c": sample_numbers("i8", entries)}),
        "deep": ak.zip({"y": ak.zip({"z": sample_numbers("u2", entries)}), "s": words[:entries]}),
        "records": ak.unflatten(ak.zip({"pt": floats, "charge": sample_numbers("i1", total)}), counts),
        "lists_of_records": ak.unflatten(ak.zip({"n": floats, "w": words[:total]}, depth_limit=1), counts),
        "option": ak.mask(sample_numbers("f8", entries), np.arange(entries) % 3 != 1),
        "option_all": ak.mask(sample_numbers("i4", entries), np.zeros(entries, bool)),
        "option_list": ak.mask(ak.unflatten(floats, counts), np.arange(entries) % 2 == 0),
        "option_inside": ak.unflatten(ak.mask(floats, floats > 0), counts),
        "option_string": ak.mask(words[:entries], np.arange(entries) % 4 > 0),
        "option_record": ak.mask(ak.zip({"x": sample_numbers("f2", entries)}), np.arange(entries) % 2 == 1),
        "regular_strings": ak.to_regular(ak.Array([["", "é"], ["x" * 9, "y"]] * entries)[:entries], axis=1),
    }


def sample_unions(entries: int) -> dict[str, Any]:
    """Columns that have no Arrow type."""
    tags = ak.index.Index8((np.arange(entries) % 2).astype("i1"))
    where = ak.index.Index64(np.arange(entries) // 2)
    cases = [ak.contents.NumpyArray(sample_numbers("f4", entries)), ak.to_layout(ak.Array(["ab", "", "é"] * entries))]
    return {
        "union": ak.Array(ak.contents.UnionArray(tags, where, cases)),
        "complex": sample_numbers("c8", entries),
        "jagged_complex": ak.unflatten(sample_numbers("c16", 2 * entries), np.full(entries, 2)),
        "empty_record": ak.Array(ak.contents.RecordArray([], [], length=entries)),
    }


@st.composite
def layouts(draw: st.DrawFn, length: int, depth: int = 3) -> Any:
    """Any layout of that length whose type Arrow knows too, with any bits in its numbers."""
    kinds = ["number", "fixed", "string"] + ["list", "record", "option", "list"] * (depth > 0)
    kind = draw(st.sampled_from(kinds))
    if kind == "list":
        offsets = np.concatenate([[0], np.cumsum(draw(_lengths(length)))]).astype(np.int64)
        return ak.contents.ListOffsetArray(ak.index.Index64(offsets), draw(layouts(int(offsets[-1]), depth - 1)))
    if kind == "record":
        names = draw(st.lists(st.text(max_size=3), min_size=1, max_size=3, unique=True))
        return ak.contents.RecordArray([draw(layouts(length, depth - 1)) for _ in names], names, length=length)
    if kind == "option":
        valid = np.array(draw(st.lists(st.booleans(), min_size=length, max_size=length)), bool)
        index = ak.index.Index64(np.where(valid, np.cumsum(valid) - 1, -1))
        return ak.contents.IndexedOptionArray.simplified(index, draw(layouts(int(valid.sum()), depth - 1)))
    if kind == "string":
        return ak.to_layout(ak.Array(["", *draw(st.lists(st.text(max_size=4), min_size=length, max_size=length))])[1:])
    shape = (length, *draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))) if kind == "fixed" else (length,)
    dtype = np.dtype(draw(st.sampled_from(REAL)))
    size = int(np.prod(shape))
    if dtype.kind == "b":
        return ak.contents.NumpyArray(
            np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool).reshape(shape)
        )
    data = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    return ak.contents.NumpyArray(np.frombuffer(data, dtype).reshape(shape))


def _lengths(count: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, 3), min_size=count, max_size=count)


@st.composite
def _tables(draw: st.DrawFn) -> dict[str, Any]:
    length = draw(st.integers(1, 5))
    names = draw(st.lists(st.text(max_size=8), min_size=1, max_size=3, unique=True))
    return {name: ak.Array(draw(layouts(length))) for name in names}


class StoreContract:
    """What every `ChunkStore` must do; set ``store``, and ``unions`` if it has no type for them."""

    store: ClassVar[ChunkStore]
    unions: ClassVar[bool] = True

    def columns(self, entries: int) -> dict[str, Any]:
        """Columns of all kinds that this store keeps."""
        return sample_columns(entries) | (sample_unions(entries) if self.unions else {})

    @pytest.mark.scenario(48)
    @pytest.mark.parametrize("profile", PROFILES)
    @pytest.mark.parametrize("entries", [1, 2, 7, 8, 9, 64, 1003])
    def test_every_kind_comes_back_bit_equal(self, tmp_path: Path, profile: Profile, entries: int) -> None:
        columns = self.columns(entries)
        batch = make_batch(columns)
        chunk = write_chunk(self.store, tmp_path / "chunk", batch, profile)
        reader = self.store.open(tmp_path / "chunk", chunk, batch.schema)
        for column in batch.schema.columns:
            assert bits(reader.read_column(column.name)) == bits(batch.arrays[column.name]), column
        whole = to_awkward(read_batch(reader, batch.schema, entries))
        for name, array in columns.items():
            assert ak.array_equal(whole[name], array, equal_nan=True, same_content_types=False), name

    @pytest.mark.scenario(48)
    @pytest.mark.parametrize("profile", PROFILES)
    @given(columns=_tables())
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def test_any_arrays_come_back_bit_equal(self, tmp_path: Path, profile: Profile, columns: dict[str, Any]) -> None:
        batch = make_batch(columns)
        path = tmp_path / "chunk"
        chunk = write_chunk(self.store, path, batch, profile)
        reader = self.store.open(path, chunk, batch.schema)
        back = read_batch(reader, batch.schema, len(batch))
        for name, array in columns.items():
            assert bits(back.arrays[name]) == bits(batch.arrays[name])
            assert to_awkward(back)[name].type == array.type

    @pytest.mark.parametrize("profile", PROFILES)
    def test_equal_batches_give_equal_bytes(self, profile: Profile) -> None:
        first, second = (self.store.encode(make_batch(self.columns(50)), profile) for _ in range(2))
        assert first == second

    @pytest.mark.parametrize("profile", PROFILES)
    def test_out_is_used_where_it_fits(self, tmp_path: Path, profile: Profile) -> None:
        batch = make_batch(self.columns(33))
        chunk = write_chunk(self.store, tmp_path / "chunk", batch, profile)
        reader = self.store.open(tmp_path / "chunk", chunk, batch.schema)
        for column in batch.schema.columns:
            if not column.is_numeric:
                continue
            want = batch.arrays[column.name]
            out = np.full_like(want[-1], 1)
            got = reader.read_column(column.name, out)
            assert got[-1] is out, column
            assert bits(got) == bits(want)
            other = np.zeros((len(want[-1]) + 1, *want[-1].shape[1:]), want[-1].dtype)
            assert bits(reader.read_column(column.name, other)) == bits(want)
            assert not other.any()

    def test_a_subset_is_read_in_any_order(self, tmp_path: Path) -> None:
        batch = make_batch(self.columns(20))
        chunk = write_chunk(self.store, tmp_path / "chunk", batch)
        names = batch.schema.names[::-3]
        part = read_batch(
            self.store.open(tmp_path / "chunk", chunk, batch.schema), batch.schema.select(names), len(batch)
        )
        assert {n: bits(part.arrays[n]) for n in names} == {n: bits(batch.arrays[n]) for n in names}

    @pytest.mark.scenario(18)
    def test_a_missing_file_is_an_error(self, tmp_path: Path) -> None:
        batch = make_batch(self.columns(3))
        chunk = write_chunk(self.store, tmp_path / "chunk", batch)
        (tmp_path / "chunk").unlink()
        with pytest.raises(TruncatedError, match="chunk"):
            self.store.open(tmp_path / "chunk", chunk, batch.schema)

    @pytest.mark.scenario(19)
    def test_a_file_of_another_length_is_an_error(self, tmp_path: Path) -> None:
        batch = make_batch(self.columns(3))
        path = tmp_path / "chunk"
        chunk = write_chunk(self.store, path, batch)
        data = path.read_bytes()
        for length in range(0, len(data), 64):
            path.write_bytes(data[:length])
            with pytest.raises(TruncatedError, match="chunk"):
                self.store.open(path, chunk, batch.schema)
        path.write_bytes(data + b"\0")
        with pytest.raises(TruncatedError, match="chunk"):
            self.store.open(path, chunk, batch.schema)

    @pytest.mark.scenario(19)
    def test_swapped_files_are_an_error(self, tmp_path: Path) -> None:
        first, second = ({"x": np.arange(100) + shift} for shift in (0, 1))
        batches = [make_batch(columns) for columns in (first, second)]
        chunks = [write_chunk(self.store, tmp_path / name, b) for name, b in zip("ab", batches, strict=True)]
        (tmp_path / "a").rename(tmp_path / "c")
        (tmp_path / "b").rename(tmp_path / "a")
        (tmp_path / "c").rename(tmp_path / "b")
        for name, batch, chunk in zip("ab", batches, chunks, strict=True):
            with pytest.raises(CorruptDataError, match=name):
                read_batch(self.store.open(tmp_path / name, chunk, batch.schema), batch.schema, len(batch))

    @pytest.mark.scenario(21)
    @pytest.mark.parametrize("other", _OTHERS, ids=list(_OTHERS))
    def test_sound_bytes_of_another_schema_are_an_error(self, tmp_path: Path, other: str) -> None:
        """The file is what its checksums say, and not what the schema says."""
        sound = make_batch({"x": np.arange(6, dtype="f4")})
        batch = make_batch({"x": _OTHERS[other]})
        chunk = write_chunk(self.store, tmp_path / "chunk", batch)
        with pytest.raises(CorruptDataError, match="x"):
            read_batch(self.store.open(tmp_path / "chunk", chunk, sound.schema), sound.schema, 6)

    @pytest.mark.scenario(17)
    @pytest.mark.parametrize("profile", PROFILES)
    def test_every_flipped_bit_is_found(self, tmp_path: Path, profile: Profile) -> None:
        jets = ak.unflatten(sample_numbers("f4", 5), [2, 0, 3])
        batch = make_batch({"x": sample_numbers("f4", 3), "jets": jets})
        chunk = write_chunk(self.store, tmp_path / "chunk", batch, profile)
        for bit in range(chunk.nbytes * 8):
            check_flip(self.store, tmp_path / "chunk", chunk, batch, bit)

    @pytest.mark.scenario(17)
    @pytest.mark.parametrize("profile", PROFILES)
    def test_a_flipped_bit_of_any_byte_is_found(self, tmp_path: Path, profile: Profile) -> None:
        columns = {name: array for name, array in self.columns(40).items() if not name.startswith(("flat_", "jagged_"))}
        batch = make_batch(columns | {"flat": np.arange(40), "bits": sample_numbers("bool", 40)})
        chunk = write_chunk(self.store, tmp_path / "chunk", batch, profile)
        step = max(1, chunk.nbytes // 4000)
        for byte in range(0, chunk.nbytes, step):
            check_flip(self.store, tmp_path / "chunk", chunk, batch, byte * 8 + (byte // step) % 8)


def check_flip(store: ChunkStore, path: Path, chunk: Chunk, batch: Batch, bit: int) -> None:
    """A chunk with that bit flipped is an error that names chunk and column; other columns are what they were."""
    with flipped(path, bit):
        try:
            reader = store.open(path, chunk, batch.schema)
        except CorruptDataError as error:
            assert _names(error, path, None, batch), (bit, error)
            return
        found = 0
        for column in batch.schema.columns:
            try:
                assert bits(reader.read_column(column.name)) == bits(batch.arrays[column.name]), (bit, column.name)
            except CorruptDataError as error:
                found += 1
                assert _names(error, path, column.name, batch), (bit, error)
        assert found, f"bit {bit} was flipped unseen"


def _names(error: Exception, path: Path, column: str | None, batch: Batch) -> bool:
    """Whether a checksum error names the chunk and the column at fault (or that all are)."""
    text = str(error)
    names = [column] if column is not None else batch.schema.names
    named = any(repr(name) in text for name in names) or (column is None and "columns: all" in text)
    return isinstance(error, ChecksumError) and path.name in text and named


@contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """The file with one bit flipped, put right afterwards."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        before = os.pread(descriptor, 1, bit // 8)
        os.pwrite(descriptor, bytes([before[0] ^ 1 << bit % 8]), bit // 8)
        try:
            yield
        finally:
            os.pwrite(descriptor, before, bit // 8)
    finally:
        os.close(descriptor)
