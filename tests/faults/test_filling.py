"""Training while the cache fills, with processes that are killed, sources that fail and readers that leave."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.cache.test_convert_faults import break_column
from tests.faults.held import CHUNK_BYTES, ENTRIES, FILES, HeldSources, Trainings, held_sources

import storagering as sr
from storagering.api import convert
from storagering.cache.filling import FillingDataset
from storagering.cache.layout import open_cache
from storagering.cache.progress import BuildProgress
from storagering.config import load_settings
from storagering.errors import AuthError, LoaderError, NotFoundError, WorkerDiedError
from storagering.loaders.torch import DataLoader
from storagering.testing.toys import write_toy_tree

LEAVE = """
import sys
import storagering as sr
from storagering.loaders.torch import DataLoader
batches = iter(DataLoader(sr.fill(sys.argv[1:], chunk_bytes=8192), 40, ["nVtx"]))
next(batches)
sys.stdin.readline()
"""
CONVERT = """
import sys
import storagering as sr
from storagering.cache.progress import BuildProgress
class Led(BuildProgress):
    def advance(self, entries, nbytes):
        print("advanced", flush=True)
        if not sys.stdin.readline():
            raise KeyboardInterrupt
sr.convert(sys.argv[1:], name="toys", chunk_bytes=8192, workers=1, progress=Led())
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[HeldSources]:
    with held_sources(tmp_path / "in") as sources:
        yield sources


@pytest.fixture
def trainings(held: HeldSources) -> Iterator[Trainings]:
    found = Trainings(held)
    yield found
    found.end()


def fill(held: HeldSources, **options: Any) -> FillingDataset:
    return sr.fill(held.urls, **{"name": "toys", "chunk_bytes": CHUNK_BYTES, "settings": held.settings, **options})


def events(batches: Any) -> list[int]:
    return [n for batch in batches for n in batch["nVtx"].tolist()]


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=20)[1]


def fillers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "storagering.cache.filler" in p.cmdline()]


def test_killed_in_the_first_epoch_nothing_committed_is_read_again(held: HeldSources, trainings: Trainings) -> None:
    held.when_done = 12
    training = trainings.start(batch_size=40, seed=1)
    assert training.hear() == "begun"
    before = [training.hear() for _ in range(2)]
    state = json.loads(json.dumps(before[-1][1]))
    assert held.reached.wait(60)
    own = psutil.Process(training.process.pid).children(recursive=True)
    assert own
    training.process.kill()
    assert gone(own), "the filler outlived the training"
    (staging,) = {record.parent for record in held.records()}
    committed = {chunk.stat().st_ino for chunk in staging.glob("task-*.zarr.zip")}
    kept = len(held.records())
    asked = len(held.server.requests)
    held.when_done = sys.maxsize
    held.go_on.set()
    with fill(held) as data, DataLoader(data, 40, {"pt": "MET_pt"}, seed=1) as loader:
        loader.load_state_dict(state)
        rest = [batch["pt"].tolist() for batch in loader]
        dataset = loader.dataset
        loader.set_epoch(0)
        assert [batch["pt"].tolist() for batch in loader] == [*(pt for pt, _ in before), *rest]
    assert sum(map(len, rest)) == ENTRIES * FILES - 80
    files = {path.stat().st_ino for path in dataset.path.glob("chunk-*")}
    assert len(committed) >= 12
    assert committed <= files, "a chunk was made again"
    # Of a file whose tasks are all committed nothing but its header and the end are read, to see that it is the same.
    again = [request.path for request in held.server.requests[asked:] if request.range and is_large(request.range)]
    assert len(again) <= FILES - kept // 4
    assert len(again) < len(held.urls)


def is_large(span: str) -> bool:
    start, stop = map(int, span.removeprefix("bytes=").split("-"))
    return stop - start > 12_000


def test_two_processes_follow_one_fill(held: HeldSources, trainings: Trainings) -> None:
    """The sources are read once."""
    with fill(held, name="alone") as alone:
        alone.wait()
    requests = len(held.server.requests)
    ranks = [trainings.start(batch_size=40, rank=rank, world_size=2) for rank in (0, 1)]
    assert [rank.hear() for rank in ranks] == ["begun", "begun"]
    (some, digest), (others, same) = [rank.finish() for rank in ranks]
    assert digest == same
    assert len(some) == len(others)
    assert sum(map(len, some + others)) == len({pt for batch in some + others for pt in batch}) == ENTRIES * FILES
    assert len(held.server.requests) == 2 * requests


def test_when_the_one_that_fills_is_killed_another_takes_over(held: HeldSources, trainings: Trainings) -> None:
    held.when_done = 8
    first = trainings.start(batch_size=40, seed=1)
    assert first.hear() == "begun"
    second = trainings.start(batch_size=40, seed=1)
    assert second.hear() == "begun"
    assert held.reached.wait(60)
    other = psutil.Process(second.process.pid)
    assert not other.children(), "both fill"
    first.process.kill()
    until(other.children)
    held.when_done = sys.maxsize
    held.go_on.set()
    batches, digest = second.finish()
    assert sum(map(len, batches)) == ENTRIES * FILES
    assert digest == sr.open_dataset("toys").manifest.digest


