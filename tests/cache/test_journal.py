"""Journals: what was acknowledged is there, once, whatever happens to the process, the disk or a bit."""

import errno
import os
import shutil
import signal
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.faults.processes import Child, wait_for

from storagering.cache import journal
from storagering.cache.accesses import Taken, find_job, note_access
from storagering.cache.journal import append, journal_folder, kept_finished, list_journals, read_journal
from storagering.cache.layout import Cache, open_cache
from storagering.config import load_settings
from storagering.testing.faults import FaultyDisk, Kill, Refusal, count_points, faulty


@dataclass(frozen=True)
class Note:
    text: str


@pytest.fixture
def opened(cache: Path) -> Cache:
    return open_cache(load_settings())


def texts(path: Path, *, finished: bool = True) -> list[str]:
    return [msgspec.json.decode(line.text)["text"] for line in read_journal(path, finished=finished).lines]


def all_texts(cache: Cache) -> list[str]:
    return sorted(text for path in list_journals(cache, "notes") for text in texts(path))


def write(cache: Cache, *notes: str) -> None:
    for note in notes:
        assert append(cache, "notes", Note(note))


def test_lines_are_read_back_from_where_one_was(opened: Cache) -> None:
    write(opened, "a", "b\n\u2028 c", "d")
    [path] = list_journals(opened, "notes")
    found = read_journal(path)
    assert [line.number for line in found.lines] == [0, 1, 2]
    assert texts(path) == ["a", "b\n\u2028 c", "d"]
    assert found.end == path.stat().st_size
    assert found.damaged == 0
    write(opened, "e")
    assert [(line.number, line.text) for line in read_journal(path, found.end).lines] == [(3, b'{"text":"e"}')]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_rest_of_a_dead_process_is_none(opened: Cache) -> None:
    def die() -> None:
        write(opened, "a")
        with faulty(FaultyDisk(len(count_points(lambda: write(opened, "b"))) - 1, Kill(partly=True))):
            write(opened, "c" * 100)

    pid = os.fork()
    if not pid:
        die()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    [path] = list_journals(opened, "notes")
    assert b"cc" in path.read_bytes()
    assert texts(path) == ["a", "b"]
    with kept_finished(path) as finished:
        assert finished
    write(opened, "d")
    assert texts(path) == ["a", "b"]
    assert all_texts(opened) == ["a", "b", "d"]


