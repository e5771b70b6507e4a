"""Which entries of a dataset take part in a training, whatever the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from storagering.loaders.plan import in_split
from storagering.loaders.supply import ChunkSupply
from storagering.types import Array, Chunk


class Taking:
    """All entries, or those of a split."""

    def __init__(self, split: tuple[float, float] | None = None) -> None:
        self._split = split

    def rows(self, chunk: Chunk) -> Array | None:
        """The chunk's entries that take part, in order; None for all."""
        return None if self._split is None else np.flatnonzero(in_split(chunk.start, chunk.stop, self._split))

    def count(self, supply: ChunkSupply) -> Sequence[int]:
        """How many entries of each unit take part."""
        if self._split is None:
            return supply.entries
        bounds = pairwise(accumulate(supply.entries, initial=0))
        return [int(in_split(start, stop, self._split).sum()) for start, stop in bounds]
