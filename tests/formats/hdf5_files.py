"""HDF5 files for tests, and what is in them."""

from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np

from storagering.config import load_settings
from storagering.formats.readers import open_source
from storagering.formats.source import Source
from storagering.types import Array

JETS = [("pt", "f4"), ("flavour", "i4"), ("is_b", "?"), ("score", "f2"), ("p4", "f8", (4,)), ("big", ">u8")]
TRACKS = [("d0", "f4"), ("hits", "u1"), ("valid", "?")]


def structured(dtype: Any, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Random bits of a type; its bools are bools, its strings ASCII."""
    rng = np.random.default_rng(seed)
    values = np.zeros(shape, dtype)
    for name in values.dtype.names or ():
        field = values[name]
        kind = field.dtype
        data = rng.bytes(field.size * kind.itemsize)
        data = bytes(byte & 0x7F for byte in data) if kind.kind == "S" else data
        bits = np.frombuffer(data, kind).reshape(field.shape)
        values[name] = rng.random(field.shape) < 0.5 if kind.kind == "b" else bits
    return values


def write_salt(path: Path, entries: int = 250) -> tuple[Array, Array]:
    """The layout of umami and salt: jets, and a fixed number of tracks of each."""
    jets, tracks = structured(JETS, (entries,)), structured(TRACKS, (entries, 5), 1)
    with h5py.File(path, "w") as file:
        file.create_dataset("jets", data=jets, chunks=(100,), compression="gzip", shuffle=True)
        file.create_dataset("tracks", data=tracks, chunks=(50, 5), compression="lzf")
        file["cutBookkeeper/nominal/counts"] = np.zeros((), [("nEventsProcessed", "i8")])
    return jets, tracks


def same(got: Any, want: Array) -> bool:
    """Equal bit for bit, whatever the byte order was in the file."""
    found = ak.to_numpy(got)
    want = np.ascontiguousarray(want.astype(want.dtype.newbyteorder("=")))
    return (found.dtype, found.shape, found.tobytes()) == (want.dtype, want.shape, want.tobytes())


def read(source: Source, name: str) -> Any:
    return source.read([name], 0, source.entries)[name]


def everything(path: Path, tree: str | None = None) -> dict[str, Any]:
    with closing(open_source(str(path), tree, load_settings())) as source:
        return source.read(list(source.columns), 0, source.entries)