@pytest.mark.parametrize("end", ["whole", "killed"])
def test_a_conversion_of_another_process_is_followed(tmp_path: Path, end: str) -> None:
    """By the name of its dataset, in its own order."""
    write_toy_tree(tmp_path / "toy.root", entries=3000, basket_entries=100)
    command = [sys.executable, "-c", CONVERT, str(tmp_path / "toy.root")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert line(process) == "advanced"
        with DataLoader("toys", 40, ["event"], seed=3) as loader:
            batches = iter(loader)
            threading.Thread(target=answer, args=(process, 25), daemon=True).start()
            found = [next(batches)["event"].tolist()]
            assert loader.state_dict()["dataset"].startswith("fill:")
            assert not open_cache(load_settings()).contains("toys")
            if end == "killed":
                process.kill()
                with pytest.raises(LoaderError, match="ended before it was complete"):
                    list(batches)
                return
            threading.Thread(target=answer, args=(process, 1000), daemon=True).start()
            found += [batch["event"].tolist() for batch in batches]
            everything = [n for batch in found for n in batch]
            assert sorted(everything) == list(range(2**60 + 1, 2**60 + 3001))
            assert everything != sorted(everything)
            assert max(found[0]) - 2**60 < 1500, "the last of it was waited for"


def answer(process: "subprocess.Popen[str]", times: int) -> None:
    assert process.stdin is not None
    for _ in range(times):
        try:
            process.stdin.write("go on\n")
            process.stdin.flush()
        except (OSError, ValueError):
            return


def test_ranks_do_not_follow_by_name(tmp_path: Path) -> None:
    """One that comes when it is complete would read another order: all wait."""
    write_toy_tree(tmp_path / "toy.root", entries=1000, basket_entries=100)
    command = [sys.executable, "-c", CONVERT, str(tmp_path / "toy.root")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert line(process) == "advanced"
        threading.Thread(target=answer, args=(process, 1000), daemon=True).start()
        with DataLoader("toys", 40, ["event"], rank=1, world_size=2) as loader:
            assert loader.state_dict()["dataset"] == loader.dataset.manifest.digest


def test_an_error_of_the_source_reaches_the_training(held: HeldSources) -> None:
    held.when_done = 8
    with fill(held) as data, DataLoader(data, 40, ["nVtx"]) as loader:
        batches = iter(loader)
        next(batches)
        held.server.fault = "403"
        held.go_on.set()
        with pytest.raises(AuthError, match="toy"):
            list(batches)
        held.server.fault = None
        assert len(events(loader)) == ENTRIES * FILES
    with sr.fill(held.server.url("nope.root")) as data, pytest.raises(NotFoundError, match=r"nope\.root"):
        DataLoader(data)


def test_a_filler_that_is_killed(held: HeldSources) -> None:
    held.when_done = 8
    with fill(held) as data, DataLoader(data, 40, ["nVtx"]) as loader:
        batches = iter(loader)
        next(batches)
        fillers()[0].kill()
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            list(batches)


def test_a_loader_that_is_closed_early(held: HeldSources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGERING_WORKERS", "1")
    held.when_done = 8
    with DataLoader(held.server.url("toy00.root"), 40, ["nVtx"]) as loader:
        next(iter(loader))
    assert not fillers()
    data = fill(held)
    loader = DataLoader(data, 40, ["nVtx"])
    threads = threading.active_count()
    batches = iter(loader)
    next(batches)
    assert held.reached.wait(60)
    assert len(fillers()) == 1
    done = held.done()
    begin = time.monotonic()
    loader.close()
    assert len(fillers()) == 1, "it is not the loader's own"
    data.close()
    assert time.monotonic() - begin < 9
    assert not fillers()
    assert threading.active_count() < threads
    assert held.done() == done, "what was finished stays"
    held.go_on.set()
    held.when_done = sys.maxsize
    assert len(events(loader)) == ENTRIES * FILES  # it can be iterated again
    data.close()


def test_the_end_of_the_program_does_not_wait(held: HeldSources) -> None:
    """For data that do not come, in a program that closes nothing."""
    held.when_done = 8
    environment = os.environ | {"STORAGERING_REQUEST_TIMEOUT_SECONDS": "100", "STORAGERING_WORKERS": "1"}
    command = [sys.executable, "-c", LEAVE, *held.urls]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, text=True) as process:
        assert held.reached.wait(60)
        own = psutil.Process(process.pid).children()
        assert own
        answer(process, 1)
        assert process.wait(timeout=20) == 0
    assert gone(own)


def test_a_build_that_starts_over_is_no_longer_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=8000, basket_entries=500)
    break_column(monkeypatch, "Jet_eta", 7000)
    followed = threading.Event()

    class Slow(BuildProgress):
        def advance(self, entries: int, decoded_bytes: int) -> None:  # noqa: ARG002
            followed.wait(60)

    arguments = {"name": "toy", "workers": 1, "chunk_bytes": 20_000, "progress": Slow()}
    build = threading.Thread(target=convert, args=(str(tmp_path / "toy.root"),), kwargs=arguments)
    build.start()
    until(
        lambda: (
            open_cache(load_settings()).unfinished()
            or list(Path(os.environ["STORAGERING_CACHE"]).glob("staging/*/outline.json"))
        )
    )
    with DataLoader("toy", 40, ["nVtx"]) as loader, DataLoader("toy", 40, ["nVtx"]) as idle:
        followed.set()
        with pytest.raises(LoaderError, match="started over"):
            list(loader)
        build.join()
        with pytest.raises(LoaderError, match="started over"):
            list(idle)
    assert "Jet_eta" not in sr.open_dataset("toy").schema.names
