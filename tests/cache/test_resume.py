"""Builds that were interrupted: the next run goes on from there, and makes the same dataset."""

import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uproot

from storagering.api import convert
from storagering.cache.dataset import open_dataset
from storagering.cache.layout import Cache, open_cache
from storagering.cache.progress import BuildProgress
from storagering.config import load_settings
from storagering.errors import CorruptDataError, NotFoundError, SchemaError
from storagering.formats.readers.ttree import TreeSource
from storagering.testing.http import http_server
from storagering.testing.toys import write_toy_tree
from storagering.types import Manifest

FILES, ENTRIES = 30, 40
COLUMNS = ["event", "MET_pt", "Jet_pt", "image"]
#: Converts files and is killed when so many pieces of the work are done.
KILLED = f"""
import os, signal, sys
import storagering as sr
from storagering.cache.progress import BuildProgress
class Killed(BuildProgress):
    left = int(sys.argv[1])
    def advance(self, entries, nbytes):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sr.convert(sys.argv[3:], name="x", columns={COLUMNS}, chunk_bytes=4096, workers=int(sys.argv[2]), progress=Killed())
"""


class Told(BuildProgress):
    """What a build did; stops it by force after so many reports."""

    def __init__(self, stop_after: int = -1) -> None:
        self.messages: list[str] = []
        self.starts: list[int] = []
        self.left = stop_after

    def start(self, total_entries: int) -> None:
        self.starts.append(total_entries)

    def advance(self, entries: int, decoded_bytes: int) -> None:  # noqa: ARG002
        self.left -= 1
        if self.left == -1:
            raise KeyboardInterrupt

    def tell(self, message: str) -> None:
        self.messages.append(message)


@pytest.fixture
def opened() -> Cache:
    return open_cache(load_settings())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("in")
    for number in range(FILES):
        write_toy_tree(found / f"{number:02d}.root", entries=ENTRIES, seed=number)
    return found


@pytest.fixture
def files(folder: Path, tmp_path: Path) -> list[str]:
    """Twelve files that a test may change."""
    copies = tmp_path / "files"
    copies.mkdir()
    for number in range(12):
        name = f"{number:02d}.root"
        (copies / name).write_bytes((folder / name).read_bytes())
    return [str(path) for path in sorted(copies.iterdir())]


def build(files: Any, told: BuildProgress | None = None, name: str = "x", **options: Any) -> Manifest:
    usual: dict[str, Any] = {"columns": COLUMNS, "chunk_bytes": 4096, "workers": 1}
    return convert(files, name=name, progress=told, **usual | options).manifest


