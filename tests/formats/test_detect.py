"""The format of a file is found by its contents, and said clearly where there is none."""

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storagering.config import Settings, load_settings
from storagering.errors import CorruptDataError, FormatError, LimitExceededError, NotFoundError, TruncatedError
from storagering.formats.blob import LocalBlob
from storagering.formats.detect import find_format, zip_format
from storagering.formats.readers import open_source
from storagering.testing.source_contract import read_all
from storagering.testing.toys import write_toy_tree


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def found(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with closing(LocalBlob(path)) as blob:
        return find_format(blob)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"root" + (62400).to_bytes(4, "big") + (100).to_bytes(4, "big") + bytes(60), "root"),
        (b"root", "root"),
        (b"PAR1....", "parquet"),
        (b"ARROW1\0\0", "arrow"),
        (b"FEA1....", "feather"),
        (b"\xff\xff\xff\xff\x10\0\0\0" + bytes(16), "arrow-stream"),
        (b"Obj\x01....", "avro"),
        (b"\x93NUMPY\x01\0", "npy"),
        (b"PK\x03\x04....", "zip"),
        (b"\x89HDF\r\n\x1a\n", "hdf5"),
        (bytes(512) + b"\x89HDF\r\n\x1a\n", "hdf5"),
        (bytes(4096) + b"\x89HDF\r\n\x1a\n", "hdf5"),
        (b"<LesHouchesEvents version='3.0'>", "lhe"),
        (b"<?xml version='1.0'?>\n<!-- a\nb -->\n<LesHouchesEvents>", "lhe"),
        (b"HepMC::Version 3.02.05\n", "hepmc"),
        (b"\nHepMC::Version 2.06.09\n", "hepmc"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b'{"a": 1}\n', "json-lines"),
        (b'\xef\xbb\xbf \n{"a": 1}\n', "json-lines"),
        (b"a,b\n1,2\n", "text"),
        (b"root:x:0:0:root:/root:/bin/bash\n", "text"),
        (("ä" * 4000).encode(), "text"),
        (b"x" + ("ä" * 4000).encode(), "text"),
    ],
)
def test_formats_by_their_first_bytes(tmp_path: Path, data: bytes, name: str) -> None:
    assert found(tmp_path / "x.root", data) == name


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (bytes(1000), "not of a format that can be read .*ROOT.*Parquet.*HepMC"),
        (b"\x7fELF\x02\x01\x01\0", "not of a format"),
        (b"abc\xff\xfe\xfd", "not of a format"),
        (b"\xff\xfea\0,\0b\0\n\0", "UTF-16"),
        (b'[{"a": 1}]', "one JSON array"),
    ],
)
def test_what_nothing_reads(tmp_path: Path, settings: Settings, data: bytes, told: str) -> None:
    (tmp_path / "bad.root").write_bytes(data)
    with pytest.raises(FormatError, match=f"bad.root.*{told}"):
        open_source(str(tmp_path / "bad.root"), None, settings)


@pytest.mark.parametrize(
    "text",
    [
        "Dear all,\nplease find the files\nbelow.\n",
        "hello world",
        "<html>\n<body>Not found</body>\n</html>\n",
        "\n\n",
        "x",
    ],
)
def test_prose_is_no_table(tmp_path: Path, settings: Settings, text: str) -> None:
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(FormatError, match="not of a format"):
        open_source(str(tmp_path / "bad.txt"), None, settings)


def test_zip_files_by_their_members(tmp_path: Path, settings: Settings) -> None:
    assert zip_format(["a.npy", "b.txt"]) == "npz"
    assert zip_format(["x/zarr.json", "a.npy"]) == "zarr"
    assert zip_format([".zgroup"]) == zip_format([".zarray"]) == "zarr"
    assert zip_format(["a.docx"]) == ""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("a.txt", "hello")
    with pytest.raises(FormatError, match=r"a\.zip is a zip file without arrays"):
        open_source(str(tmp_path / "a.zip"), None, settings)


def test_a_user_block_before_hdf5(tmp_path: Path, settings: Settings) -> None:
    with h5py.File(tmp_path / "x", "w", userblock_size=1024) as file:
        file["x"] = np.arange(5)
    (tmp_path / "x").write_bytes(b"\x01" * 1024 + (tmp_path / "x").read_bytes()[1024:])
    with closing(open_source(str(tmp_path / "x"), None, settings)) as source:
        assert (source.format, source.entries) == ("hdf5", 5)


