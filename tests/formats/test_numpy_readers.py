"""NumPy's files: dtypes, orders, headers of every version, several tables, damage."""

import io
import pickle
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storagering.config import Settings, load_settings
from storagering.errors import ChecksumError, CorruptDataError, FormatError, LimitExceededError, NotFoundError
from storagering.formats.readers import open_source
from storagering.formats.source import UnreadableColumnsError
from storagering.testing.http import http_server
from storagering.testing.source_contract import read_all


@pytest.fixture
def settings() -> Settings:
    return load_settings()


@pytest.mark.parametrize(
    "dtype", ["<f4", ">f4", ">f8", "<f2", ">u8", "<i8", "|i1", "|b1", ">i2", "<c8", ">c16", "|S3", "<U4", ">U4"]
)
def test_dtypes(tmp_path: Path, settings: Settings, dtype: str) -> None:
    kind = np.dtype(dtype)
    if kind.kind in "SU":
        array = np.array(["a", "", "abc"], kind)
        want: Any = ["a", "", "abc"]
    else:
        raw = np.random.default_rng(3).integers(0, 256, 3 * kind.itemsize, np.uint8)
        array = (raw % 2).astype(bool) if kind.kind == "b" else raw.view(kind.newbyteorder("=")).astype(kind)
        want = array.astype(kind.newbyteorder("=")).tobytes()
    np.save(tmp_path / "x.npy", array)
    found = read_all(tmp_path / "x.npy", settings)["data"]
    assert (found.to_list() if kind.kind in "SU" else found.to_numpy().tobytes()) == want


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 3, 2), (5, 1), (0, 3), (1, 2, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_shapes_and_orders(tmp_path: Path, settings: Settings, shape: tuple[int, ...], order: Any) -> None:
    array = np.asarray(np.arange(np.prod(shape)).reshape(shape), order=order)
    np.save(tmp_path / "x", array)
    with closing(open_source(str(tmp_path / "x.npy"), None, settings)) as source:
        assert (source.entries, source.tree, source.format) == (shape[0], "", "npy")
        for start, stop in [(0, shape[0]), (1, 3), (2, 2)]:
            stop = min(stop, shape[0])
            if start <= stop:
                got = source.read(["data"], start, stop)["data"].to_numpy()
                assert got.shape == (stop - start, *shape[1:])
                assert (got == array[start:stop]).all()


def test_structured_arrays(tmp_path: Path, settings: Settings) -> None:
    kind = np.dtype(
        {"names": ["pt", "image", "名", "inner"], "formats": [">f4", ("u1", (2, 2)), "S4", [("q", "<i2")]],
         "offsets": [0, 8, 16, 24], "itemsize": 32}
    )  # fmt: skip
    table = np.zeros(3, kind)
    table["pt"], table["名"], table["inner"]["q"] = [1.5, np.nan, -0.0], [b"a", b"bc", b""], [1, -2, 3]
    table["image"][1] = [[1, 2], [3, 4]]
    with (tmp_path / "x").open("wb") as file:
        np.lib.format.write_array(file, table, version=(3, 0))
    found = read_all(tmp_path / "x", settings)
    assert [str(array.type) for array in found.values()] == [
        "3 * float32", "3 * 2 * 2 * uint8", "3 * string", "3 * {q: int16}",
    ]  # fmt: skip
    assert found["名"].to_list() == ["a", "bc", ""]
    assert found["inner"].to_list() == [{"q": 1}, {"q": -2}, {"q": 3}]
    assert found["image"][1].to_list() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_header_versions(tmp_path: Path, settings: Settings, version: tuple[int, int]) -> None:
    with (tmp_path / "x").open("wb") as file:
        np.lib.format.write_array(file, np.arange(3), version=version)
    assert read_all(tmp_path / "x", settings)["data"].to_list() == [0, 1, 2]


def test_dates_are_integers_with_a_unit(tmp_path: Path, settings: Settings) -> None:
    np.savez(tmp_path / "x", d=np.arange(3).astype("M8[25us]"), t=np.arange(3).astype(">m8[ns]"))
    with closing(open_source(str(tmp_path / "x.npz"), None, settings)) as source:
        assert [source.doc(n) for n in ("d", "t")] == ["time since 1970-01-01 [25us]", "duration [ns]"]
        assert {n: a.to_list() for n, a in source.read(["d", "t"], 0, 3).items()} == {"d": [0, 1, 2], "t": [0, 1, 2]}


class _Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_are_never_loaded(tmp_path: Path, settings: Settings) -> None:
    objects = np.array([_Bomb(), None], object)
    np.savez(tmp_path / "x", objects=objects, fine=np.arange(2))
    with closing(open_source(str(tmp_path / "x.npz"), None, settings)) as source:
        with pytest.raises(UnreadableColumnsError, match="'objects': Python objects are pickles, which are never"):
            source.read(["fine", "objects"], 0, 2)
        assert source.read(["fine"], 0, 2)["fine"].to_list() == [0, 1]
    assert b"pytest" in pickle.dumps(objects)  # there was something to load


def test_arrays_of_several_lengths_are_several_tables(tmp_path: Path, settings: Settings) -> None:
    arrays = {"a": np.arange(3), "b": np.arange(3.0), "c": np.arange(5), "version": np.int64(3)}
    arrays |= {"j.values": np.arange(2), "j.offsets": np.array([0, 2, 2])}
    np.savez(tmp_path / "x", **arrays)  # type: ignore[arg-type]
    path = str(tmp_path / "x.npz")
    with pytest.raises(NotFoundError, match="choose one with --tree"):
        open_source(path, None, settings)
    for tree, names in [("c", ["c"]), ("j", ["j"]), ("a,b", ["a", "b"])]:
        with closing(open_source(path, tree, settings)) as source:
            assert list(source.columns) == names
        with closing(open_source(path, source.tree, settings)) as source:
            assert list(source.columns) == names


def test_offsets_that_cut_nothing_are_plain(tmp_path: Path, settings: Settings) -> None:
    np.savez(tmp_path / "x", **{"j.values": np.arange(4), "j.offsets": np.arange(4)})  # type: ignore[arg-type]
    assert list(read_all(tmp_path / "x.npz", settings)) == ["j.values", "j.offsets"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_bits_in_members(tmp_path: Path, settings: Settings, save: Any) -> None:
    save(tmp_path / "x.npz", x=np.random.default_rng(1).normal(size=500))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[2000] ^= 4
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(ChecksumError if save is np.savez else CorruptDataError, match=r"x\.npz.*'x"):
        read_all(tmp_path / "x.npz", settings)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (99,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<f8', 'shape': (2,), }",
        "__import__('os').getcwd()",
        "(" * 5000,
        "",
    ],
)
def test_headers_that_lie(tmp_path: Path, settings: Settings, header: str) -> None:
    text = header.encode()
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"x\.npy"):
        open_source(str(tmp_path / "x.npy"), None, settings)
    (tmp_path / "y.npy").write_bytes(b"\x93NUMPY\x02\x00" + (1 << 31).to_bytes(4, "little") + bytes(2 << 20))
    with pytest.raises((LimitExceededError, CorruptDataError), match="header"):
        open_source(str(tmp_path / "y.npy"), None, settings)


