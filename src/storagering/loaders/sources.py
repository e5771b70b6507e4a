"""Where the windows of an epoch come from: blocks of chunks, or entries from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from storagering.errors import CorruptDataError
from storagering.loaders.exact import RandomRows
from storagering.loaders.plan import EpochPlan
from storagering.loaders.supply import ChunkSupply
from storagering.loaders.windows import Window, WindowMaker


class WindowSource(Protocol):
    """Makes the windows of one rank's epoch; safe to use from several threads.

    Attributes:
        at_once: how many may be made at the same time.
        ahead: how many are made before they are needed.
    """

    at_once: int
    ahead: int

    def is_ready(self, number: int) -> bool:
        """Whether all that a window needs is there."""

    def make(self, number: int) -> Window:
        """A window.

        Raises:
            CorruptDataError: a chunk is damaged.
        """


class BlockWindows:
    """Windows of chunks, each decoded once."""

    def __init__(self, plan: EpochPlan, place: tuple[int, int], supply: ChunkSupply, maker: WindowMaker) -> None:
        self._plan, self._place, self._supply, self._maker = plan, place, supply, maker
        # Chunks that come and go are held for one window at a time: there may be room for no more. Else two, so that
        # threads have something to do while one of them is begun or ended.
        self.at_once, self.ahead = (2 if supply.is_settled else 1), 1

    def is_ready(self, number: int) -> bool:
        """See `WindowSource.is_ready`."""
        return all(self._supply.is_ready(unit) for unit in self._plan.units(number))

    def make(self, number: int) -> Window:
        """See `WindowSource.make`."""
        share = self._plan.share(number, *self._place)
        chunks = [chunk for piece in share.pieces for chunk in self._supply.chunks(piece.unit)]
        with self._supply.held(chunks):
            try:
                return self._maker.make(share)
            except CorruptDataError:
                if not self._supply.mend(chunks):
                    raise
                return self._maker.make(share)


class ExactWindows:
    """Entries from anywhere, some batches at a time.

    Args:
        rows: gives where they come from; told True, anew, because chunks were replaced.
    """

    def __init__(
        self,
        plan: EpochPlan,
        place: tuple[int, int],
        supply: ChunkSupply,
        rows: Callable[[bool], RandomRows],
        threads: int,
    ) -> None:
        self._plan, self._place, self._supply, self._rows = plan, place, supply, rows
        self.at_once, self.ahead = threads, threads + 2

    def is_ready(self, number: int) -> bool:  # noqa: ARG002  (the dataset is complete)
        """See `WindowSource.is_ready`."""
        return True

    def make(self, number: int) -> Window:
        """See `WindowSource.make`."""
        first = number * self._plan.window_batches
        steps = range(first, min(first + self._plan.window_batches, self._plan.num_steps))
        batches = [self._plan.exact(step, *self._place) for step in steps]
        bounds = np.cumsum([0, *map(len, batches)]).tolist()
        numbers = np.concatenate(batches)
        try:
            window = self._rows(False).take(numbers)
        except CorruptDataError:
            chunks = [chunk for unit in range(len(self._supply.entries)) for chunk in self._supply.chunks(unit)]
            if not self._supply.mend(chunks):
                raise
            window = self._rows(True).take(numbers)
        return Window(window.rows, tuple(bounds), window.padding)
