"""Baskets read here: equal to uproot bit for bit, and nothing wrong from damaged bytes."""

import struct
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from storagering.config import load_settings
from storagering.errors import CorruptDataError, LimitExceededError, SchemaError, StorageringError
from storagering.formats.forms import assign_keys, describe_column, to_batch
from storagering.formats.readers import open_source
from storagering.formats.readers.baskets import (
    Arena,
    BasketColumn,
    BasketRead,
    UnusualBasketError,
    describe_branch,
    is_checked,
)
from storagering.formats.readers.root import list_trees
from storagering.formats.readers.ttree import TreeSource
from storagering.testing.toys import write_toy_tree
from storagering.types import Array

COMPRESSIONS = ("zstd", "zlib", "lz4", "lzma", None)
FILES = (
    "rootfiles/uproot-issue513.root",  # fBits of referenced objects
    "rootfiles/uproot-issue413.root",  # strings without places
    "rootfiles/uproot-from-geant4.root",  # baskets kept with the tree
    "rootfiles/nanoAOD_2015_CMS_Open_Data_ttbar.root",
    "rootfiles/uproot-HZZ.root",
    "rootfiles/uproot-sample-6.20.04-zlib.root",
    "rootfiles/uproot-sample-5.23.02-uncompressed.root",
    "rootfiles/uproot-sample-6.16.00-uncompressed.root",
    "rootfiles/uproot-sample-6.16.00-lzma.root",
    "rootfiles/uproot-sample-6.20.04-lz4.root",
    "hep_samples/pduneana.root",
)


def write_tree(path: Path, columns: dict[str, Any], basket_entries: int = 1 << 30, compression: Any = None) -> str:
    with uproot.recreate(path, compression=compression) as file:
        types = {n: c.type if isinstance(c, ak.Array) else np.dtype((c.dtype, c.shape[1:])) for n, c in columns.items()}
        tree = file.mktree("t", types)
        for start in range(0, len(next(iter(columns.values()))), basket_entries):
            tree.extend({n: c[start : start + basket_entries] for n, c in columns.items()})
    return str(path)


def open_tree(path: Path | str, tree: str | None = None) -> TreeSource:
    source = open_source(str(path), tree, load_settings())
    assert isinstance(source, TreeSource)
    return source


def columns_of(path: Path | str) -> dict[str, tuple[BasketColumn, list[bytes]]]:
    """Every column that is read here, with the bytes of its baskets."""
    data, found = Path(path).read_bytes(), {}
    with uproot.open(path) as file:
        for name, branch in file[list_trees(file)[0]].items():
            column = describe_branch(name, branch)
            if column is not None:
                found[name] = (column, [data[a:b] for a, b in column.ranges(range(len(column.seeks)))])
    return found


def decode(column: BasketColumn, stored: Sequence[bytes], start: int = 0, stop: int | None = None) -> tuple[Array, ...]:
    end = int(column.entries[-1]) if stop is None else stop
    read = BasketRead(column, start, end, [memoryview(s) for s in stored], "some.root")
    return read.decode(Arena(read.room))


def assert_identical(got: Any, want: Any, where: object) -> None:
    assert got.type == want.type, where
    (form, length, have), (other, entries, expect) = (ak.to_buffers(ak.to_packed(a)) for a in (got, want))
    assert (form, length) == (other, entries), where
    assert all(np.asarray(have[k]).tobytes() == np.asarray(expect[k]).tobytes() for k in have), where


