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
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

REPEATS = 3
TREE = "Events"
SUBSET = ("run", "genWeight", "Jet_pt", "Muon_pt")  # 4 of 79 columns
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


class Reader(ABC):
    """One format, open: blocks of entries that are best read at once, and what to do with them."""

    bounds: list[int]

    @abstractmethod
    def read(self, names: Sequence[str] | None, start: int, stop: int) -> Any:
        """Entries of these columns (all if None), as arrays in memory."""

    @abstractmethod
    def take(self, names: Sequence[str] | None, start: int, stop: int, rows: Any) -> Any:
        """Some entries of one block; ``rows`` count from its start."""

    def all(self, names: Sequence[str] | None) -> None:
        for start, stop in pairwise(self.bounds):
            self.read(names, start, stop)

    def at_once(self, entries: Any) -> None:
        for start, stop in pairwise(self.bounds):
            rows = entries[(entries >= start) & (entries < stop)] - start
            if len(rows):
                self.take(None, start, stop, rows)

    def one_by_one(self, entries: Any) -> None:
        for entry in entries.tolist():
            self.read(None, entry, entry + 1)


class Uproot(Reader):
    """TTrees and RNTuples: clusters."""

    def __init__(self, path: Path) -> None:
        import uproot

        self.tree = uproot.open({path: None}, array_cache=None)[TREE]
        if hasattr(self.tree, "common_entry_offsets"):
            self.bounds = [int(e) for e in self.tree.common_entry_offsets()]
        else:
            starts = [int(c.num_first_entry) for c in self.tree.ntuple.cluster_summaries]
            self.bounds = [*starts, int(self.tree.num_entries)]

    def read(self, names: Sequence[str] | None, start: int, stop: int) -> Any:
        return self.tree.arrays(
            filter_name=None if names is None else list(names), entry_start=start, entry_stop=stop, array_cache=None
        )

    def take(self, names: Sequence[str] | None, start: int, stop: int, rows: Any) -> Any:
        import awkward as ak

        return ak.to_packed(self.read(names, start, stop)[rows])


class Parquet(Reader):
    """Row groups."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.file = pq.ParquetFile(path, memory_map=True)
        groups = [self.file.metadata.row_group(n).num_rows for n in range(self.file.num_row_groups)]
        self.bounds = [0, *np.cumsum(groups).tolist()]

    def read(self, names: Sequence[str] | None, start: int, stop: int) -> Any:
        number = int(np.searchsorted(self.bounds, start, side="right")) - 1
        columns = None if names is None else list(names)
        table = self.file.read_row_group(number, columns=columns, use_threads=False)
        return table.slice(start - self.bounds[number], stop - start)

    def take(self, names: Sequence[str] | None, start: int, stop: int, rows: Any) -> Any:
        return self.read(names, start, stop).take(rows)


class Arrow(Reader):
    """Record batches of a mapped file; what is read is copied, as everywhere else."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self.pa = pa
        options = pa.ipc.IpcReadOptions(use_threads=False)
        self.file = pa.ipc.open_file(pa.memory_map(str(path)), options=options)
        self.names = self.file.schema.names
        self.some = {
            SUBSET: pa.ipc.open_file(
                pa.memory_map(str(path)),
                options=pa.ipc.IpcReadOptions(use_threads=False, included_fields=[self.names.index(n) for n in SUBSET]),
            )
        }
        counts = [self.file.get_batch(n).num_rows for n in range(self.file.num_record_batches)]
        self.bounds = [0, *np.cumsum(counts).tolist()]

    def _batch(self, names: Sequence[str] | None, start: int) -> Any:
        file = self.file if names is None else self.some[tuple(names)]
        return file.get_batch(int(np.searchsorted(self.bounds, start, side="right")) - 1)

    def read(self, names: Sequence[str] | None, start: int, stop: int) -> Any:
        first = self.bounds[int(np.searchsorted(self.bounds, start, side="right")) - 1]
        batch = self._batch(names, start)
        if stop - start == batch.num_rows:
            return [np.array(np.frombuffer(b, np.uint8)) for c in batch.columns for b in c.buffers() if b is not None]
        return batch.slice(start - first, stop - start).take(self.pa.array(range(stop - start)))

    def take(self, names: Sequence[str] | None, start: int, stop: int, rows: Any) -> Any:  # noqa: ARG002
        return self._batch(names, start).take(self.pa.array(rows))