def interrupt(files: list[str], after: int, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(files, Told(after), **options)


def staged(cache: Cache) -> list[str]:
    return sorted(p.name for p in (cache.root / "staging").glob("*/*"))


def unnamed(manifest: Manifest) -> Manifest:
    """The manifest but for its name."""
    return replace(manifest, name="", digest="")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_that_was_killed_after_two_thirds_does_the_rest(folder: Path, opened: Cache, workers: int) -> None:
    """Only the files that are missing are read again, beyond a look at what the others hold."""
    done = FILES * 2 // 3
    with http_server(folder) as server:
        urls = [server.url(f"{number:02d}.root") for number in range(FILES)]
        whole = build(urls, name="whole")
        one_pass = requests(server)
        killed = subprocess.run([sys.executable, "-c", KILLED, str(done), str(workers), *urls], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert not opened.contains("x")
        server.requests.clear()
        told = Told()
        manifest = build(urls, told, workers=workers)
        again = requests(server)
    assert unnamed(manifest) == unnamed(whole)
    for one, other in zip(manifest.chunks, whole.chunks, strict=True):
        names = opened.path("x") / one.file, opened.path("whole") / other.file
        assert names[0].read_bytes() == names[1].read_bytes()
    assert {p.name for p in opened.path("x").iterdir()} == {p.name for p in opened.path("whole").iterdir()}
    missing = told.starts[0] // ENTRIES
    assert told.starts == [missing * ENTRIES]
    assert FILES - done - 2 <= missing <= FILES - done + 2  # with two workers, one is in the middle of a task
    assert f"{FILES - missing} of {FILES} files were done" in told.messages[0]
    del again["/00.root"]  # which tells the types
    least = min(again.values())  # what a look costs
    assert sum(count > least for count in again.values()) == missing
    assert sum(again.values()) < 0.8 * sum(one_pass.values())
    assert not staged(opened)


def requests(server: Any) -> Counter[str]:
    """How often each file was asked for."""
    return Counter(urlsplit(request.path).path for request in server.requests)


def test_the_user_is_told(files: list[str], opened: Cache) -> None:
    told = Told(8)
    with pytest.raises(KeyboardInterrupt):
        build(files, told)
    assert told.messages == [
        "what is done is kept (8 of 12 files): the same command goes on from there, 'storagering remove x' gives it up"
    ]
    (left,) = opened.unfinished()
    assert (left.name, left.files, left.appends) == ("x", (8, 12), False)
    assert str(left) == "x: unfinished, 8 of 12 files; run the same command to go on"
    assert opened.names() == []
    with pytest.raises(NotFoundError):
        open_dataset("x")


def test_what_was_left_is_checked_before_it_is_used(files: list[str], opened: Cache) -> None:
    """Chunks that are damaged, cut or lost and records that are torn are made again."""
    whole = build(files, name="whole")
    interrupt(files, 10)
    (staging,) = (p for p in (opened.root / "staging").iterdir() if p.is_dir())
    records = sorted(staging.glob("task-*.json"))
    finished = {path.stem.split("-")[1] for path in records}
    chunks = sorted(path for path in staging.glob("task-*.zip") if path.name.split("-")[1] in finished)
    flipped = bytearray(chunks[0].read_bytes())
    flipped[100] ^= 1
    chunks[0].write_bytes(flipped)
    os.truncate(chunks[1], 100)
    chunks[2].unlink()
    damaged = {path.name.split("-")[1] for path in chunks[:3]}
    spare = [path for path in records if path.stem.split("-")[1] not in damaged]
    spare[0].write_bytes(spare[0].read_bytes().replace(b'"stop":40', b'"stop":41'))
    spare[1].write_bytes(b"")
    (staging / f"{chunks[-1].name[:-14]}9999.zarr.zip").write_bytes(b"of a task that was not finished")
    told = Told()
    assert unnamed(build(files, told)) == unnamed(whole)
    assert told.starts == [(12 - 10 + len(damaged) + 2) * ENTRIES]
    assert len(open_dataset("x").arrays()) == 12 * ENTRIES


def test_a_file_that_changed_in_between_is_read_again(files: list[str]) -> None:
    interrupt(files, 10)
    write_toy_tree(Path(files[3]), entries=ENTRIES, seed=99)
    os.utime(files[3], ns=(1, 1))
    told = Told()
    manifest = build(files, told)
    assert told.starts == [3 * ENTRIES]
    assert unnamed(manifest) == unnamed(build(files, name="whole"))


def test_a_file_more_or_less_costs_only_that_file(files: list[str]) -> None:
    """Also one in the middle, which changes the numbers of all that follow."""
    interrupt(files[1:], 10)
    fewer = [*files[:5], *files[6:]]
    told = Told()
    manifest = build(fewer, told)
    assert told.starts == [2 * ENTRIES]
    assert unnamed(manifest) == unnamed(build(fewer, name="whole"))
    assert [s.source for c in manifest.chunks for s in c.spans] == sorted(
        s.source for c in manifest.chunks for s in c.spans
    )


def test_a_bad_file_can_be_left_out_afterwards(files: list[str]) -> None:
    """The advice that the error gives loses no work."""
    damage(files[9])
    with pytest.raises(CorruptDataError, match=r"09\.root"):
        build(files)
    told = Told()
    manifest = build(files, told, on_bad_source="skip")
    assert told.starts[0] == 3 * ENTRIES
    assert [s.url for s in manifest.skipped_sources] == [files[9]]
    assert manifest.num_entries == 11 * ENTRIES


def damage(path: str) -> None:
    """Change bytes in the middle of the column ``image``."""
    write_toy_tree(Path(path), entries=ENTRIES, compression="zlib")  # which notices
    with uproot.open(path) as file:
        branch = file["Events"]["image"]
        start, size = int(branch.member("fBasketSeek")[0]), int(branch.basket(0).compressed_bytes)
    data = bytearray(Path(path).read_bytes())
    for offset in range(size // 2, size // 2 + 40):
        data[start + offset] ^= 0x55
    Path(path).write_bytes(data)


def test_another_way_of_converting_does_not_mix_with_it(files: list[str], opened: Cache) -> None:
    interrupt(files, 8)
    told = Told()
    manifest = build(files, told, where="MET_pt > 0", profile="fast")
    assert told.starts == [12 * ENTRIES]
    assert not staged(opened)
    assert unnamed(manifest) == unnamed(build(files, name="whole", where="MET_pt > 0", profile="fast"))


def test_other_names_leave_it_alone(files: list[str], opened: Cache) -> None:
    interrupt(files, 8, name="x.y")
    build(files, name="other")
    build(files, name="x")
    assert [build.name for build in opened.unfinished()] == ["x.y"]
    told = Told()
    build(files, told, name="x.y")
    assert told.starts == [4 * ENTRIES]


def test_removal_gives_up_unfinished_work(files: list[str], opened: Cache) -> None:
    interrupt(files, 8)
    opened.remove("x")
    assert not list((opened.root / "staging").iterdir())
    with pytest.raises(NotFoundError):
        opened.remove("x")


def test_a_build_that_goes_on_is_not_taken_for_dead(files: list[str], opened: Cache) -> None:
    class Reclaim(BuildProgress):
        def advance(self, entries: int, decoded_bytes: int) -> None:  # noqa: ARG002
            opened.reclaim()
            with pytest.raises(NotFoundError):
                opened.remove("x")

    build(files, Reclaim())
    assert len(open_dataset("x")) == 12 * ENTRIES


def test_what_was_published_before_the_crash_is_not_unfinished(
    files: list[str], opened: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the rename, before the staging folder is removed."""

    def crash(_path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("storagering.cache.build.remove_directory", crash)
    with pytest.raises(KeyboardInterrupt):
        build(files)
    monkeypatch.undo()
    assert open_cache(opened.settings).names() == ["x"]
    assert staged(opened)
    opened.reclaim()
    assert not list((opened.root / "staging").iterdir())


def test_a_column_that_is_unreadable_further_on_is_known_the_next_time(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, plan = TreeSource._read, TreeSource._plan

    def read(self: TreeSource, names: Any, start: int, stop: int) -> dict[str, Any]:
        if "Jet_pt" in names and self.url == files[6]:
            raise NotImplementedError("cannot read Jet_pt")
        arrays: dict[str, Any] = original(self, names, start, stop)
        return arrays

    monkeypatch.setattr(TreeSource, "_plan", lambda self, n: None if n == "Jet_pt" else plan(self, n))
    monkeypatch.setattr(TreeSource, "_read", read)
    whole = build(files, name="whole")
    assert "Jet_pt" not in whole.schema.names
    first, second = Told(6 + 9), Told()
    with pytest.raises(KeyboardInterrupt):
        build(files, first)
    assert first.starts == [12 * ENTRIES] * 2
    assert unnamed(build(files, second)) == unnamed(whole)
    assert second.starts == [3 * ENTRIES]
    with pytest.raises(SchemaError, match="Jet_pt"):
        build(files, name="y", on_bad_column="fail")


def test_small_files_share_chunks(folder: Path) -> None:
    """Many of them make few chunks, whatever that costs when a build is interrupted."""
    manifest = build(str(folder / "*.root"), chunk_bytes=100_000)
    sizes = [chunk.raw_bytes for chunk in manifest.chunks]
    assert len(sizes) < FILES / 5
    assert min(sizes[:-1]) > 0.7 * 100_000


def test_spooled_files_are_dropped_as_soon_as_they_are_not_needed(tmp_path: Path, opened: Cache) -> None:
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"{number}.csv")
        paths[-1].write_text("a,b\n" + "".join(f"{number},{i}\n" for i in range(3000)))
    most: list[int] = []

    class Watch(BuildProgress):
        def advance(self, entries: int, decoded_bytes: int) -> None:  # noqa: ARG002
            most.append(sum(p.is_file() for p in (opened.root / "staging").glob("*/spool/*/*") if not p.suffix))

    manifest = build(list(map(str, paths)), Watch(), columns=None)
    assert manifest.num_entries == 12_000
    assert most[0] == 4
    assert most == sorted(most, reverse=True)
    assert most[-1] == 1
    assert {p.name for p in opened.path("x").iterdir()} == {
        "manifest.json", "statistics.parquet", "first-epoch.json", *(c.file for c in manifest.chunks)
    }  # fmt: skip
