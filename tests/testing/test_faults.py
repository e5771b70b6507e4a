"""The faults themselves: what they do to files, and that a protocol with a gap does not pass."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storagering import files
from storagering.errors import CacheFullError, InternalError, SpecError
from storagering.files import (
    link_file,
    make_directory,
    publish_directory,
    reach,
    remove_directory,
    remove_file,
    rename_file,
    replace_file,
    sync_directory,
    write_new,
)
from storagering.testing.crashes import Forks, Scenario, Trial, run_at_every_point
from storagering.testing.faults import Delay, FaultyDisk, Kill, PowerCut, Refusal, count_points, faulty


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def change(root: Path) -> str:
    """Something of everything."""
    make_directory(root / "a" / "b")
    replace_file(root / "a" / "file", b"new")
    link_file(root / "a" / "file", root / "a" / "b" / "link")
    rename_file(root / "a" / "b" / "link", root / "a" / "b" / "moved")
    reach("middle", root)
    remove_file(root / "a" / "file")
    remove_directory(root / "a" / "b")
    return "done"


def test_points_are_counted_and_named(tmp_path: Path) -> None:
    points = count_points(lambda: change(tmp_path))
    operations = [point.operation for point in points]
    assert operations == (
        ["make_directory", "sync_directory"] * 2
        + ["create", "write", "sync", "rename", "sync_directory", "link", "rename", "middle", "unlink"]
        + ["rename", "sync_directory", "remove_tree"]
    )
    assert points[operations.index("middle")].path == str(tmp_path)
    (tmp_path / "file").write_bytes(b"12")
    reads = count_points(lambda: files.load_mapped(tmp_path / "file", files.map_file(tmp_path / "file", 2)), reads=True)
    assert [point.operation for point in reads] == ["open", "load"]
    assert not isinstance(files.disk, FaultyDisk)


def test_a_short_write_leaves_half(tmp_path: Path) -> None:
    with faulty(FaultyDisk(1, Refusal(errno.ENOSPC, partly=True))), pytest.raises(CacheFullError):
        write_new(tmp_path / "file", b"1234", b"56")
    assert (tmp_path / "file").read_bytes() == b"123"


def test_a_full_disk_still_removes(tmp_path: Path) -> None:
    write_new(tmp_path / "file", b"1")
    with faulty(FaultyDisk(0, Refusal(errno.ENOSPC, lasting=True))):
        for _ in range(2):
            with pytest.raises(CacheFullError):
                write_new(tmp_path / "other", b"1")
        remove_file(tmp_path / "file")
    assert not list(tmp_path.glob("[fo]*"))


def write_unsynced(root: Path) -> None:
    """Two files: one synced and one not, in a folder that is not; then the end."""
    make_directory(root)
    for name in ("synced", "unsynced", "torn"):
        path = root / name
        descriptor = files.disk.create(path)
        files.disk.write(path, descriptor, [b"123456"])
        if name == "synced":
            files.disk.sync(path, descriptor)
        os.close(descriptor)
    reach("cut", root)


@pytest.mark.parametrize(
    ("names", "left"), [("lost", {}), ("kept", {"synced": b"123456", "unsynced": b"", "torn": b"123"})]
)
def test_what_a_power_cut_leaves_of_new_files(forks: Forks, tmp_path: Path, names: str, left: dict[str, bytes]) -> None:
    number = next(p.number for p in count_points(lambda: write_unsynced(tmp_path / "count")) if p.operation == "cut")
    (tmp_path / "vault").mkdir()
    assert forks.run(write_unsynced, tmp_path / "cut", number, PowerCut(tmp_path / "vault", names)).killed
    assert contents(tmp_path / "cut") == left


def replace_link_and_remove(root: Path) -> None:
    rename_file(root / "new", root / "old")
    link_file(root / "old", root / "second")
    remove_file(root / "third")
    files.disk.rename(root / "folder", root / "removed")
    files.disk.remove_tree(root / "removed")
    reach("cut", root)
    sync_directory(root)
    reach("synced", root)


def test_a_power_cut_undoes_names_in_reverse(forks: Forks, tmp_path: Path) -> None:
    def prepare(root: Path) -> dict[str, bytes]:
        (root / "folder" / "sub").mkdir(parents=True)
        for name in ("new", "old", "third", "folder/file", "folder/sub/file"):
            (root / name).write_bytes(name.encode())
        return contents(root)

    prepare(tmp_path / "count")
    points = count_points(lambda: replace_link_and_remove(tmp_path / "count"))
    after = contents(tmp_path / "count")
    assert after == {"old": b"new", "second": b"new"}
    for name in ("cut", "synced"):
        before = prepare(tmp_path / name)
        (tmp_path / f"vault-{name}").mkdir()
        number = next(p.number for p in points if p.operation == name)
        forks.run(replace_link_and_remove, tmp_path / name, number, PowerCut(tmp_path / f"vault-{name}"))
        assert contents(tmp_path / name) == (before if name == "cut" else after)


def make_staging(root: Path) -> None:
    make_directory(root / "datasets")


def publish(root: Path) -> str:
    """The protocol of builds, in short."""
    if not (root / "datasets" / "x").exists():
        staging = root / "staging"
        remove_directory(staging)
        make_directory(staging)
        write_new(staging / "data", b"123456")
        publish_directory(staging, root / "datasets" / "x")
    return "done"


def publish_without_syncing_the_file(root: Path) -> str:
    if not (root / "datasets" / "x").exists():
        staging = root / "staging"
        remove_directory(staging)
        make_directory(staging)
        descriptor = files.disk.create(staging / "data")
        files.disk.write(staging / "data", descriptor, [b"123456"])
        os.close(descriptor)
        publish_directory(staging, root / "datasets" / "x")
    return "done"


def publish_without_syncing_the_folder(root: Path) -> str:
    if not (root / "datasets" / "x").exists():
        staging = root / "staging"
        remove_directory(staging)
        make_directory(staging)
        write_new(staging / "data", b"123456")
        files.disk.rename(staging, root / "datasets" / "x")
        sync_directory(root / "datasets")
    return "done"


def publish_in_place(root: Path) -> str:
    make_directory(root / "datasets" / "x")
    remove_file(root / "datasets" / "x" / "data")
    write_new(root / "datasets" / "x" / "data", b"123456")
    return "done"


def check_published(trial: Trial) -> None:
    folder = trial.root / "datasets" / "x"
    assert not folder.exists() or contents(folder) == {"data": b"123456"}


@pytest.mark.parametrize(
    ("work", "fault", "passes"),
    [
        (publish, Kill, True),
        (publish, PowerCut, True),
        (publish_without_syncing_the_file, Kill, True),
        (publish_without_syncing_the_file, PowerCut, False),
        (publish_without_syncing_the_folder, Kill, True),
        (publish_without_syncing_the_folder, PowerCut, False),
        (publish_in_place, Kill, False),
    ],
)
def test_a_protocol_with_a_gap_does_not_pass(
    forks: Forks, tmp_path: Path, work: Callable[[Path], str], fault: type[Kill | PowerCut], passes: bool
) -> None:
    struck = Kill() if fault is Kill else PowerCut(tmp_path / "vault", "lost")
    scenario = Scenario(make_staging, work, check_published)
    if passes:
        assert len(run_at_every_point(forks, tmp_path, scenario, struck)) >= 5
    else:
        with pytest.raises(AssertionError) as caught:
            run_at_every_point(forks, tmp_path, scenario, struck)
        assert "at Point(number=" in caught.value.__notes__[0]


def fail(root: Path) -> None:
    raise SpecError(f"nothing of {root}")


def crash(root: Path) -> None:
    raise ZeroDivisionError(str(root))


def wait_for_ever(root: Path) -> None:
    read, _ = os.pipe()
    os.read(read, 1)


def test_how_work_ends_is_told(forks: Forks, tmp_path: Path) -> None:
    assert isinstance(forks.run(fail, tmp_path).error, SpecError)
    with pytest.raises(InternalError, match="ZeroDivisionError"):
        forks.run(crash, tmp_path)
    assert forks.run(change, tmp_path, 0, Delay(0.001)).result == "done"
    with Forks(timeout_seconds=1) as impatient, pytest.raises(InternalError, match="ended with -14"):
        impatient.run(wait_for_ever, tmp_path)
    assert forks.run(change, tmp_path / "again").result == "done"
