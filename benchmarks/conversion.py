"""CPU time and memory of converting a TTree: storagering, its peers and the floor, all in the same run.

    python benchmarks/conversion_data.py DATA/x1
    python benchmarks/conversion_data.py DATA/x10 --events 3000000 --no-ntuple
    python benchmarks/conversion.py DATA/x1 DATA/x10 --output benchmarks/results/conversion.json

Every measurement is a process of its own, which does the same on a small file first (so that nothing is imported while
the clock runs) and is repeated; the least CPU time (user and system) counts, as other work on the machine disturbs
wall time. MB are those of `conversion_data.py`: all values, list lengths once, as int32.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPEATS = 3
TREE = "Events"
PACKAGES = ("storagering", "uproot", "awkward", "numpy", "pyarrow", "pcodec", "hepconvert")


def floor() -> Callable[[Path, Path], None]:
    """Decompress every basket and do nothing with it."""
    import uproot

    from storagering.formats.readers.baskets import describe_branch
    from storagering.formats.readers.blocks import find_blocks, unpack_blocks

    def run(path: Path, _: Path) -> None:
        data = memoryview(path.read_bytes())
        with uproot.open(path) as file:
            for name, branch in file[TREE].items():
                column = describe_branch(name, branch)
                assert column is not None, name
                for start, stop in column.ranges(range(len(column.seeks))):
                    packed = data[start + int.from_bytes(data[start + 14 : start + 16], "big") : stop]
                    size = int.from_bytes(data[start + 6 : start + 10], "big")
                    if len(packed) != size:
                        unpack_blocks(find_blocks(packed, size))

    return run


def uproot_arrays() -> Callable[[Path, Path], None]:
    """Read all columns, 100 MB at a time, and do nothing with them."""
    import uproot

    def run(path: Path, _: Path) -> None:
        with uproot.open(path) as file:
            for _ in file[TREE].iterate(step_size="100 MB"):
                pass

    return run


def hepconvert() -> Callable[[Path, Path], None]:
    """To Parquet, as hepconvert does it by default."""
    import hepconvert

    def run(path: Path, folder: Path) -> None:
        hepconvert.root_to_parquet(str(path), str(folder / "out.parquet"), tree=TREE, force=True)

    return run


def storagering(profile: str) -> Callable[[], Callable[[Path, Path], None]]:
    """One worker, everything from opening the file to the catalog."""

    def prepare() -> Callable[[Path, Path], None]:
        from storagering.api import convert
        from storagering.config import load_settings

        def run(path: Path, folder: Path) -> None:
            convert([str(path)], name="events", profile=profile, settings=load_settings(cache=folder, workers=1))  # type: ignore[arg-type]

        return run

    return prepare


CASES: dict[str, Callable[[], Callable[[Path, Path], None]]] = {
    "decompression only": floor,
    "uproot reading only": uproot_arrays,
    "hepconvert": hepconvert,
    "storagering, fast": storagering("fast"),
    "storagering, small": storagering("small"),
}


def measure_here(case: str, path: Path, small: Path) -> dict[str, Any]:
    """CPU and wall seconds, peak memory, and bytes written, of one case in this process."""
    run = CASES[case]()
    with tempfile.TemporaryDirectory() as folder:
        run(small, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        run(path, Path(folder))
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        made = [*Path(folder).rglob("chunk-*"), *Path(folder).rglob("out.parquet")]
        written = sum(file.stat().st_size for file in made)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu": cpu, "wall": wall, "peak_mb": int(peak.split()[1]) * 1024 / 1e6, "written": written}


def measure(case: str, path: Path, small: Path, repeats: int) -> dict[str, Any]:
    """The least CPU time of several processes, and the most memory."""
    command = [sys.executable, "-W", "ignore", __file__, "--case", case, str(path), str(small)]
    outputs = [subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout for _ in range(repeats)]
    runs = [json.loads(output) for output in outputs]
    return {**min(runs, key=lambda r: r["cpu"]), "peak_mb": max(r["peak_mb"] for r in runs)}


def compare(folder: Path, small: Path, repeats: int) -> dict[str, Any]:
    """All cases on the events of a folder."""
    facts = json.loads((folder / "data.json").read_text())
    decoded, path = facts["decoded_bytes"], folder / "events.root"
    cases = {}
    for case in CASES:
        found = measure(case, path, small, repeats)
        cases[case] = {
            "cpu_seconds": round(found["cpu"], 3),
            "mb_per_cpu_second": round(decoded / found["cpu"] / 1e6),
            "wall_seconds": round(found["wall"], 2),
            "peak_mb": round(found["peak_mb"]),
            "mb_written": round(found["written"] / 1e6, 1),
        }
        print(f"{case:24} {cases[case]}", flush=True)
    peer = cases["hepconvert"]["cpu_seconds"]
    sizes = {"TTree, zstd": path.stat().st_size, "decoded": decoded}
    if (folder / "ntuple.root").exists():
        sizes["RNTuple, LZMA"] = (folder / "ntuple.root").stat().st_size
    return {
        **facts,
        "mb": {name: round(size / 1e6, 1) for name, size in sizes.items()},
        "cases": cases,
        "times_hepconvert": {c: round(peer / cases[c]["cpu_seconds"], 2) for c in CASES if c.startswith("storagering")},
    }


def write_small(path: Path) -> None:
    """A file for the first run."""
    import uproot
    from conversion_data import write_with_uproot

    write_with_uproot(path, 500, uproot.ZSTD(5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure_here(options.case, *options.folders)))
        return
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.root"
        write_small(small)
        data = {f.name: compare(f, small, options.repeats) for f in options.folders}
    cpu = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    figures = {
        "benchmark": "conversion",
        "repeats": options.repeats,
        "data": data,
        "machine": {"cores": os.cpu_count(), "cpu": cpu.partition(":")[2].strip(), "python": platform.python_version()},
        "versions": {name: version(name) for name in PACKAGES},
    }
    if options.output:
        options.output.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps({name: [d["mb"], d["times_hepconvert"]] for name, d in data.items()}))


if __name__ == "__main__":
    main()
