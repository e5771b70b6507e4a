"""Every loader that is measured: what it needs, and on how much of which workload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Peer:
    """One way of one peer.

    Attributes:
        name: what it is called in tables and on the command line.
        module, variant: of this package, and a key of its ``VARIANTS``.
        packages: modules that must be importable.
        entries: workload -> entries, of the standard size of its data; 0 for all. Peers that work sample by
            sample get fewer.
        workers: DataLoader processes where it has two cores, if that is its better way.
        kind: ``ours``; ``compressed`` for others that read compressed files; ``plain`` for data that is not compressed,
            on disk or in memory.
    """

    name: str
    module: str
    variant: str
    packages: tuple[str, ...]
    entries: Mapping[str, int]
    workers: int = 0
    kind: Literal["ours", "compressed", "plain"] = "plain"


def _all(*workloads: str) -> Mapping[str, int]:
    return dict.fromkeys(workloads, 0)


_US = ("storagering.loaders.torch",)
_READERS = ("w1", "w2", "w2f", "w3")
_ZARR = ("zarr", "numcodecs")

PEERS = (
    Peer("storagering fast", "ours", "fast", _US, _all(*_READERS), kind="ours"),
    Peer("storagering small", "ours", "small", _US, _all(*_READERS), kind="ours"),
    Peer("storagering fast, unmixed", "ours", "sorted", _US, _all("w1"), kind="ours"),
    Peer("storagering exact, rows", "ours", "rows", _US, _all("w1"), kind="ours"),
    Peer("in memory", "memory", "limit", (), _all(*_READERS)),
    Peer("in memory, padded before", "memory", "gather", (), _all("w2")),
    Peer("TensorDataset", "memory", "dataset", (), {"w1": 200_000, "w3": 0}),
    Peer("memory map", "memory", "mapped", (), _all(*_READERS)),
    Peer("uproot chunks", "uproot_chunks", "chunks", ("uproot", "awkward"), _all("w1", "w2", "w2f"), kind="compressed"),
    Peer("RDataLoader lazy", "rdata", "lazy", ("ROOT",), _all("w1", "w2"), kind="compressed"),
    Peer("RDataLoader eager", "rdata", "eager", ("ROOT",), _all("w1")),
    Peer(
        *("weaver-core", "weaver_core", "root", ("weaver", "uproot"), {"w1": 400_000, "w2": 100_000}),
        workers=2,
        kind="compressed",
    ),
    Peer("f9columnar ROOT", "f9", "root", ("f9columnar",), {"w1": 500_000, "w2": 100_000}, kind="compressed"),
    Peer("f9columnar piles", "f9", "piles", ("f9columnar",), _all("w1", "w2"), kind="compressed"),
    Peer("salt-ml", "salt_ml", "h5", ("salt", "h5py"), _all("w1", "w2"), kind="compressed"),
    Peer("h5py blocks", "hdf5", "blocks", ("h5py",), _all(*_READERS), kind="compressed"),
    Peer("h5py rows, raw", "hdf5", "rows", ("h5py",), {"w1": 200_000, "w3": 5_000}),
    Peer("Parquet", "parquet", "zstd", ("pyarrow",), _all(*_READERS), kind="compressed"),
    Peer("zarr-python", "zarr_stores", "python", _ZARR, _all(*_READERS), kind="compressed"),
    Peer("zarrs", "zarr_stores", "zarrs", (*_ZARR, "zarrs"), _all(*_READERS), kind="compressed"),
    Peer("tensorstore", "zarr_stores", "tensorstore", (*_ZARR, "tensorstore"), _all(*_READERS), kind="compressed"),
    Peer("MosaicML Streaming", "mosaic", "py1e", ("streaming",), {"w1": 50_000, "w2": 40_000, "w3": 5_000}, workers=2),
    Peer("LitData", "lit", "optimize", ("litdata",), {"w1": 600_000, "w2": 0, "w3": 5_000}),
    Peer("WebDataset", "web", "tar", ("webdataset",), {"w1": 40_000, "w2": 20_000, "w3": 5_000}, workers=2),
    Peer("HF datasets", "arrow_rows", "hf", ("datasets", "pyarrow"), {"w1": 500_000, "w2": 50_000, "w3": 5_000}),
    Peer("Lance take", "arrow_rows", "take", ("lance", "pyarrow"), {"w1": 100_000, "w2": 50_000, "w3": 5_000}),
    Peer("Lance batches", "arrow_rows", "batches", ("lance", "pyarrow"), {"w1": 0, "w2": 0, "w3": 5_000}),
)
