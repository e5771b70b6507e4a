"""How the field's own libraries read each format best; used by `formats.py`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

TREE = "Events"
SUBSET = ("run", "genWeight", "Jet_pt", "Muon_pt")  # 4 of 79 columns


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