class Arrays(Reader):
    """HDF5, Zarr and npz: an array a column, or offsets and values; each read as a whole or by ranges."""

    def __init__(self, flat: dict[str, Any], jagged: dict[str, tuple[Any, Any]]) -> None:
        self.flat, self.jagged = flat, jagged
        self.bounds = [0, next(iter(flat.values())).shape[0]]

    def all(self, names: Sequence[str] | None) -> None:
        for name in [*self.flat, *self.jagged] if names is None else names:
            for start, stop in pairwise(self.bounds):
                self.read([name], start, stop)

    def read(self, names: Sequence[str] | None, start: int, stop: int) -> Any:
        found = []
        for name in [*self.flat, *self.jagged] if names is None else names:
            if name in self.flat:
                found.append(self.flat[name][start:stop])
            else:
                offsets, values = self.jagged[name]
                here = offsets[start : stop + 1]
                found.append((here, values[int(here[0]) : int(here[-1])]))
        return found

    def take(self, names: Sequence[str] | None, start: int, stop: int, rows: Any) -> Any:
        found = []
        for array in self.read(names, start, stop):
            if isinstance(array, tuple):
                offsets, values = array
                counts = np.diff(offsets)[rows]
                ends = np.cumsum(counts)
                items = np.repeat(offsets[rows] - offsets[0] - (ends - counts), counts) + np.arange(ends[-1])
                found.append((counts, values[items]))
            else:
                found.append(array[rows])
        return found


def open_hdf5(path: Path) -> Reader:
    import h5py

    group = h5py.File(path, rdcc_nbytes=0)[TREE]  # else chunks stay decompressed between rounds
    jagged = {n: (node["offsets"], node["values"]) for n, node in group.items() if isinstance(node, h5py.Group)}
    return Arrays({n: node for n, node in group.items() if n not in jagged}, jagged)


def open_zarr(path: Path) -> Reader:
    import zarr

    zarr.config.set({"threading.max_workers": 1, "async.concurrency": 1})
    members = dict(zarr.open_group(path, mode="r").members())
    jagged = {n: (node["offsets"], node["values"]) for n, node in members.items() if isinstance(node, zarr.Group)}
    return Arrays({n: node for n, node in members.items() if n not in jagged}, jagged)


class _Member:
    """An array of an npz file: read whole whatever is wanted, as NumPy does it."""

    def __init__(self, arrays: Any, name: str, entries: int) -> None:
        self._arrays, self._name, self.shape = arrays, name, (entries,)

    def __getitem__(self, wanted: slice) -> Any:
        return self._arrays[self._name][wanted]


def open_npz(path: Path) -> Arrays:
    arrays = np.load(path)
    entries = len(arrays["run"])
    names = [n.removesuffix(".offsets") for n in arrays if n.endswith(".offsets")]
    jagged = {n: tuple(_Member(arrays, f"{n}.{part}", entries) for part in ("offsets", "values")) for n in names}
    flat = {n: _Member(arrays, n, entries) for n in arrays if n.rpartition(".")[0] not in jagged}
    return Arrays(flat, jagged)  # type: ignore[arg-type]


def open_memory(path: Path) -> Reader:
    """All arrays decoded in memory: what is read is copied, all columns into memory that is in use already."""

    class Copying(Arrays):
        def all(self, names: Sequence[str] | None) -> None:
            for name in [*self.flat, *self.jagged] if names is None else names:
                for array in (self.flat[name],) if name in self.flat else self.jagged[name]:
                    np.copyto(scratch[: array.nbytes], array.view(np.uint8))

        def read(self, names: Sequence[str] | None, start: int, stop: int) -> Any:
            found = super().read(names, start, stop)
            return [(a[0].copy(), a[1].copy()) if isinstance(a, tuple) else a.copy() for a in found]

        def take(self, names: Sequence[str] | None, start: int, stop: int, rows: Any) -> Any:
            return Arrays(self.flat, self.jagged).take(names, start, stop, rows)

    on_disk = open_npz(path)
    flat = {n: a[:] for n, a in on_disk.flat.items()}
    jagged = {n: (o[:], v[:]) for n, (o, v) in on_disk.jagged.items()}
    scratch = np.zeros(max(a.nbytes for a in (*flat.values(), *(a for pair in jagged.values() for a in pair))), "u1")
    reader = Copying(flat, jagged)
    reader.bounds = np.linspace(0, reader.bounds[-1], 9).astype(int).tolist()  # blocks as large as those on disk
    return reader


class Cache(Reader):
    """A dataset of ours, checksums verified."""

    def __init__(self, path: Path) -> None:
        from storagering.cache.dataset import open_dataset
        from storagering.cache.layout import open_cache
        from storagering.config import load_settings

        self.dataset = open_dataset("events", cache=open_cache(load_settings(cache=path)))
        self.bounds = [0, *(chunk.stop for chunk in self.dataset.manifest.chunks)]

    def all(self, names: Sequence[str] | None) -> None:
        for _ in self.dataset.batches(names):
            pass

    def read(self, names: Sequence[str] | None, start: int, stop: int) -> Any:
        return self.dataset.arrays(names, start, stop)

    def take(self, names: Sequence[str] | None, start: int, stop: int, rows: Any) -> Any:
        import awkward as ak

        return ak.to_packed(self.dataset.arrays(names, start, stop)[rows])


OPENERS: dict[str, Callable[[Path], Reader]] = {
    "root": Uproot,
    "rntuple": Uproot,
    "parquet": Parquet,
    "arrow": Arrow,
    "hdf5": open_hdf5,
    "zarr": open_zarr,
    "npz": open_npz,
    "cache": Cache,
    "memory": open_memory,
}


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
