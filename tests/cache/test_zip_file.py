"""The zip writer against Python's zipfile."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from storagering.cache.zip_file import ALIGNMENT, ZipPieces
from storagering.errors import LimitExceededError


def test_zipfile_reads_every_member() -> None:
    members = {"a": b"", "b/c": b"x" * 1000, "päth": bytes(range(256)), "zarr.json": b'{"a": 1}' * 50}
    made, places = ZipPieces(), {}
    for name, data in members.items():
        if name.endswith(".json"):
            made.add_deflated(name, data)
        else:
            places[name] = made.add(name, memoryview(data))
    made.finish()
    whole = b"".join(made.pieces)
    assert made.size == len(whole)
    assert all(place % ALIGNMENT == 0 for place in places.values())
    assert all(whole[place : place + len(members[name])] == members[name] for name, place in places.items())
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        assert file.testzip() is None
        assert {info.filename: file.read(info) for info in file.infolist()} == members
        assert file.getinfo("zarr.json").compress_size < 50


def test_the_same_members_give_the_same_bytes() -> None:
    def make() -> bytes:
        made = ZipPieces()
        made.add("x", np.arange(100).data.cast("B"))
        made.add_deflated("zarr.json", b"{}")
        made.finish()
        return b"".join(made.pieces)

    assert make() == make()


def test_more_members_than_a_plain_zip_counts() -> None:
    made = ZipPieces()
    for number in range(70_000):
        made.add(f"{number}", b"")
    made.finish()
    with zipfile.ZipFile(io.BytesIO(b"".join(made.pieces))) as file:
        assert len(file.infolist()) == 70_000
        assert file.read("69999") == b""


def test_members_beyond_4_gib(tmp_path: Path) -> None:
    """A hole in the file stands for what comes before."""
    made = ZipPieces()
    made.add("first", b"one")
    before = len(made.pieces)
    made.size = (4 << 30) + 4096
    made.add("second", b"two")
    made.finish()
    with (tmp_path / "x.zip").open("wb") as file:
        file.writelines(made.pieces[:before])
        file.seek((4 << 30) + 4096)
        file.writelines(made.pieces[before:])
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert (archive.read("first"), archive.read("second")) == (b"one", b"two")


def test_a_member_of_4_gib_is_refused() -> None:
    huge = np.broadcast_to(np.zeros(1, np.uint8), (1 << 32,)).data
    with pytest.raises(LimitExceededError, match=r"'x'.*4,294,967,296 bytes; lower --chunk-bytes"):
        ZipPieces().add("x", huge)
