"""Measurements of conversion, each as a ratio to a peer or limit taken in the same run.

Absolute figures hold for one machine at one moment; the ratios are what to compare.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import awkward as ak
import pyarrow.parquet as pq
import uproot

from storagering.api import convert
from storagering.cache.dataset import Dataset
from storagering.config import Settings, load_settings, usable_cpus
from storagering.files import replace_file
from storagering.testing.machine import describe_machine
from storagering.testing.workloads import Workload, make_workload
from storagering.types import Profile

_PACKAGES = ("storagering", "uproot", "awkward", "numpy", "pyarrow", "pcodec")


def bench_convert(*, entries: int = 1_000_000, output: Path | None = None) -> dict[str, Any]:
    """Decoded MB per second: conversion, uproot reading only, uproot to Parquet.

    Args:
        entries: of the flat workload; the jagged one has a tenth.
        output: JSON file to write the figures to as well.

    Returns:
        Per workload the rates (best of 3), sizes on disk, and the conversion's ratios to both.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = {}
        for name, count in (("flat", entries), ("jagged", entries // 10)):
            results[name] = _measure_conversion(make_workload(name, Path(folder), count), Path(folder))
    figures = {"benchmark": "convert", "workloads": results, "machine": describe_machine()}
    figures["versions"] = {name: version(name) for name in _PACKAGES}
    if output is not None:
        replace_file(output.absolute(), json.dumps(figures, indent=1).encode() + b"\n")
    return figures


def _convert(workload: Workload, settings: Settings, profile: Profile) -> Dataset:
    files = [str(f) for f in workload.files]
    return convert(files, name=f"{workload.name}-{profile}", profile=profile, settings=settings)


def _measure_conversion(workload: Workload, folder: Path) -> dict[str, Any]:
    source = sum(f.stat().st_size for f in workload.files)
    rates, sizes = {}, {"ROOT, zstd": source}
    rates["uproot reading only"] = _best_rate(workload, lambda _: _read_only(workload))
    rates["uproot to Parquet, zstd"] = _best_rate(
        workload, lambda run: _to_parquet(workload, folder / f"{run}.parquet")
    )
    sizes["uproot to Parquet, zstd"] = (folder / "0.parquet").stat().st_size
    for workers in sorted({1, usable_cpus()}):
        for profile in ("small", "fast"):
            label = f"storagering, {profile}, {workers} worker{'s' * (workers > 1)}"
            settings = load_settings(workers=workers)
            made: list[Dataset] = []

            def once(
                run: int, profile: Profile = profile, settings: Settings = settings, made: list[Dataset] = made
            ) -> None:
                own = load_settings(workers=settings.workers, cache=folder / f"{profile}-{settings.workers}-{run}")
                made.append(_convert(workload, own, profile))

            rates[label] = _best_rate(workload, once)
            sizes[f"storagering, {profile}"] = sum(c.nbytes for c in made[0].manifest.chunks)
    ours = rates["storagering, small, 1 worker"]
    return {
        "entries": workload.entries,
        "decoded_mb": round(workload.raw_bytes / 1e6, 1),
        "mb_per_second": {k: round(v, 1) for k, v in rates.items()},
        "mb_on_disk": {k: round(v / 1e6, 1) for k, v in sizes.items()},
        "small_1_worker_to_reading": round(ours / rates["uproot reading only"], 3),
        "small_1_worker_to_parquet": round(ours / rates["uproot to Parquet, zstd"], 2),
    }


def _best_rate(workload: Workload, run: Callable[[int], None]) -> float:
    seconds = []
    for number in range(3):
        started = time.perf_counter()
        run(number)
        seconds.append(time.perf_counter() - started)
    return workload.raw_bytes / 1e6 / min(seconds)


def _read_only(workload: Workload) -> None:
    for file in workload.files:
        with uproot.open(file) as opened:
            opened["events"].arrays()


def _to_parquet(workload: Workload, path: Path) -> None:
    writer = None
    for file in workload.files:
        with uproot.open(file) as opened:
            for part in opened["events"].iterate(step_size=50_000):
                table = ak.to_arrow_table(part, extensionarray=False)
                writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd", compression_level=1)
                writer.write_table(table)
    if writer is not None:
        writer.close()