def test_any_flipped_bit_costs_its_line_alone(opened: Cache) -> None:
    write(opened, *"abcd")
    [path] = list_journals(opened, "notes")
    sound, copy = path.read_bytes(), path.with_name("copy")
    for bit in range(8 * (len(sound) // 2), 8 * len(sound)):  # of the last two lines
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        copy.write_bytes(data)
        found = read_journal(copy, finished=True)
        left = texts(copy)
        assert left == [text for text in "abcd" if text in left]
        if sound[bit // 8] != ord("\n"):
            assert len(left) == 3
            assert found.damaged == 1 + (data[bit // 8] == ord("\n"))
        elif bit // 8 < len(sound) - 1:  # two lines are one
            assert (len(left), found.damaged) == (2, 1)
        else:  # the last one is a rest
            assert (len(left), found.damaged) == (3, 0)


def test_a_last_line_that_may_be_in_the_making_is_left_for_later(opened: Cache) -> None:
    write(opened, "a", "b")
    [path] = list_journals(opened, "notes")
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"b"', b'"\0"'))
    first = read_journal(path)
    assert (len(first.lines), first.damaged, first.end) == (1, 0, data.index(b"\n") + 1)
    path.write_bytes(data)
    assert [line.number for line in read_journal(path, first.end).lines] == [1]


def test_a_forked_process_writes_its_own(opened: Cache) -> None:
    write(opened, "parent")
    pid = os.fork()
    if not pid:
        os._exit(not append(opened, "notes", Note("child")))
    assert os.waitpid(pid, 0)[1] == 0
    write(opened, "parent again")
    assert sorted(map(texts, list_journals(opened, "notes"))) == [["child"], ["parent", "parent again"]]


def test_full_journals_are_finished(opened: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_ENOUGH_BYTES", 100)
    notes = [f"{number:02}" for number in range(30)]
    write(opened, *notes)
    assert all_texts(opened) == notes
    states = []
    for path in list_journals(opened, "notes"):
        assert path.stat().st_size < 150
        with kept_finished(path) as finished:
            states.append(finished)
    assert states.count(False) == 1 < states.count(True)


def test_threads_and_destructors_write_at_the_same_time(opened: Cache) -> None:
    def work(number: int) -> None:
        write(opened, *(f"{number} {n}" for n in range(50)))

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all_texts(opened) == sorted(f"{number} {n}" for number in range(8) for n in range(50))

    class Disturbing(FaultyDisk):
        def write(self, *arguments: Any) -> None:
            if not self.points:
                self.reach("disturbed", opened.root)
                write(opened, "in between")
            super().write(*arguments)

    with faulty(Disturbing()):
        write(opened, "disturbed")
    assert {"in between", "disturbed"} <= set(all_texts(opened))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("partly", [False, True])
def test_a_disk_that_refuses_costs_a_warning(
    opened: Cache, code: int, partly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(opened, "a")
    monkeypatch.setattr(journal, "_told", set())
    points = count_points(lambda: write(opened, "b"))
    for number in range(len(points)):
        with faulty(FaultyDisk(number, Refusal(code, partly, lasting=True))):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                assert not append(opened, "notes", Note("lost"))
                assert not append(opened, "notes", Note("lost"))
            assert len(told) == (number == 0 and code != errno.EROFS)
        write(opened, f"c{number}")
    assert all_texts(opened) == ["a", "b", *(f"c{number}" for number in range(len(points)))]


def test_journals_of_a_shared_cache_say_which_machine_writes_them(cache: Path) -> None:
    shared = open_cache(load_settings(shared=True))
    write(shared, "a")
    [path] = list_journals(shared, "notes")
    assert shared.machine in path.name
    assert shared.is_of_another_machine(path.with_suffix("")) is False
    assert open_cache(load_settings()).is_of_another_machine(path.with_suffix("")) is True


def test_it_can_be_turned_off(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGERING_JOURNAL", "0")
    opened = open_cache(load_settings())
    assert not append(opened, "notes", Note("a"))
    assert not note_access(opened, "x", "loader", (), Taken(1, 1, 1, 0), seconds=1.0)
    assert not journal_folder(opened, "notes").exists()


def test_a_journal_that_somebody_removed_is_begun_again(opened: Cache) -> None:
    write(opened, "a")
    shutil.rmtree(opened.root / "journals")
    write(opened, "b")
    assert all_texts(opened) == ["b"]


def test_journals_do_not_fill_the_disk(opened: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_MOST_BYTES", 2000)
    monkeypatch.setattr(journal, "_ENOUGH_BYTES", 500)
    with pytest.warns(UserWarning, match="'storagering catalog rebuild' puts them into archives"):
        done = [append(opened, "notes", Note(f"{number:03}")) for number in range(200)]
    assert done == sorted(done, reverse=True)
    assert all_texts(opened) == [f"{number:03}" for number in range(sum(done))]
    assert sum(path.stat().st_size for path in list_journals(opened, "notes")) < 3000


def test_few_descriptors_stay_open(opened: Cache, tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208  (a Path would hold one itself)
    for number in range(20):
        write(open_cache(load_settings(cache=tmp_path / f"{number}")), "a")
    assert len(os.listdir("/proc/self/fd")) <= before + journal._MOST_OPEN  # noqa: PTH208


def test_no_secret_is_written(opened: Cache) -> None:
    name = "https://me:hunter2@server.org/x.root?authz=Bearer%20abcdef&n=1"
    assert note_access(opened, name, "loader", [f"a {name}", "\udc80"], Taken(1, 1, 1, 0), seconds=1.0)
    [path] = list_journals(opened, "accesses")
    data = path.read_bytes()
    assert b"hunter2" not in data
    assert b"abcdef" not in data
    assert b"https://server.org/x.root" in data


def test_jobs_of_batch_systems(tmp_path: Path) -> None:
    (tmp_path / "ad").write_text('Owner = "me"\nClusterId = 4711\nProcId = 3\n')
    assert find_job({}) is None
    assert find_job({"SLURM_JOB_ID": "12"}) == "slurm:12"
    assert find_job({"_CONDOR_JOB_AD": str(tmp_path / "ad")}) == "condor:4711.3"
    assert find_job({"_CONDOR_JOB_AD": str(tmp_path / "absent")}) is None


def note_and_wait(root: Path, said: Any) -> None:
    write(open_cache(load_settings(cache=root)), "a")
    said.touch()
    signal.pause()


def test_a_journal_is_not_finished_while_its_process_lives(opened: Cache, tmp_path: Path) -> None:
    child = Child(note_and_wait, opened.root, tmp_path / "said")
    wait_for((tmp_path / "said").exists)
    [path] = list_journals(opened, "notes")
    with kept_finished(path) as finished:
        assert not finished
    child.kill()
    with kept_finished(path) as finished:
        assert finished
