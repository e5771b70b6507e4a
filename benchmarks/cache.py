"""What the cache's promises cost: checksums, a quota smaller than the dataset, the ledger. Ratios within one run."""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import storagering as sr
from storagering.cache import store, zarr_store
from storagering.cache.leases import Lease
from storagering.cache.ledger import Ledger, pin_files
from storagering.cache.space import folder_bytes
from storagering.loaders.torch import DataLoader
from storagering.testing.workloads import Workload, make_workload

ENTRIES = {"flat": 300_000, "jagged": 30_000}
BATCH = 1024


class _AnyNumber:
    """Equal to every checksum: what comparing would cost is not paid."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


class _NoHash:
    def __getattr__(self, name: str) -> Any:
        return lambda *_: _AnyNumber()


@contextmanager
def unchecked() -> Iterator[None]:
    """Chunks are read without computing any checksum."""
    with (
        mock.patch.object(zarr_store, "xxhash", _NoHash()),
        mock.patch.object(zarr_store, "checksum_of", return_value=_AnyNumber()),
        mock.patch.object(store, "checksum_of", return_value=_AnyNumber()),
    ):
        yield


def read_epoch(loader: DataLoader) -> float:
    """CPU seconds of all threads for one epoch."""
    begin = time.process_time()
    for _ in loader:
        pass
    return time.process_time() - begin


def checksum_cost(work: Workload, repeats: int) -> dict[str, float]:
    """Median ratio of neighbouring epochs without and with checksums, of ``repeats`` pairs."""
    ratios = []
    with DataLoader(work.name, BATCH, work.columns, seed=1) as loader:
        read_epoch(loader)
        for _ in range(repeats):
            checked = read_epoch(loader)
            with unchecked():
                plain = read_epoch(loader)
            ratios.append(plain / checked)
    return {"throughput_kept": round(statistics.median(ratios), 4), "least": min(ratios), "most": max(ratios)}


def quota_cost(work: Workload, share: float) -> dict[str, float]:
    """Seconds of a second epoch with room for all, and with room for a share: chunks are made again from ROOT."""
    dataset = sr.open_dataset(work.name)
    total = sum(chunk.nbytes for chunk in dataset.manifest.chunks)
    seconds = {}
    for name, quota in (("whole", total * 2), ("share", int(total * share))):
        os.environ["STORAGERING_QUOTA"] = f"{quota}B"
        with DataLoader(work.name, BATCH, work.columns, seed=1) as loader:
            for _ in range(2):
                begin = time.perf_counter()
                most = 0
                for _ in loader:
                    most = max(most, folder_bytes(dataset.path))
                seconds[name] = time.perf_counter() - begin
            seconds[f"{name}_most_bytes"] = most
    del os.environ["STORAGERING_QUOTA"]
    return {
        "quota_to_dataset": share,
        "slow_down": round(seconds["share"] / seconds["whole"], 1),
        "whole_seconds": round(seconds["whole"], 2),
        "share_seconds": round(seconds["share"], 2),
        "most_bytes_to_quota": round(seconds["share_most_bytes"] / (total * share), 3),
    }


def ledger_cost(folder: Path, commits: int = 600) -> dict[str, float]:
    """Seconds for so many commits of pins, each opening the ledger anew."""
    ledger, lease = Ledger(folder / "ledger.sqlite"), Lease(folder, "measuring")
    begin = time.perf_counter()
    for number in range(commits):
        with ledger.transaction() as database:
            pin_files(database, lease.id, "jets", [str(number)])
    return {"commits": commits, "seconds": round(time.perf_counter() - begin, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    figures: dict[str, Any] = {"checksums": {}, "quota": {}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["STORAGERING_CACHE"] = str(folder / "cache")
        for kind, entries in ENTRIES.items():
            work = make_workload(kind, folder, entries)
            for profile in ("small", "fast"):
                # Chunks of 2 MB: a window is then a small part of the dataset, as it is of a large one.
                sr.convert([str(file) for file in work.files], name=kind, profile=profile, chunk_bytes=2 << 20)
                figures["checksums"][f"{kind}, {profile}"] = checksum_cost(work, args.repeats)
                if profile == "small":
                    figures["quota"][kind] = quota_cost(work, 0.6)
                sr.remove(kind)
        figures["ledger"] = ledger_cost(folder)
    args.output.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
