"""Measurements of conversion and loading, each as a ratio to a peer or limit taken in the same run.

Absolute figures hold for one machine at one moment; the ratios are what to compare.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import torch
import uproot

from storagering.api import convert
from storagering.cache.dataset import Dataset
from storagering.config import Settings, load_settings, usable_cpus
from storagering.files import replace_file
from storagering.loaders.torch import DataLoader
from storagering.testing.workloads import MAX_PARTICLES, Workload, make_workload
from storagering.types import Array, Profile

_BATCH = 1024
_EPOCHS = 5
_UPROOT_BUFFER = {"flat": 131_072, "jagged": 16_384}
_PACKAGES = ("storagering", "uproot", "awkward", "numpy", "torch", "pyarrow", "pcodec")


def bench_loader(*, entries: int = 1_000_000, output: Path | None = None) -> dict[str, Any]:
    """Entries per second of shuffled batches: the cache, uproot reading ROOT directly, tensors in memory.

    Args:
        entries: of the flat workload; the jagged one has a tenth.
        output: JSON file to write the figures to as well.

    Returns:
        Per workload the rates (median of 4 epochs after one to warm up, batches of 1024), and the
        cache's ratios to the in-memory limit and to uproot.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = {}
        for name, count in (("flat", entries), ("jagged", entries // 10)):
            workload = make_workload(name, Path(folder), count)
            results[name] = _measure_loading(workload, load_settings(cache=Path(folder) / "cache"))
    return _finish({"benchmark": "loader", "batch_size": _BATCH, "workloads": results}, output)


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
    return _finish({"benchmark": "convert", "workloads": results}, output)


def _finish(figures: dict[str, Any], output: Path | None) -> dict[str, Any]:
    figures["machine"] = {"cores": usable_cpus(), "cpu": _cpu_name(), "python": platform.python_version()}
    figures["versions"] = {name: version(name) for name in _PACKAGES}
    if output is not None:
        replace_file(output.absolute(), json.dumps(figures, indent=1).encode() + b"\n")
    return figures


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _measure_loading(workload: Workload, settings: Settings) -> dict[str, Any]:
    ours = {profile: _convert(workload, settings, profile) for profile in ("small", "fast")}
    rates = {
        "in memory": _memory_rate(workload, ours["fast"]),
        "uproot": _rate(workload, lambda: _uproot_batches(workload)),
    }
    for profile, dataset in ours.items():
        with DataLoader(dataset, _BATCH, workload.columns, pad_to=MAX_PARTICLES) as loader:
            rates[f"cache, {profile}"] = _rate(workload, loader.__iter__)
    best = rates["cache, small"]
    return {
        "entries": workload.entries,
        "entries_per_second": {k: round(v) for k, v in rates.items()},
        "cache_small_to_memory": round(best / rates["in memory"], 3),
        "cache_small_to_uproot": round(best / rates["uproot"], 2),
        "cache_fast_to_memory": round(rates["cache, fast"] / rates["in memory"], 3),
    }


def _rate(workload: Workload, epoch: Callable[[], Iterator[dict[str, Any]]]) -> float:
    seconds = []
    for _ in range(_EPOCHS):
        started = time.perf_counter()
        count = sum(len(batch["y"]) for batch in epoch())
        seconds.append(time.perf_counter() - started)
        if count != workload.entries:
            raise AssertionError(f"{count} entries instead of {workload.entries}")
    return workload.entries / statistics.median(seconds[1:])


def _convert(workload: Workload, settings: Settings, profile: Profile) -> Dataset:
    files = [str(f) for f in workload.files]
    return convert(files, name=f"{workload.name}-{profile}", profile=profile, settings=settings)


def _memory_rate(workload: Workload, dataset: Dataset) -> float:
    """With one thread of torch or all, whichever is faster here: on a busy machine several are far slower."""
    epoch = _in_memory(dataset, workload)
    before, rates = torch.get_num_threads(), []
    try:
        for threads in {1, before}:
            torch.set_num_threads(threads)
            rates.append(_rate(workload, epoch))
    finally:
        torch.set_num_threads(before)
    return max(rates)


def _in_memory(dataset: Dataset, workload: Workload) -> Callable[[], Iterator[dict[str, Any]]]:
    """The limit: everything decoded, stacked and padded in memory, rows gathered by a random permutation."""
    with DataLoader(dataset, dataset.num_entries, workload.columns, pad_to=MAX_PARTICLES, shuffle=None) as loader:
        tensors = next(iter(loader))

    def epoch() -> Iterator[dict[str, Any]]:
        order = torch.randperm(workload.entries)
        for start in range(0, workload.entries, _BATCH):
            rows = order[start : start + _BATCH]
            yield {key: tensor.index_select(0, rows) for key, tensor in tensors.items()}

    return epoch


def _uproot_batches(workload: Workload) -> Iterator[dict[str, Any]]:
    """What a careful user writes without us: read blocks at random, fill a buffer, permute, cut."""
    rng = np.random.default_rng(0)
    trees = [uproot.open({str(f): "events"}) for f in workload.files]
    block = 50_000 if workload.name == "flat" else 5_000
    blocks = [(t, a) for t in trees for a in range(0, t.num_entries, block)]
    waiting: list[dict[str, Array]] = []
    have = 0
    for number, index in enumerate(rng.permutation(len(blocks))):
        tree, start = blocks[index]
        record = tree.arrays(entry_start=start, entry_stop=start + block)
        waiting.append({key: _stack(record, names) for key, names in workload.columns.items()})
        have += len(waiting[-1]["y"])
        if have >= _UPROOT_BUFFER[workload.name] or number == len(blocks) - 1:
            buffer = {key: np.concatenate([w[key] for w in waiting]) for key in waiting[0]}
            order = rng.permutation(have)
            for begin in range(0, have, _BATCH):
                rows = order[begin : begin + _BATCH]
                yield {key: torch.from_numpy(array[rows]) for key, array in buffer.items()}
            waiting, have = [], 0


def _stack(record: Any, names: str | list[str]) -> Array:
    """One column, or several side by side; jagged ones padded with zeros."""
    if isinstance(names, str):
        return np.asarray(record[names])
    if record[names[0]].ndim == 1:
        return np.stack([np.asarray(record[n]) for n in names], axis=1)
    counts = np.asarray(ak.num(record[names[0]]))
    padded = np.zeros((len(counts), MAX_PARTICLES, len(names)), np.float32)  # (B, P, F)
    padded[np.arange(MAX_PARTICLES) < counts[:, None]] = np.stack([np.asarray(ak.flatten(record[n])) for n in names], 1)
    return padded


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
