"""Drawing entries in proportion to their weights, in an order that is a pure function all the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from storagering.compiling import compiled
from storagering.errors import LoaderError, SpecError
from storagering.loaders.buffers import BufferPool
from storagering.loaders.exact import RandomRows, take_entries
from storagering.loaders.kernels import shuffle_segments
from storagering.loaders.plan import STREAMS, EpochPlan
from storagering.loaders.windows import Window
from storagering.types import Array

#: What the random numbers are for, beside the purposes that plans have.
_DRAWS = 4


@dataclass(frozen=True)
class WindowDraw:
    """Draws the rows of each stream of a window anew, from the same stream.

    Systematic resampling: of n rows one is drawn floor(e) or floor(e) + 1 times if e are expected, which is n times its
    share of the stream's weights (Carpenter, Clifford, Fearnhead: Improved particle filter for nonlinear problems,
    1999). So there are as many rows as before, and ranks that hold whole streams draw what one alone would.
    """

    plan: EpochPlan
    rank: int
    world_size: int
    pool: BufferPool

    def draw(self, number: int, window: Window, weights: Array) -> Window:
        """The window of that number with rows drawn by their weights; padding stays.

        Raises:
            LoaderError: a weight is negative or not finite, or all of a stream are 0.
        """
        streams = self.plan.streams(number, self.rank, self.world_size)
        own = weights[: len(streams)]
        if not (np.isfinite(own).all() and (own >= 0).all()):
            raise LoaderError("resample: a weight is negative or not finite, which is no share of anything")
        words = np.random.SeedSequence([self.plan.seed, self.plan.epoch, _DRAWS, number]).generate_state(
            STREAMS + 1, np.uint64
        )
        order = np.argsort(streams, kind="stable")
        first = int(streams.min(initial=STREAMS))
        edges = np.concatenate([[0], np.cumsum(np.bincount(streams)[first:])])
        drawn = np.empty(len(order), np.int64)
        if not draw_segments(own[order], edges, words[first:], drawn):
            raise LoaderError(
                "resample: all entries of a part of a window have the weight 0; leave those out with where=..."
            )
        shuffle_segments(drawn, edges, first, words[-1])
        rows = np.arange(window.bounds[-1])
        rows[order] = order[drawn]
        return Window(tuple(take_entries(r, rows, self.pool) for r in window.rows), window.bounds, window.padding)


class DrawnRows:
    """Random rows, each the one that was drawn in its place; see `RandomRows`.

    Args:
        rows: all that take part.
        drawn: the number of the one that stands for each, as `draw_all` gives it.
    """

    def __init__(self, rows: RandomRows, drawn: Array) -> None:
        self._rows, self._drawn = rows, drawn

    def take(self, numbers: Array) -> Window:
        """See `RandomRows.take`."""
        return self._rows.take(np.where(numbers >= 0, self._drawn[numbers], -1))


def draw_all(weights: Array, seed: int, epoch: int) -> Array:
    """As many entries as there are, drawn by their weights; in an exact shuffle, they come in any order."""
    words = np.random.SeedSequence([seed, epoch, _DRAWS]).generate_state(1, np.uint64)
    drawn = np.empty(len(weights), np.int64)
    draw_segments(weights, np.array([0, len(weights)]), words, drawn)
    return drawn


def check_weights(weights: Array) -> Array:
    """The weights, if `draw_all` can draw by them.

    Raises:
        SpecError: one is negative or not finite, or all are 0.
    """
    if not (np.isfinite(weights).all() and (weights >= 0).all()) or (len(weights) and not weights.any()):
        raise SpecError("resample: weights are finite, none negative and not all 0")
    return weights


@compiled
def draw_segments(weights: Array, edges: Array, words: Array, drawn: Array) -> bool:
    """Draw as many of each segment as it has, by weight, beginning where its word says; False if all weights are 0."""
    for segment in range(len(edges) - 1):
        start, stop = edges[segment], edges[segment + 1]
        total, last = 0.0, start
        for number in range(start, stop):
            total += weights[number]
            if weights[number] > 0.0:
                last = number
        if stop > start and not total > 0.0:
            return False
        step = total / max(1, stop - start)
        at = (words[segment] >> np.uint64(11)) * (step / 9007199254740992.0)
        number, reached = start, 0.0
        for slot in range(start, stop):
            while number < last and (weights[number] == 0.0 or reached + weights[number] <= at):
                reached += weights[number]
                number += 1
            drawn[slot] = number
            at += step
    return True
