"""Runs loaders one after the other, each beside the in-memory limit of the same workload on the same cores."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from storagering.files import replace_file
from storagering.testing.loading.case import Array, Case
from storagering.testing.loading.environments import Environment
from storagering.testing.loading.noise import class_noise, find_places, spread
from storagering.testing.loading.peers import PEERS, Peer
from storagering.testing.loading.process import LoaderError, LoaderProcess
from storagering.testing.loading.watch import PeakMemory, busy_seconds, cpu_seconds

LIMIT = next(peer for peer in PEERS if peer.name == "in memory")
#: Cores that others may use while an epoch counts, if there are enough such epochs.
_QUIET = 0.25
#: How long to wait for a quiet machine, for each epoch that follows.
_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True)
class Run:
    """One peer on one case, in one environment."""

    peer: Peer
    case: Case
    environment: Environment

    def __str__(self) -> str:
        return f"{self.peer.name}, {self.case.workload}, {self.case.cores} cores"

    @property
    def key(self) -> dict[str, Any]:
        """What tells it from others in the results."""
        return {
            "peer": self.peer.name,
            "workload": self.case.workload,
            "cores": self.case.cores,
            "workers": self.case.workers,
            "entries": self.case.limit,
        }


def plan_runs(
    peers: Sequence[Peer],
    environments: Sequence[Environment],
    cases: Callable[[Peer], Iterator[Case]],
) -> tuple[list[Run], list[dict[str, str]]]:
    """The runs, those of one workload and number of cores together; and peers that no environment has."""
    runs, missing = [], []
    for peer in peers:
        fits = [e for e in environments if e.has(peer.packages) and (e.own or peer.kind != "ours")]
        if not fits:
            needs = ", ".join(peer.packages)
            missing.append({"peer": peer.name, "reason": f"no environment has all of: torch, {needs}"})
            continue
        runs += [Run(peer, case, fits[0]) for case in cases(peer)]
    order = sorted(runs, key=lambda run: (run.case.workload, run.case.cores))
    return order, missing


class Bench:
    """What runs share: the processes of the in-memory limit, and the keys of the samples where they come from.

    Enter it as a block, at whose end all processes have ended.

    Args:
        own: the environment that this runs in.
        epochs: epochs that count, after one to warm up; twice as many are tried where others disturb them. 0 to prepare
            only.
    """

    def __init__(self, own: Environment, epochs: int) -> None:
        self._own, self.epochs = own, epochs
        self._held = ExitStack()
        self._limit: tuple[Case, LoaderProcess] | None = None
        self._sources: dict[Path, Array] = {}
        self._prepared: set[Path] = set()

    def __enter__(self) -> Bench:
        self._folder = Path(tempfile.mkdtemp())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._held.close()
        shutil.rmtree(self._folder)

    def prepare(self, run: Run) -> None:
        """Have its own files made, in a process for that alone.

        What others have made stays as it is; our own datasets are looked at each time, for what they were made by
        may have changed.

        Raises:
            LoaderError: it cannot make them.
        """
        done = run.case.folder / "prepared" / f"{run.peer.module}-{run.peer.variant}-{run.case.limit}"
        if not run.peer.packages or done in self._prepared or (done.exists() and run.peer.kind != "ours"):
            return
        LoaderProcess(run.environment, run.peer, run.case, self._folder).prepare()
        done.parent.mkdir(exist_ok=True)
        done.touch()
        self._prepared.add(done)

    def measure(self, run: Run) -> dict[str, Any]:
        """Its figures (see benchmarks/README.md).

        Raises:
            LoaderError: it cannot open its files or run an epoch.
        """
        limit = self._limit_of(run.case)
        with LoaderProcess(run.environment, run.peer, run.case, self._folder) as loader, PeakMemory(loader.pid) as peak:
            opened = loader.open()
            kept = self._folder / "order"
            first = loader.run(0, kept)
            pairs = self._alternate(loader, limit)
        quiet = sorted(pairs, key=lambda pair: pair["other"])[: self.epochs]
        rates = [pair["entries"] / pair["seconds"] for pair in quiet]
        return {
            "kind": run.peer.kind,
            "environment": run.environment.name,
            "rate": round(statistics.median(rates)),
            "of_limit": round(statistics.median(r / p["limit"] for r, p in zip(rates, quiet, strict=True)), 4),
            "limit": round(statistics.median(pair["limit"] for pair in quiet)),
            "mb_per_second": round(statistics.median(p["bytes"] / p["seconds"] for p in quiet) / 1e6, 1),
            **self._mixing(run.case, kept, np.array(first["sizes"])),
            "first_batch_cold_s": round(opened["open_s"] + first["first_s"], 3),
            "first_batch_warm_s": round(statistics.median(p["first_s"] for p in quiet), 4),
            "peak_memory_mb": round(peak.nbytes / 1e6),
            "disk_mb": round(opened["disk_bytes"] / 1e6, 1),
            "cpu_us": round(1e6 * sum(p["cpu"] for p in quiet) / sum(p["entries"] for p in quiet), 3),
            "other_cpu": round(statistics.mean(p["other"] for p in quiet), 2),
            "seconds": [round(pair["seconds"], 3) for pair in quiet],
        }

    def _limit_of(self, case: Case) -> LoaderProcess:
        whole = Case(case.root, case.workload, cores=case.cores)
        if self._limit is None or self._limit[0] != whole:
            self._held.close()
            folder = self._folder / "limit"
            folder.mkdir(exist_ok=True)
            process = self._held.enter_context(LoaderProcess(self._own, LIMIT, whole, folder))
            process.open()
            process.run(0)
            self._limit = whole, process
        return self._limit[1]

    def _alternate(self, loader: LoaderProcess, limit: LoaderProcess) -> list[dict[str, Any]]:
        pairs: list[dict[str, Any]] = []
        with loader.paused():
            _wait_until_quiet(_PATIENCE_SECONDS * self.epochs)
        for number in range(1, 2 * self.epochs + 1):
            with loader.paused():
                memory = limit.run(number)
            busy, cpu, started = busy_seconds(), cpu_seconds(loader.pid), time.perf_counter()
            found = loader.run(number)
            cpu, wall = cpu_seconds(loader.pid) - cpu, time.perf_counter() - started
            other = max(0.0, busy_seconds() - busy - cpu) / wall
            pairs.append(found | {"cpu": cpu, "other": other, "limit": memory["entries"] / memory["seconds"]})
            if sum(pair["other"] < _QUIET for pair in pairs) == self.epochs:
                break
        return pairs

    def _mixing(self, case: Case, kept: Path, sizes: Array) -> dict[str, Any]:
        """How the epoch in ``kept`` was mixed, and whether each entry came once."""
        keys, labels = np.fromfile(kept, np.uint64).reshape(-1, 2).T
        path = case.folder / f"{case.limit}"
        if path not in self._sources:
            self._sources[path] = case.keys(case.arrays())
        places = find_places(self._sources[path], keys)
        if (places < 0).any():
            raise LoaderError(f"{(places < 0).sum():,} samples that are not in the data")
        times = np.bincount(places, minlength=len(self._sources[path]))
        noise = class_noise(labels, sizes)
        return {
            "class_noise": noise and round(noise, 3),
            "spread": round(spread(places, sizes), 3),
            "missing": int((times == 0).sum()),
            "repeated": int((times > 1).sum()),
        }


def _wait_until_quiet(patience: float) -> None:
    end = time.perf_counter() + patience
    while time.perf_counter() < end:
        busy, started = busy_seconds(), time.perf_counter()
        time.sleep(0.3)
        if busy_seconds() - busy < _QUIET * (time.perf_counter() - started):
            return


def measure_all(
    bench: Bench, runs: Sequence[Run], results: dict[str, Any], output: Path | None, say: Callable[[str], None]
) -> None:
    """Prepare all, then measure what is not in ``results`` yet, and write them to ``output`` after each.

    Args:
        results: ``runs`` of it is added to; a run that failed has ``error``, and is tried again the next time.
    """
    missing = [run for run in runs if not any(_is_of(run, found) and "error" not in found for found in results["runs"])]
    for run in missing:
        started = time.perf_counter()
        try:
            bench.prepare(run)
        except LoaderError as error:
            say(f"{run}: cannot be prepared: {error}")
        else:
            if (seconds := time.perf_counter() - started) > 1:
                say(f"{run}: prepared, {seconds:.0f} s")
    for number, run in enumerate(missing if bench.epochs else [], 1):
        started = time.perf_counter()
        try:
            found = bench.measure(run)
            shown = f"{found['rate']:,} /s, {found['of_limit']:.3f} of memory, class noise {found['class_noise']}"
        except LoaderError as error:
            found = {"error": str(error)}
            shown = str(error)
        results["runs"] = [other for other in results["runs"] if not _is_of(run, other)] + [run.key | found]
        if output is not None:
            replace_file(output.absolute(), json.dumps(results, indent=1).encode() + b"\n")
        say(f"{number}/{len(missing)} {run}, {time.perf_counter() - started:.0f} s: {shown}")


def _is_of(run: Run, found: dict[str, Any]) -> bool:
    return found.items() >= run.key.items()
