"""Training while the cache fills, over XRootD: the first epoch against the conversion alone, and what later ones move.

    python benchmarks/filling.py --output benchmarks/results/filling.json

A private XRootD server on this machine serves the files (see `storagering.testing.workloads`). Every measurement is a
process of its own, with everything imported before the clock runs and an empty cache; conversions and trainings
alternate, and the least time of each counts. A training has no network to train: it takes the batches and drops them.
The first epoch ends when the dataset is published. Bytes are those that the server's process has sent.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from storagering.testing.workloads import Workload, make_workload
from storagering.testing.xrootd import XRootDServer, bytes_sent_by, xrootd_server

PACKAGES = ("storagering", "torch", "numpy", "pcodec", "zarr", "xrootd")
BATCH_SIZE = 1024
EPOCHS = 3


@dataclass(frozen=True)
class Case:
    """What is compared: a workload, with so many workers, over a link of so many bytes a second."""

    workload: str
    workers: int
    bytes_per_second: int | None


CASES = tuple(
    Case(name, workers, link)
    for name in ("flat", "jagged")
    for workers, link in ((1, None), (2, None), (2, 10_000_000))
)


def convert(urls: list[str], workers: int) -> dict[str, Any]:
    """The conversion alone."""
    import storagering.catalog.index
    import storagering.loaders.torch  # noqa: F401
    from storagering.api import convert

    start = time.perf_counter()
    dataset = convert(urls, name="d", workers=workers)
    return {"seconds": time.perf_counter() - start, "entries": dataset.num_entries}


def train(urls: list[str], workers: int, columns: dict[str, Any], sent: Any) -> dict[str, Any]:
    """Epochs of a training that begins with an empty cache."""
    from storagering.api import fill
    from storagering.loaders.torch import DataLoader

    begin = start = time.perf_counter()
    epochs: list[dict[str, Any]] = []
    options: dict[str, Any] = {"columns": columns, "seed": 1, "pad_to": 128}
    before, first_batch = sent(), None
    with fill(urls, name="d", workers=workers) as data, DataLoader(data, BATCH_SIZE, **options) as loader:
        for _ in range(EPOCHS):
            entries = 0
            for batch in loader:
                entries += len(batch["y"])
                first_batch = first_batch or time.perf_counter() - begin
            now, after = time.perf_counter(), sent()
            epochs.append({"seconds": now - start, "remote_bytes": after - before, "entries": entries})
            start, before = time.perf_counter(), after
    return {"first_batch_seconds": first_batch, "epochs": epochs}


def measure(arguments: Sequence[str]) -> None:
    """One measurement, in a process of its own; says what it found as JSON."""
    kind, urls, workers, columns, pid, log = arguments
    found = (
        convert(json.loads(urls), int(workers))
        if kind == "convert"
        else train(json.loads(urls), int(workers), json.loads(columns), lambda: bytes_sent_by(int(pid), Path(log)))
    )
    print(json.dumps(found))


def run(kind: str, case: Case, workload: Workload, server: XRootDServer) -> dict[str, Any]:
    """Start a measurement; what else the machine did meanwhile is noted as cores."""
    urls = [server.url(path.name) for path in workload.files]
    with tempfile.TemporaryDirectory(prefix="storagering-filling-") as cache:
        environment = os.environ | {"STORAGERING_CACHE": cache}
        command = [sys.executable, __file__, "--measure", kind, json.dumps(urls), str(case.workers)]
        command += [json.dumps(workload.columns), str(server.pid), str(server.log)]
        before, start = cpu_seconds(server.pid), time.perf_counter()
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(result.stderr)
        after, seconds = cpu_seconds(server.pid), time.perf_counter() - start
    found: dict[str, Any] = json.loads(result.stdout)
    ours, everything = after[0] - before[0], after[1] - before[1]
    return found | {"cpu_seconds": ours, "other_load": round(max(0.0, everything - ours) / seconds, 2)}


def cpu_seconds(server: int) -> tuple[float, float]:
    """CPU time of what was measured here with the server, and of the whole machine."""
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    times, machine = psutil.Process(server).cpu_times(), psutil.cpu_times()
    return own.ru_utime + own.ru_stime + times.user + times.system, machine.user + machine.nice + machine.system


def compare(case: Case, workload: Workload, repeats: int) -> dict[str, Any]:
    """A case, measured."""
    with xrootd_server(bytes_per_second=case.bytes_per_second) as server:
        for path in workload.files:
            server.add(path)
        runs: dict[str, list[dict[str, Any]]] = {"convert": [], "train": []}
        for _ in range(repeats):
            for kind, found in runs.items():
                found.append(run(kind, case, workload, server))
                print(case, kind, found[-1], file=sys.stderr)
    alone = min(runs["convert"], key=lambda one: float(one["seconds"]))
    training = min(runs["train"], key=lambda one: float(one["epochs"][0]["seconds"]))
    epochs = training["epochs"]
    assert all(epoch["entries"] == workload.entries for one in runs["train"] for epoch in one["epochs"])
    return asdict(case) | {
        "entries": workload.entries,
        "source_bytes": sum(path.stat().st_size for path in workload.files),
        "convert_seconds": alone["seconds"],
        "first_epoch_seconds": epochs[0]["seconds"],
        "ratio": epochs[0]["seconds"] / alone["seconds"],
        "first_batch_seconds": training["first_batch_seconds"],
        "first_epoch_remote_bytes": epochs[0]["remote_bytes"],
        "later_epochs_seconds": [epoch["seconds"] for epoch in epochs[1:]],
        "later_epochs_remote_bytes": [
            max(one["epochs"][n]["remote_bytes"] for one in runs["train"]) for n in range(1, EPOCHS)
        ],
        "runs": runs,
    }


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder for the files, kept; a temporary one without it")
    parser.add_argument("--flat", type=int, default=16_000_000, metavar="EVENTS")
    parser.add_argument("--jagged", type=int, default=1_000_000, metavar="JETS")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    folder = args.data or Path(tempfile.mkdtemp(prefix="storagering-filling-"))
    folder.mkdir(exist_ok=True)
    try:
        workloads = {name: load(name, folder, getattr(args, name)) for name in ("flat", "jagged")}
        results = [compare(case, workloads[case.workload], args.repeats) for case in CASES]
    finally:
        if args.data is None:
            shutil.rmtree(folder)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    packages = {name: version(name) for name in PACKAGES}
    args.output.write_text(json.dumps({"machine": machine, "packages": packages, "cases": results}, indent=2) + "\n")
    for result in results:
        print({key: value for key, value in result.items() if key != "runs"})


def load(name: str, folder: Path, entries: int) -> Workload:
    """The workload, made if it is not there."""
    note = folder / f"{name}-{entries}.json"
    if not note.exists():
        made = make_workload(name, folder, entries)
        note.write_text(json.dumps([made.columns, made.raw_bytes]))
    columns, raw_bytes = json.loads(note.read_text())
    return Workload(name, tuple(folder / f"{name}-{n}.root" for n in range(2)), entries, columns, raw_bytes)


if __name__ == "__main__":
    main()
