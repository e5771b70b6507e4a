"""The order of an epoch: a pure function of (chunk sizes, seed, epoch). No I/O, no state.

    chunks --permuted--> windows of several chunks --rows permuted inside--> one global sequence of entries
    global batch g = entries [g*B, (g+1)*B) of it; rank r takes the r-th slice of every global batch

So the set of entries in a global batch is the same for every world size, and any step is found at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from storagering.types import Array

Shuffle = Literal["block", "exact"] | None
_CHUNK_ORDER, _ROW_ORDER = 0, 1


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """One epoch's order.

    Attributes:
        windows: chunk numbers of each window, in reading order.
        starts: position in the global sequence at which each window begins; last, the number of entries.
        shuffled: whether rows are permuted within windows.
    """

    windows: tuple[tuple[int, ...], ...]
    starts: tuple[int, ...]
    seed: int
    epoch: int
    shuffled: bool

    @property
    def num_entries(self) -> int:
        """Entries of the epoch, of all ranks together."""
        return self.starts[-1]

    def rows(self, window: int) -> Array:
        """Order in which the rows of a window are used, as int64."""
        count = self.starts[window + 1] - self.starts[window]
        if not self.shuffled:
            return np.arange(count)
        return _generator(self.seed, self.epoch, _ROW_ORDER, window).permutation(count)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """(window, from, to) for entries ``start`` to ``stop`` of the global sequence."""
        window = max(0, int(np.searchsorted(self.starts, start, side="right")) - 1)
        while start < stop:
            end = min(stop, self.starts[window + 1])
            if end > start:
                yield window, start - self.starts[window], end - self.starts[window]
                start = end
            window += 1


def plan_epoch(
    chunk_entries: Sequence[int],
    *,
    seed: int,
    epoch: int,
    shuffle: Shuffle,
    mix_chunks: int,
    order: Sequence[int] | None = None,
) -> EpochPlan:
    """The order of one epoch.

    Args:
        chunk_entries: entries of each chunk that take part.
        seed: of all epochs.
        epoch: which one.
        mix_chunks: chunks of a window under ``"block"``.
        shuffle: ``"block"`` permutes chunks and mixes ``mix_chunks`` of them at a time; ``"exact"`` is a
            uniform permutation of all entries; None keeps the stored order.
        order: the permutation of chunks under ``"block"``, if they come in a given one.
    """
    number = len(chunk_entries)
    if shuffle == "exact":
        windows = [tuple(range(number))]
    elif shuffle == "block":
        if order is None:
            order = _generator(seed, epoch, _CHUNK_ORDER, 0).permutation(number).tolist()
        windows = [tuple(w) for w in _even_parts(order, mix_chunks)]
    else:
        windows = [(n,) for n in range(number)]
    sizes = [sum(chunk_entries[n] for n in window) for window in windows]
    starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).tolist()
    return EpochPlan(tuple(windows), tuple(starts), seed, epoch, shuffle is not None)


def _even_parts(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """``order`` in parts of at most ``size``, none much smaller than the others: a small one mixes badly."""
    parts = max(1, -(-len(order) // size))
    cuts = np.linspace(0, len(order), parts + 1).astype(int).tolist()
    return (order[a:b] for a, b in itertools.pairwise(cuts))


def _generator(seed: int, epoch: int, purpose: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, purpose, number])))


def order_fingerprint() -> str:
    """Changes if this NumPy draws permutations otherwise than another: states of the two do not mix."""
    return "-".join(map(str, _generator(0, 0, 0, 0).permutation(6).tolist()))


@dataclass(frozen=True, slots=True)
class BatchCut:
    """How the global sequence becomes one rank's batches; all ranks have equally many.

    The entries left over after the last full global batch form a smaller one, split as evenly as can be
    (with fewer entries than ranks some get an empty batch), or are dropped with ``drop_last``.
    """

    num_entries: int
    batch_size: int
    rank: int
    world_size: int
    drop_last: bool

    @property
    def global_batch_size(self) -> int:
        """Entries of one step over all ranks."""
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        full, rest = divmod(self.num_entries, self.global_batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def entries(self, step: int) -> tuple[int, int]:
        """This rank's range of the global sequence in a step."""
        begin = step * self.global_batch_size
        size = min(self.global_batch_size, self.num_entries - begin)
        return begin + size * self.rank // self.world_size, begin + size * (self.rank + 1) // self.world_size


def in_split(start: int, stop: int, split: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """Which of the entries ``start`` to ``stop`` belong to a split.

    An entry's place in [0, 1) is a hash of its number (SplitMix64, Steele et al. 2014), so it is the same
    for every seed, epoch and machine.
    """
    with np.errstate(over="ignore"):
        z = np.arange(start, stop, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        place = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    low, high = (round(edge * (1 << 53)) for edge in split)
    return (place >= np.uint64(low)) & (place < np.uint64(high))
