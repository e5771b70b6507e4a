"""What becomes of a window between decoding and batches: entries drawn by weight, weights, standardised values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from storagering.loaders.feed import Group
from storagering.loaders.resampling import WindowDraw
from storagering.loaders.scaling import Scaling
from storagering.loaders.sources import WindowSource
from storagering.loaders.weights import Weigher
from storagering.loaders.windows import Rows, Window
from storagering.types import Array, Column, Part

#: The key under which batches have weights, and the group that they are.
WEIGHT = "weight"
WEIGHT_GROUP = Group(
    WEIGHT, (Column(WEIGHT, "float32", "flat", "", "", "", WEIGHT, (Part("", "data", "<f4", (), ""),)),), stacked=False
)


@dataclass(frozen=True)
class Adjusting:
    """What is done with windows.

    Attributes:
        asked: how many groups were asked for; the others hold one column each that weights need.
        names: of these columns.
        scaling: of the groups asked for, None where nothing is scaled.
        drawn: gives the weights by which entries are drawn; None if they are taken as they are.
        weigher: gives the weights that batches have; None if these have none.
    """

    asked: int
    names: tuple[str, ...]
    scaling: Sequence[Scaling | None]
    drawn: Weigher | None
    weigher: Weigher | None

    def adjust(self, draw: WindowDraw | None, number: int, window: Window) -> Window:
        """The window of that number, with the group of weights last.

        Args:
            draw: how entries are drawn, if that is left to be done.
        """
        if draw is not None and self.drawn is not None:
            window = draw.draw(number, window, self._weigh(self.drawn, window))
        rows = list(window.rows[: self.asked])
        if self.weigher is not None:
            weights = self._weigh(self.weigher, window)
            weights[len(weights) - window.padding :] = 0
            rows.append(Rows(weights.astype(np.float32), None))
        entries = window.bounds[-1] - window.padding
        for own, scaling in zip(window.rows, self.scaling, strict=False):
            if scaling is not None:
                scaling.apply(own.values[: entries if own.offsets is None else None])
        return Window(tuple(rows), window.bounds, window.padding)

    def _weigh(self, weigher: Weigher, window: Window) -> Array:
        columns = dict(zip(self.names, (rows.values for rows in window.rows[self.asked :]), strict=True))
        return weigher.weigh(columns, window.bounds[-1])


class AdjustedWindows:
    """The windows of another source, adjusted; see `storagering.loaders.sources.WindowSource`."""

    def __init__(self, source: WindowSource, adjusting: Adjusting, draw: WindowDraw | None) -> None:
        self._source, self._adjusting, self._draw = source, adjusting, draw
        self.at_once, self.ahead = source.at_once, source.ahead

    def is_ready(self, number: int) -> bool:
        """See `WindowSource.is_ready`."""
        return self._source.is_ready(number)

    def make(self, number: int) -> Window:
        """See `WindowSource.make`."""
        return self._adjusting.adjust(self._draw, number, self._source.make(number))