def test_a_folder_that_is_no_zarr_store(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises((FormatError, NotFoundError), match="folder"):
        open_source(str(tmp_path / "folder"), None, settings)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


@pytest.mark.parametrize("packing", PACKERS)
def test_packed_files(tmp_path: Path, settings: Settings, packing: str) -> None:
    """Whatever is inside, also packed twice and in several members; damage and early ends are found."""
    rows = b"".join(b"%d,%f\n" % (n, n / 7) for n in range(5000))
    data = PACKERS[packing](b"x,y\n" + rows)
    path = tmp_path / "table.txt"
    path.write_bytes(data)
    with closing(open_source(str(path), None, settings)) as source:
        assert (source.format, source.entries, source.nbytes, source.url) == ("csv", 5000, len(data), str(path))
        assert source.self_checked == (packing in ("gzip", "bzip2"))
    if packing != "zstd":
        (tmp_path / "two.txt").write_bytes(PACKERS[packing](b"x,y\n") + PACKERS[packing](rows))
        assert len(read_all(tmp_path / "two.txt", settings)["x"]) == 5000
    write_toy_tree(tmp_path / "toy.root", entries=20)
    (tmp_path / "toy.txt").write_bytes(gzip.compress(PACKERS[packing]((tmp_path / "toy.root").read_bytes())))
    with closing(open_source(str(tmp_path / "toy.txt"), "Events", settings)) as source:
        assert (source.format, source.entries) == ("ttree", 20)
    for length in range(8, len(data), len(data) // 10):
        path.write_bytes(data[:length])
        with pytest.raises(CorruptDataError, match="table"):
            open_source(str(path), None, settings)
    if packing != "zstd":  # without a checksum in these frames
        for place in range(20, len(data), len(data) // 10):
            path.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
            with pytest.raises(CorruptDataError, match="table"):
                open_source(str(path), None, settings)


@pytest.mark.parametrize("packing", ["gzip", "bzip2", "xz"])
def test_damage_in_a_later_member(tmp_path: Path, settings: Settings, packing: str) -> None:
    """The library takes what follows the first for the end of the file."""
    first, second = PACKERS[packing](b"x,y\n1,2\n"), PACKERS[packing](b"3,4\n")
    for number, bad in enumerate((bytes([second[0] ^ 1]) + second[1:], second[:3], second[:-2])):
        (tmp_path / f"{number}.txt").write_bytes(first + bad)
        with pytest.raises(CorruptDataError, match=rf"{number}\.txt"):
            open_source(str(tmp_path / f"{number}.txt"), None, settings)
    (tmp_path / "padded.txt").write_bytes(first + (bytes(8) if packing == "xz" else b"") + second)
    assert read_all(tmp_path / "padded.txt", settings)["x"].to_list() == [1, 3]


@pytest.mark.scenario(43)
def test_a_bomb_is_stopped(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storagering.formats.readers.unpack._FREE_BYTES", 1 << 20)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(gzip.compress(bytes(8 << 20))))
    with pytest.raises(LimitExceededError, match="unpack to more than"):
        open_source(str(tmp_path / "bomb.gz"), None, settings)
    packed = lzma.compress(bytes(32 << 20))
    (tmp_path / "bomb.xz").write_bytes(packed)
    with pytest.raises(LimitExceededError, match=f"{len(packed):,} bytes unpack to more than"):
        open_source(str(tmp_path / "bomb.xz"), None, settings)
    (tmp_path / "often.gz").write_bytes(gzip.compress(gzip.compress(gzip.compress(gzip.compress(b"x\n1\n")))))
    with pytest.raises(LimitExceededError, match="more than 3 times"):
        open_source(str(tmp_path / "often.gz"), None, settings)
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(1 << 20))  # honest zeros below the ratio
    assert len(read_all(tmp_path / "x.npz", settings)["x"]) == 1 << 20


def test_unpacking_happens_once_a_build(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"x\n1\n2\n"))
    for _ in range(2):
        with closing(open_source(str(tmp_path / "x.csv.gz"), None, settings, str(tmp_path / "spool"))) as source:
            assert source.read(["x"], 0, 2)["x"].to_list() == [1, 2]
    files = [path for path in (tmp_path / "spool").iterdir() if not path.suffix]
    assert len(files) == 2  # the text, and the table


@pytest.mark.parametrize("tree", ["Events", "x"])
def test_a_table_without_a_name(tmp_path: Path, settings: Settings, tree: str) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x")
    np.save(tmp_path / "x.npy", np.arange(3))
    for path in (tmp_path / "x", tmp_path / "x.npy"):
        with pytest.raises(NotFoundError, match=rf"no '{tree}'; leave --tree out"):
            open_source(str(path), tree, settings)


@pytest.mark.parametrize("magic", [b"PAR1", b"ARROW1\0\0", b"Obj\x01", b"FEA1", b"\x93NUMPY\x01\0", b"PK\x03\x04"])
def test_headers_with_nothing_behind(tmp_path: Path, settings: Settings, magic: bytes) -> None:
    for rest in (b"", bytes(3), bytes(500), b"\xff" * 500):
        (tmp_path / "bad").write_bytes(magic + rest)
        with pytest.raises((TruncatedError, CorruptDataError), match="bad"):
            open_source(str(tmp_path / "bad"), None, settings)
