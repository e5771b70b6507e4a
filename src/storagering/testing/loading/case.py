"""What is loaded: the data of a workload as every peer finds it, and the few operations on jagged arrays."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
#: Tensors of one batch: inputs, then the flat ones among them (the key of a sample), then the labels.
Batch: TypeAlias = "tuple[Any, ...]"
Epoch: TypeAlias = Callable[[int], Iterator[Batch]]

FLAT_FEATURES = (
    *("lep_pt", "lep_eta", "lep_phi", "met", "met_phi"),
    *(f"jet{number}_{name}" for number in range(1, 5) for name in ("pt", "eta", "phi", "btag")),
    *("m_jj", "m_jjj", "m_lv", "m_jlv", "m_bb", "m_wbb", "m_wwbb"),
)
PARTICLE_FEATURES = tuple(f"part_{name}" for name in ("px", "py", "pz", "e", "deta", "dphi", "d0", "charge"))
JET_FEATURES = ("jet_pt", "jet_eta", "jet_phi", "jet_mass")
MAX_PARTICLES = 128
IMAGE = (25, 25, 25)
TREE = "events"

WORKLOADS = {
    "w1": "W1: 28 flat features",
    "w2": "W2: jets, padded to 128 x 8",
    "w2f": "W2: jets, values and offsets",
    "w3": "W3: images of 25 x 25 x 25",
}
_ARRAYS = {"w1": ("x", "y"), "w2": ("values", "offsets", "jet", "y"), "w3": ("images", "energy", "y")}
_KEYS = {"w1": (0, 3), "w2": (0, 3), "w3": (0,)}


@dataclass(frozen=True)
class Jagged:
    """Lists one after the other: items (items, features), offsets (lists + 1)."""

    values: Array
    offsets: Array

    def __len__(self) -> int:
        return len(self.offsets) - 1


#: Entries side by side: arrays and `Jagged`, the labels last.
Block: TypeAlias = "tuple[Array | Jagged, ...]"


@dataclass(frozen=True)
class Case:
    """One workload as one peer loads it.

    Attributes:
        root: folder of the data (see `storagering.testing.loading.data`).
        workload: a key of `WORKLOADS`; ``w2f`` is the data of ``w2``, not padded.
        limit: entries, taken evenly from all; 0 for all.
        cores: the process may use so many; ``workers`` processes of a DataLoader, 0 for none.
    """

    root: Path
    workload: str
    limit: int = 0
    cores: int = 1
    workers: int = 0

    @property
    def data(self) -> str:
        """The data's own name."""
        return self.workload[:2]

    @property
    def folder(self) -> Path:
        """Where the data lies."""
        return self.root / self.data

    @property
    def batch_size(self) -> int:
        """Entries of a batch."""
        return 128 if self.data == "w3" else 1024

    @property
    def buffer(self) -> int:
        """Entries of a shuffle buffer."""
        return {"w1": 131_072, "w2": 16_384, "w3": 1_024}[self.data]

    def arrays(self) -> Block:
        """The entries, memory-mapped if they are all: (x, y), (particles, jet, y) or (images, energy, y)."""
        arrays = [
            np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS[self.data]
        ]
        block: Block = tuple(arrays) if self.data != "w2" else (Jagged(arrays[0], np.array(arrays[1])), *arrays[2:])
        count = len(block[-1])
        if not 0 < self.limit < count:
            return block
        return take(block, np.arange(self.limit) * count // self.limit)

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """A peer's own file or folder beside the data, made unless it is there."""
        path = self.folder / f"{self.limit or 'all'}-{name}"
        if not path.exists():
            half = path.with_name(f"half-{path.name}")
            shutil.rmtree(half, ignore_errors=True)
            half.unlink(missing_ok=True)
            make(half)
            half.replace(path)
        return path

    def keys(self, batch: Batch) -> Array:
        """What identifies each sample of a batch: (B,) uint64."""
        flat = np.asarray(batch[-2], np.float32).reshape(len(batch[-1]), -1)[:, _KEYS[self.data]]  # (B, 1 or 2)
        bits = np.ascontiguousarray(flat).view(np.uint32).astype(np.uint64)
        return bits[:, 0] if bits.shape[1] == 1 else bits[:, 0] << np.uint64(32) | bits[:, 1]


class Variant(NamedTuple):
    """One way of a peer: its files (made if need be), and how it opens them: epoch number -> batches."""

    files: Callable[[Case], list[Path]]
    open: Callable[[Case], Epoch]


def take(block: Block, rows: Array) -> Block:
    """Those entries, copied."""
    return tuple(_take_lists(part, rows) if isinstance(part, Jagged) else part[rows] for part in block)


def cut(block: Block, start: int, stop: int) -> Block:
    """Entries that follow one another, without a copy."""
    return tuple(_cut_lists(part, start, stop) if isinstance(part, Jagged) else part[start:stop] for part in block)


def join(blocks: Sequence[Block]) -> Block:
    """All entries of several blocks."""
    if len(blocks) == 1:
        return blocks[0]
    return tuple(
        _join_lists(parts) if isinstance(parts[0], Jagged) else np.concatenate(parts)
        for parts in zip(*blocks, strict=True)
    )


def _take_lists(lists: Jagged, rows: Array) -> Jagged:
    counts = lists.offsets[rows + 1] - lists.offsets[rows]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    items = np.repeat(lists.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
    return Jagged(lists.values[items], offsets)


def _cut_lists(lists: Jagged, start: int, stop: int) -> Jagged:
    offsets = lists.offsets[start : stop + 1]
    return Jagged(lists.values[offsets[0] : offsets[-1]], offsets - offsets[0])


def _join_lists(parts: Sequence[Any]) -> Jagged:
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    return Jagged(np.concatenate([part.values for part in parts]), np.concatenate([[0], np.cumsum(counts)]))


def pad(lists: Jagged) -> Array:
    """(B, 128, features) float32, zeros after each list's items."""
    counts = np.diff(lists.offsets)
    padded = np.zeros((len(counts), MAX_PARTICLES, lists.values.shape[1]), np.float32)
    padded[np.arange(MAX_PARTICLES) < counts[:, None]] = lists.values
    return padded