def test_files_that_are_no_tables(tmp_path: Path, settings: Settings) -> None:
    np.save(tmp_path / "x.npy", np.float64(3))
    with pytest.raises(FormatError, match="single number"):
        open_source(str(tmp_path / "x.npy"), None, settings)
    np.savez(tmp_path / "y.npz", version=np.int64(3))
    with pytest.raises(FormatError, match=r"holds no array of entries .it holds: version"):
        open_source(str(tmp_path / "y.npz"), None, settings)
    for data in (b"", b"\x93NUMPY"):
        with zipfile.ZipFile(tmp_path / "z.npz", "w") as packed:
            packed.writestr("x.npy", data)
        with pytest.raises(CorruptDataError, match=r"z\.npz"):
            open_source(str(tmp_path / "z.npz"), None, settings)


@pytest.mark.parametrize("words", [[b"\xe9", b"a"], [b"\xc3", b"\xa9"]])
def test_text_that_is_not_utf8_is_a_reason(tmp_path: Path, settings: Settings, words: list[bytes]) -> None:
    np.savez(tmp_path / "x.npz", s=np.array(words), r=np.array([(w, 1) for w in words], [("w", "S1"), ("n", "i4")]))
    with closing(open_source(str(tmp_path / "x.npz"), None, settings)) as source:
        with pytest.raises(UnreadableColumnsError, match=r"'s': it holds text that is not UTF-8; 'r/w': it"):
            source.read(["s", "r/w", "r/n"], 0, 2)
        assert source.read(["r/n"], 0, 2)["r/n"].to_list() == [1, 1]


def test_a_list_of_members_that_lost_one(tmp_path: Path, settings: Settings) -> None:
    np.savez(tmp_path / "x.npz", a=np.arange(3), b=np.arange(3))
    data = (tmp_path / "x.npz").read_bytes()
    first, second = data.index(b"PK\1\2"), data.rindex(b"PK\1\2")
    end = data.index(b"PK\5\6")
    size = (end - second).to_bytes(4, "little")
    (tmp_path / "x.npz").write_bytes(data[:first] + data[second:end] + data[end : end + 12] + size + data[end + 16 :])
    with zipfile.ZipFile(tmp_path / "x.npz") as packed:
        assert packed.namelist() == ["b.npy"]
    with pytest.raises(CorruptDataError, match=r"x\.npz: its list has 1 members and its end says 2"):
        open_source(str(tmp_path / "x.npz"), None, settings)


def test_two_members_of_one_name(tmp_path: Path, settings: Settings) -> None:
    out = io.BytesIO()
    np.save(out, np.arange(3))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as packed:
        packed.writestr("x.npy", out.getvalue())
        with pytest.warns(UserWarning, match="Duplicate"):
            packed.writestr("x.npy", out.getvalue())
    with pytest.raises(FormatError, match="two arrays named 'x'"):
        open_source(str(tmp_path / "x.npz"), None, settings)


def test_only_the_rows_wanted_are_fetched(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "served").mkdir()
    np.save(tmp_path / "served" / "x.npy", np.arange(2_000_000.0))
    with http_server(tmp_path / "served") as server:
        with closing(open_source(server.url("x.npy"), None, settings)) as source:
            got = source.read(["data"], 1_000_000, 1_000_010)["data"].to_list()
        assert got == list(range(1_000_000, 1_000_010))
        ends = [request.range.removeprefix("bytes=").split("-") for request in server.requests if request.range]
        assert 0 < sum(int(last) - int(first) + 1 for first, last in ends) < 3_000_000