@pytest.mark.parametrize("name", FILES)
def test_sample_files_equal_uproot_bit_for_bit(shared_data: Path, name: str) -> None:
    path, claimed = shared_data / name, 0
    with uproot.open(path) as file:
        for tree in list_trees(file):
            with closing(open_tree(path, tree)) as source:
                end = source.entries
                for column in source.columns:
                    if source._plan(column) is None:
                        continue
                    claimed += 1
                    for start, stop in ((0, end), (end // 3, end // 2), (end // 2, end), (end, end)):
                        want = source._branches[column].array(entry_start=start, entry_stop=stop)
                        assert_identical(source.read([column], start, stop)[column], want, (tree, column, start))
    assert claimed


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_ranges_that_cut_baskets(tmp_path: Path, compression: str | None) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=700, basket_entries=90, compression=compression)
    with closing(open_tree(tmp_path / "toy.root")) as source, uproot.open({tmp_path / "toy.root": "Events"}) as tree:
        for start, stop in ((0, 700), (0, 1), (89, 90), (89, 91), (90, 180), (45, 640), (699, 700), (700, 700), (5, 5)):
            read = source.read(list(source.columns), start, stop)
            assert all(source._plans[name] is not None for name in source.columns)
            for name, got in read.items():
                assert_identical(got, tree[name].array(entry_start=start, entry_stop=stop), (name, start, stop))


@pytest.mark.parametrize("compression", [uproot.ZSTD(1), uproot.LZ4(1), uproot.ZLIB(1)], ids=["zstd", "lz4", "zlib"])
def test_a_basket_of_several_blocks(tmp_path: Path, compression: Any) -> None:
    number = np.arange(2_500_000, dtype=np.int64) // 9  # 20 MB; a block holds 16
    path = write_tree(tmp_path / "x.root", {"x": number}, compression=compression)
    column, stored = columns_of(path)["x"]
    assert len(stored) == 1
    np.testing.assert_array_equal(decode(column, stored)[0], number)


def test_columns_of_one_collection_share_their_offsets(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=500, basket_entries=120)
    with closing(open_tree(tmp_path / "toy.root")) as source:
        arrays = source.read(list(source.columns), 0, 500)
        schema = assign_keys([describe_column(name, array) for name, array in arrays.items()])
        batch = source.read_batch(schema, 100, 400)
        offsets = [batch.arrays[name][0] for name in ("Jet_pt", "Jet_eta", "Jet_id")]
        assert offsets[0] is offsets[1] is offsets[2]
        expected = to_batch(schema, source.read(schema.names, 100, 400), 300)
        for name in schema.names:
            for got, want in zip(batch.check().arrays[name], expected.arrays[name], strict=True):
                assert (got.dtype, got.shape, got.tobytes()) == (want.dtype, want.shape, want.tobytes()), name


def test_a_batch_holds_what_uproot_must_read_as_well(shared_data: Path) -> None:
    path = shared_data / "rootfiles/uproot-issue413.root"
    with closing(open_tree(path)) as source:
        arrays = source.read(list(source.columns), 0, source.entries)
        schema = assign_keys([describe_column(name, array) for name, array in arrays.items()])
        left = [name for name in schema.names if source._plan(name) is None]
        batch = source.read_batch(schema, 3, source.entries).check()
        expected = to_batch(schema, {n: a[3:] for n, a in arrays.items()}, source.entries - 3)
    assert 0 < len(left) < len(schema.names)
    for name in schema.names:
        assert [a.tobytes() for a in batch.arrays[name]] == [a.tobytes() for a in expected.arrays[name]], name


@pytest.mark.parametrize("other", [np.zeros(3, np.float64), np.zeros((3, 2), np.float32), ak.Array([[1.0], [], []])])
def test_a_column_of_another_type_is_refused(tmp_path: Path, other: Any) -> None:
    path = write_tree(tmp_path / "x.root", {"x": np.zeros(3, np.float32)})
    schema = assign_keys([describe_column("x", other)])
    with closing(open_tree(path)) as source, pytest.raises(SchemaError, match="column 'x' is"):
        source.read_batch(schema, 0, 3)


def column_from(
    data: bytes, places: Sequence[int], stored: str, *, header: int | None = 0, is_string: bool = False
) -> Any:
    """A column whose only basket is kept with the tree."""
    entries = np.array([0, len(places) - 1])
    nothing = np.zeros(0, np.int64)
    basket = (np.frombuffer(data, np.uint8), np.array(places, np.int32))
    return BasketColumn("x", np.dtype(stored), (), header, is_string, nothing, nothing, entries, (basket,))


def test_strings_of_all_lengths() -> None:
    texts = [b"", b"a", b"b" * 254, b"c" * 255, b"", b"d" * 70_000]
    parts = [(bytes([len(t)]) if len(t) < 255 else b"\xff" + struct.pack(">i", len(t))) + t for t in texts]
    for header in (0, 6):
        rows = [bytes(range(header)) + part for part in parts]
        places = np.cumsum([0, *map(len, rows)]).tolist()
        offsets, text = decode(column_from(b"".join(rows), places, "u1", header=header, is_string=True), [])
        assert [text[a:b].tobytes() for a, b in pairwise(offsets)] == texts
        rows[1] = rows[1].replace(b"\x01a", b"\x02a")
        with pytest.raises(CorruptDataError, match="not as long as they say"):
            decode(column_from(b"".join(rows), places, "u1", header=header, is_string=True), [])


@pytest.mark.parametrize(("stored", "header"), [(">f8", 10), (">i2", 10), ("u1", 10), (">f4", 1), (">f4", 0), ("?", 0)])
def test_lists_behind_headers(stored: str, header: int) -> None:
    rng = np.random.default_rng(3)
    lists = [rng.integers(0, 2, n).astype(stored) for n in (0, 3, 1, 0, 0, 7)]
    rows = [b"\x40" * header + own.tobytes() for own in lists]
    places = np.cumsum([0, *map(len, rows)]).tolist()
    column = column_from(b"".join(rows), places, stored, header=header)
    for start, stop in ((0, 6), (1, 3), (3, 4), (5, 6)):
        offsets, values = decode(column, [], start, stop)
        assert values.dtype == np.dtype(stored).newbyteorder("<")
        assert np.diff(offsets).tolist() == [len(own) for own in lists[start:stop]]
        assert values.tolist() == [v for own in lists[start:stop] for v in own.tolist()]


@pytest.mark.scenario(45)
@pytest.mark.parametrize(
    ("places", "header"),
    [
        ([0, 8, 4, 16], 0),
        ([4, 8, 8, 16], 0),
        ([0, 8, 8, 12], 0),
        ([0, 3, 8, 16], 0),
        ([0, 2, 8, 16], 4),
        ([0, -8, 8, 16], 0),
    ],
)
def test_places_that_cannot_be(places: list[int], header: int) -> None:
    with pytest.raises(CorruptDataError, match=r"some\.root: column 'x' is damaged"):
        decode(column_from(bytes(16), places, ">f4", header=header), [])


@pytest.mark.scenario(41)
@pytest.mark.parametrize("compression", ["zlib", "lz4", "lzma"])
def test_no_flipped_bit_of_checked_bytes_passes(tmp_path: Path, compression: str) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=300, basket_entries=300, compression=compression)
    rng, flipped = np.random.default_rng(0), 0
    for name, (column, [stored]) in columns_of(tmp_path / "toy.root").items():
        if not is_checked(memoryview(stored)):  # did not shrink, so it is not compressed
            continue
        want = [array.tobytes() for array in decode(column, [stored])]
        key = int.from_bytes(stored[14:16], "big")
        for bit in rng.integers(8 * key, 8 * len(stored), 40).tolist():
            damaged = flip(stored, bit)
            try:
                assert [array.tobytes() for array in decode(column, [damaged])] == want, (name, bit)
            except (CorruptDataError, UnusualBasketError):
                flipped += 1
    assert flipped > 100


