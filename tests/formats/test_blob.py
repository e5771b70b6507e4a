"""The bytes of local files."""

import io
import os
from contextlib import closing
from pathlib import Path

import pytest

from storagering.config import load_settings
from storagering.errors import FormatError, NotFoundError, SourceChangedError, TruncatedError
from storagering.formats.blob import BlobFile, LocalBlob, open_blob
from storagering.formats.source import Location

CONTENT = bytes(range(256)) * 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_ranges_of_a_local_file(path: Path, prefix: str) -> None:
    with closing(open_blob(Location(f"{prefix}{path}"), load_settings())) as blob:
        assert blob.size == len(CONTENT)
        assert [bytes(b) for b in blob.read_ranges([(5, 9), (0, 0), (100, 25600)])] == [
            CONTENT[5:9],
            b"",
            CONTENT[100:],
        ]


@pytest.mark.parametrize("span", [(0, 25601), (-1, 5), (9, 5)])
def test_bytes_that_are_not_there(path: Path, span: tuple[int, int]) -> None:
    with closing(LocalBlob(path)) as blob, pytest.raises(TruncatedError, match="25,600 bytes"):
        blob.read(*span)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with closing(LocalBlob(tmp_path / "empty")) as blob:
        assert blob.size == 0
        assert bytes(blob.read(0, 0)) == b""


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="absent"):
        LocalBlob(tmp_path / "absent")


@pytest.mark.parametrize("change", ["rewritten", "longer", "cut"])
def test_a_file_that_changes_under_the_reader(path: Path, change: str) -> None:
    with closing(LocalBlob(path)) as blob:
        blob.read(0, 10)
        if change == "rewritten":
            path.write_bytes(CONTENT[::-1])
        else:
            os.truncate(path, 100 if change == "cut" else 30_000)
        os.utime(path, ns=(1, 1))
        with pytest.raises(SourceChangedError, match=r"file\.bin changed while it was being read"):
            blob.read(0, 10)


def test_a_file_that_is_replaced_is_read_on(path: Path) -> None:
    with closing(LocalBlob(path)) as blob:
        other = path.with_suffix(".new")
        other.write_bytes(b"other")
        other.rename(path)
        assert bytes(blob.read(0, 10)) == CONTENT[:10]


def test_bytes_outlive_the_blob(path: Path) -> None:
    blob = LocalBlob(path)
    data = blob.read(10, 20)
    blob.close()
    assert bytes(data) == CONTENT[10:20]


def test_as_a_file(path: Path) -> None:
    with closing(LocalBlob(path)) as blob, io.BufferedReader(BlobFile(blob), 1000) as file:
        assert file.read(10) == CONTENT[:10]
        assert file.seek(-5, io.SEEK_END) == len(CONTENT) - 5
        assert file.read() == CONTENT[-5:]
        assert file.read() == b""
        assert file.seek(100) == 100
        assert file.seek(-1, io.SEEK_CUR) == 99
        assert file.read(2) == CONTENT[99:101]


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    """Opening one would wait for a writer."""
    os.mkfifo(tmp_path / "pipe.root")
    with pytest.raises(FormatError, match=r"pipe\.root is neither a file nor a folder"):
        open_blob(Location(str(tmp_path / "pipe.root")), load_settings())
