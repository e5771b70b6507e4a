"""The formats of the field on the same events: size, and reading all, some columns, and entries at random.

    python benchmarks/formats.py --output benchmarks/results/formats.json --table benchmarks/formats.md

The events are those of `conversion_data.py`. `storagering.copy` writes them in every format (see
`storagering.formats.writers`; blocks of about 16 MB decoded), `storagering.convert` as cache. Each format is read by
the field's own library in its best usual way, in a process of its own on one core, after one round to warm up; the
least CPU time of three counts. Everything is in the page cache. MB are decoded.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from format_readers import OPENERS, SUBSET

REPEATS = 3
AT_ONCE, ONE_BY_ONE = 1000, 10
PACKAGES = ("storagering", "uproot", "awkward", "numpy", "pyarrow", "h5py", "zarr", "pcodec")
#: name -> (format, compression, file)
WRITTEN = {
    "TTree, zstd": ("root", "zstd", "tree.root"),
    "RNTuple, zstd": ("rntuple", "zstd", "ntuple.root"),
    "Parquet, zstd": ("parquet", "zstd", "events.parquet"),
    "Arrow": ("arrow", "none", "events.arrow"),
    "Arrow, lz4": ("arrow", "lz4", "events-lz4.arrow"),
    "HDF5, gzip": ("hdf5", "gzip", "gzip.hdf5"),
    "HDF5, lzf": ("hdf5", "lzf", "lzf.hdf5"),
    "Zarr, zstd": ("zarr", "zstd", "events.zarr"),
    "npz": ("npz", "none", "events.npz"),
}
PROFILES = {"storagering, small": "small", "storagering, fast": "fast"}
LIMIT = "in memory (copy)"


def clock(work: Callable[[], Any]) -> dict[str, float]:
    """The least CPU time, and the wall time that goes with it."""
    work()
    runs = []
    for _ in range(REPEATS):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        runs.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = min(runs)
    return {"cpu": cpu, "wall": wall}


def measure_here(kind: str, path: Path) -> dict[str, dict[str, float]]:
    """All measurements of one format in this process, on one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    reader = OPENERS[kind](path)
    rng = np.random.default_rng(1)
    many = np.sort(rng.choice(reader.bounds[-1], AT_ONCE, replace=False))
    few = rng.choice(reader.bounds[-1], ONE_BY_ONE, replace=False)
    return {
        "all": clock(lambda: reader.all(None)),
        "subset": clock(lambda: reader.all(SUBSET)),
        "at_once": clock(lambda: reader.at_once(many)),
        "one_by_one": clock(lambda: reader.one_by_one(few)),
    }


def write_all(folder: Path, events: int) -> tuple[dict[str, tuple[str, Path]], dict[str, int]]:
    """Every format in a folder; also the decoded bytes of all columns and of the subset."""
    import uproot
    from conversion_data import write_with_uproot

    import storagering as sr
    from storagering.config import load_settings

    seed = folder / "seed.root"
    write_with_uproot(seed, events, uproot.LZ4(1))
    places: dict[str, tuple[str, Path]] = {}
    for name, (kind, compression, file) in WRITTEN.items():
        written = sr.copy(seed, folder / file, to=kind, compression=compression)  # type: ignore[arg-type]
        assert not written.skipped
        places[name] = (kind, folder / file)
    for name, profile in PROFILES.items():
        cache = folder / profile
        dataset = sr.convert(seed, name="events", profile=profile, settings=load_settings(cache=cache, workers=1))  # type: ignore[arg-type]
        places[name] = ("cache", cache)
    places[LIMIT] = ("memory", folder / WRITTEN["npz"][2])

    def decoded(names: Sequence[str] | None) -> int:  # offsets as int32, as most formats give them
        total = 0
        for batch in dataset.batches(names):
            for column in batch.schema.columns:
                *offsets, values = batch.arrays[column.name]
                total += values.nbytes + sum(4 * len(o) for o in offsets)
        return total

    return places, {"all": decoded(None), "subset": decoded(SUBSET)}


def size_of(kind: str, path: Path) -> int:
    """Bytes on disk."""
    folder = path / "datasets" if kind == "cache" else path
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else folder.stat().st_size


def compare(folder: Path, events: int) -> dict[str, Any]:
    """All formats on the same events."""
    places, decoded = write_all(folder, events)
    formats = {}
    for name, (kind, path) in places.items():
        command = [sys.executable, "-W", "ignore", __file__, "--kind", kind, str(path)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        formats[name] = {
            "mb_on_disk": None if name == LIMIT else round(size_of(kind, path) / 1e6, 1),
            "all_mb_per_s": round(decoded["all"] / found["all"]["cpu"] / 1e6, 1),
            "subset_mb_per_s": round(decoded["subset"] / found["subset"]["cpu"] / 1e6, 1),
            "at_once_us_per_entry": round(found["at_once"]["cpu"] / AT_ONCE * 1e6, 1),
            "one_by_one_ms_per_entry": round(found["one_by_one"]["cpu"] / ONE_BY_ONE * 1e3, 2),
            "wall_to_cpu": {k: round(v["wall"] / v["cpu"], 2) for k, v in found.items()},
        }
        print(name, formats[name], file=sys.stderr, flush=True)
    limit = formats[LIMIT]["all_mb_per_s"]
    for figures in formats.values():
        figures["all_to_copy"] = round(figures["all_mb_per_s"] / limit, 4)
    return {"decoded_mb": {k: round(v / 1e6, 1) for k, v in decoded.items()}, "formats": formats}


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "| format | MB on disk | ratio | all columns, MB/s | : copying | 4 of 79 columns, MB/s "
        "| 1,000 random entries, µs each | one random entry, ms |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, f in figures["formats"].items():
        size = "" if f["mb_on_disk"] is None else f"{f['mb_on_disk']}"
        ratio = "" if f["mb_on_disk"] is None else f"{figures['decoded_mb']['all'] / f['mb_on_disk']:.2f}"
        lines.append(
            f"| {name} | {size} | {ratio} | {f['all_mb_per_s']:,.0f} | {f['all_to_copy']:.3f} | "
            f"{f['subset_mb_per_s']:,.0f} | {f['at_once_us_per_entry']:,.0f} | {f['one_by_one_ms_per_entry']:,.2f} |"
        )
    machine, versions = figures["machine"], figures["versions"]
    lines += [
        "",
        f"{figures['events']:,} events, {figures['decoded_mb']['all']} MB decoded; one core ({machine['cpu']}), "
        + "CPU time, "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + ". See `benchmarks/formats.py`.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    parser.add_argument("path", nargs="?", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        print(json.dumps(measure_here(options.kind, options.path)))
        return
    folder = Path(tempfile.mkdtemp())
    try:
        figures = {"benchmark": "formats", "events": options.events, **compare(folder, options.events)}
    finally:
        shutil.rmtree(folder)
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    figures["machine"] = {"cpu": cpu.partition(":")[2].strip(), "python": platform.python_version()}
    figures["versions"] = {name: version(name) for name in PACKAGES}
    if options.output:
        options.output.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    if options.table:
        options.table.write_text(table(figures))
    print(table(figures))


if __name__ == "__main__":
    main()
