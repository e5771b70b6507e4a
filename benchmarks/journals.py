"""What journals cost a loader: epochs with and without them in turn, and the time that is spent in their code.

    python benchmarks/journals.py --output benchmarks/results/journals.json

Two loaders of the same dataset, one that notes what it reads and one that does not, run an epoch each in turn (the
order changes each time), in one process; a third without journals says how far equal loaders differ. Ratios are medians
over all rounds, of CPU time of all threads and of elapsed time. As a difference of less than a percent drowns in what
else a machine does, the journal's own code is timed, too: its CPU time per epoch is a bound that no noise hides.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import storagering as sr
from storagering.cache.accesses import Taken, note_access
from storagering.cache.layout import open_cache
from storagering.catalog import accesses
from storagering.config import load_settings
from storagering.loaders.diary import CountedChunks, Diary
from storagering.loaders.supply import PublishedChunks
from storagering.loaders.torch import DataLoader
from storagering.testing.machine import describe_machine
from storagering.testing.workloads import Workload, make_workload

ENTRIES = {"flat": 1_000_000, "jagged": 100_000}
BATCH = 1024
LINES = 20_000


def open_loader(work: Workload, *, journal: bool) -> DataLoader:
    with mock.patch.dict(os.environ, STORAGERING_JOURNAL=str(int(journal))):
        return DataLoader(work.name, BATCH, work.columns, seed=1)


def run_epoch(loader: DataLoader) -> tuple[float, float]:
    """CPU seconds of all threads, and seconds."""
    begin, cpu = time.perf_counter(), time.process_time()
    for _ in loader:
        pass
    return time.process_time() - cpu, time.perf_counter() - begin


@contextmanager
def timed() -> Iterator[list[float]]:
    """CPU seconds of each call of the journal's code meanwhile; that of the loader inside of them is not counted."""
    spent: list[float] = []
    local = threading.local()  # seconds of the loader's own calls so far

    def wrap(kind: Any, name: str, *, ours: bool) -> Any:
        original = getattr(kind, name)

        def call(*arguments: Any) -> Any:
            inside, begin = getattr(local, "inside", 0.0), time.thread_time()
            result = original(*arguments)
            seconds = time.thread_time() - begin
            if ours:
                spent.append(seconds - (getattr(local, "inside", 0.0) - inside))
            else:
                local.inside = inside + seconds
            return result

        return mock.patch.object(kind, name, call)

    with ExitStack() as stack:
        for name in ("count", "begin", "end"):
            stack.enter_context(wrap(Diary, name, ours=True))
        for name in ("held", "open"):
            stack.enter_context(wrap(CountedChunks, name, ours=True))
            stack.enter_context(wrap(PublishedChunks, name, ours=False))
        yield spent


def compare(work: Workload, rounds: int) -> dict[str, Any]:
    kinds = {"with": True, "without": False, "again without": False}
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    with ExitStack() as stack:
        loaders = {kind: stack.enter_context(open_loader(work, journal=on)) for kind, on in kinds.items()}
        for loader in loaders.values():
            run_epoch(loader), run_epoch(loader)
        for number in range(rounds):
            order = list(kinds)
            for kind in order[number % 3 :] + order[: number % 3]:
                found[kind].append(run_epoch(loaders[kind]))

    def ratio(one: str, other: str, which: int) -> float:
        pairs = zip(found[one], found[other], strict=True)
        return round(statistics.median(a[which] / b[which] for a, b in pairs), 5)

    seconds = statistics.median(elapsed for _, elapsed in found["with"])
    return {
        "entries": work.entries,
        "epoch_seconds": round(seconds, 4),
        "cpu_with_to_without": ratio("with", "without", 0),
        "cpu_without_to_without": ratio("again without", "without", 0),
        "seconds_with_to_without": ratio("with", "without", 1),
        "seconds_without_to_without": ratio("again without", "without", 1),
        **own_time(work, rounds),
    }


def own_time(work: Workload, rounds: int) -> dict[str, Any]:
    """CPU time in the journal's own code, with that of the clock itself, as a share of that of an epoch without it."""
    shares, calls = [], []
    with ExitStack() as stack:
        noted, plain = (stack.enter_context(open_loader(work, journal=on)) for on in (True, False))
        run_epoch(noted), run_epoch(plain)
        for _ in range(rounds):
            with timed() as spent:
                run_epoch(noted)
            seconds, _ = run_epoch(plain)
            shares.append(sum(spent) / seconds)
            calls.append(len(spent))
    return {
        "own_share": round(statistics.median(shares), 6),
        "own_share_most": round(max(shares), 6),
        "own_calls": statistics.median(calls),
    }


def per_second(work: Callable[[], Any], count: int) -> float:
    begin = time.perf_counter()
    work()
    return round(count / (time.perf_counter() - begin))


def lines() -> dict[str, float]:
    """Lines written by one process, and taken into a catalog in memory, per second."""
    import duckdb

    cache, manifest = open_cache(load_settings()), sr.open_dataset("flat").manifest
    taken, columns = Taken(1, 2, 3, 0), [f"x{n:02}" for n in range(28)]

    def write() -> None:
        for _ in range(LINES):
            assert note_access(cache, manifest, "loader", columns, taken, seconds=1.0, epoch=1)

    written = per_second(write, LINES)
    with duckdb.connect(":memory:") as connection:
        for name, table in accesses.TABLES.items():
            connection.execute(f"CREATE TABLE {name} ({table})")
        read = per_second(lambda: accesses.enter(connection, cache), LINES)
    return {"lines": LINES, "written_per_second": written, "taken_in_per_second": read}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    figures: dict[str, Any] = {"machine": describe_machine(), "rounds": args.rounds, "loaders": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["STORAGERING_CACHE"] = str(folder / "cache")
        for kind, entries in ENTRIES.items():
            work = make_workload(kind, folder, entries)
            sr.convert([str(file) for file in work.files], name=kind, profile="fast")
            figures["loaders"][kind] = compare(work, args.rounds)
        figures["lines"] = lines()
    args.output.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