@pytest.mark.scenario(41)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_damaged_baskets_raise_only_errors_of_ours(tmp_path: Path, compression: str | None) -> None:
    """Whatever bytes come back without an error are as many as the entries ask for."""
    write_toy_tree(tmp_path / "toy.root", entries=200, basket_entries=200, compression=compression)
    rng = np.random.default_rng(1)
    for column, [stored] in columns_of(tmp_path / "toy.root").values():
        key = int.from_bytes(stored[14:16], "big")
        damaged = [flip(stored, bit) for bit in [*range(8 * key), *rng.integers(8 * key, 8 * len(stored), 60).tolist()]]
        damaged += [stored[:length] for length in (0, 5, key - 1, key, key + 9, len(stored) - 1)]
        for data in damaged:
            try:
                *offsets, values = decode(column, [data])
            except (StorageringError, UnusualBasketError):
                continue
            assert len(values) == (offsets[0][-1] if offsets else 200)
            assert not offsets or (len(offsets[0]) == 201 and (np.diff(offsets[0]) >= 0).all())


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.scenario(42)
def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tree(tmp_path / "x.root", {"x": np.zeros(5000)}, compression=uproot.ZSTD(5))
    column, [stored] = columns_of(path)["x"]
    key = int.from_bytes(stored[14:16], "big")
    monkeypatch.setattr("storagering.formats.readers.baskets.unpack_blocks", lambda _: pytest.fail("unpacked"))

    def claim(size: int, blocks: int) -> bytes:
        body = stored[key : key + 6] + b"\xff\xff\xff" + stored[key + 9 :]
        last = struct.pack(">i", key + size)
        head = struct.pack(">i", key + blocks * len(body)) + stored[4:6] + struct.pack(">i", size) + stored[10:key]
        return head[: key - 5] + last + head[key - 1 :] + blocks * body

    for size, blocks in (((1 << 31) - 1 - key, 1), ((1 << 24) - 1, 2), (1 << 30, 1)):
        with pytest.raises(CorruptDataError, match=r"do not hold|wrong"):
            decode(column, [claim(size, blocks)])
    with pytest.raises(LimitExceededError, match=r"some\.root: column 'x' has a basket of more than"):
        decode(column, [claim(100 * ((1 << 24) - 1), 100)])


@pytest.mark.parametrize(
    ("compression", "make", "expected"),
    [
        (uproot.ZLIB(1), np.zeros, True),
        (uproot.LZMA(1), np.zeros, True),
        (uproot.LZ4(1), np.zeros, True),
        (uproot.ZSTD(1), np.zeros, False),
        (None, np.zeros, False),
        (uproot.LZ4(1), np.random.default_rng(0).random, False),  # does not shrink, so it is stored without
    ],
)
def test_what_carries_checksums_says_so(
    tmp_path: Path, compression: Any, make: Callable[[int], Array], expected: bool
) -> None:
    path = write_tree(tmp_path / "x.root", {"x": make(5000)}, 2000, compression)
    with closing(open_tree(path)) as source:
        assert source.self_checked is expected


def test_little_of_large_baskets_takes_little_memory(tmp_path: Path) -> None:
    """A basket is unpacked whole; what is not wanted of it must not stay."""
    columns = {f"c{n}": np.full(1_000_000, n, np.float64) for n in range(3)}
    path = write_tree(tmp_path / "large.root", columns, compression=uproot.ZSTD(1))
    with closing(open_source(path, None, load_settings())) as source:
        for name, array in source.read(list(columns), 10, 1010).items():
            values = ak.to_numpy(array)
            assert values.tolist() == columns[name][:1000].tolist()
            while isinstance(values.base, np.ndarray):
                values = values.base
            assert values.nbytes < 100_000
