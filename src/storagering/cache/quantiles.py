"""What a sketch tells: quantiles, and a histogram for pictures.

Numbers of a bucket are taken to lie evenly in it, between the least and the largest number of all, so what is told of
any one of them is at most 2^-7 of it away (of numbers below the normal ones of their type: 2^-7 of the least of those).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from storagering.cache.buckets import bounds_of
from storagering.cache.sketches import Sketch, Sketches
from storagering.distributions import MOST_BINS, PROBABILITIES, Distribution, split
from storagering.errors import SpecError
from storagering.types import Array, Column, ColumnStatistics, Manifest, Schema

#: Pictures reach beyond the first and the last percentile by this share of what lies between them.
_BEYOND = 0.5


class Spread:
    """A sketch of some numbers, with the least and the largest of them.

    Args:
        integral: whether they are integers.
    """

    def __init__(self, sketch: Sketch, low: float, high: float, *, integral: bool) -> None:
        self._sketch, self._low, self._high, self._integral = sketch, low, high, integral
        self._ends = np.cumsum(sketch.counts)
        begins, ends = bounds_of(sketch.buckets)
        if integral:  # the least and the largest of each bucket
            begins = np.where(sketch.buckets < 0, np.floor(begins) + 1, np.ceil(begins))
            ends = np.where(sketch.buckets < 0, np.floor(ends), np.ceil(ends) - 1)
            begins, ends = np.where(sketch.buckets == 0, 0.0, (begins, ends))
        self._begins, self._stops = np.clip((begins, ends), low, high)

    def quantiles(self, probabilities: Iterable[float]) -> list[float]:
        """As `numpy.quantile` interpolates: between the numbers of the two nearest ranks.

        Raises:
            SpecError: a probability is not within 0 and 1.
        """
        return [self._quantile(float(probability)) for probability in probabilities]

    def _quantile(self, probability: float) -> float:
        if not 0 <= probability <= 1:
            raise SpecError(f"probability {probability}: a quantile is taken at 0 to 1")
        rank = probability * (self._total - 1)
        before = math.floor(rank)
        share = rank - before
        low, high = self._number(before), self._number(math.ceil(rank))
        return min(max(low * (1 - share) + high * share, low), high)

    @property
    def _total(self) -> int:
        return int(self._ends[-1])

    def _number(self, rank: int) -> float:
        """The number of that rank, from 0."""
        if rank in (0, self._total - 1):
            return self._high if rank else self._low
        place = int(np.searchsorted(self._ends, rank, side="right"))
        if len(self._sketch.values):
            return float(self._sketch.values[place])
        count = int(self._sketch.counts[place])
        share = (rank - int(self._ends[place]) + count + 0.5) / count
        begin, stop = float(self._begins[place]), float(self._stops[place])
        return begin + (stop - begin) * share

    def distribution(self) -> Distribution:
        """Some quantiles, and a histogram."""
        quantiles = tuple(self.quantiles(PROBABILITIES))
        values = tuple(self._sketch.values.tolist())
        if values:
            ends = (self._low, self._low, self._high, self._high)
            return Distribution(quantiles, ends, tuple(self._sketch.counts.tolist()), values)
        low, high, bins = self._limits(quantiles[0], quantiles[-1])
        below = self._count_below(np.array(split(low, high, bins)))
        if high >= self._high + self._integral:
            below[-1] = self._total
        counts = np.diff(below, prepend=0, append=self._total)
        return Distribution(quantiles, (self._low, low, high, self._high), tuple(counts.tolist()))

    def _limits(self, first: float, last: float) -> tuple[float, float, int]:
        """Where bins begin and end, and how many they are: two are left for what is beyond."""
        beyond = (last - first) * _BEYOND
        low, high = self._low, self._high
        if beyond:
            low, high = max(low, first - beyond), min(high, last + beyond)
        bins = MOST_BINS - 2
        if self._integral:  # each bin holds as many integers as the others
            low, end = math.floor(low), math.floor(high) + 1
            width = math.ceil((end - low) / bins)
            bins = math.ceil((end - low) / width)
            high = max(end, low + width * bins)  # large integers are rounded
        return float(low), float(high), bins if high > low else 1

    def _count_below(self, edges: Array) -> Array:
        """How many numbers are less than each of the edges, which rise."""
        places = np.maximum(np.searchsorted(self._begins, edges) - 1, 0)
        begins, widths = self._begins[places], (self._stops - self._begins)[places] + self._integral
        counts = self._sketch.counts[places]
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            shares = np.where(widths > 0, np.clip((edges - begins) / widths, 0.0, 1.0), edges > begins)
        below: Array = self._ends[places] - counts + np.rint(counts * shares).astype(np.int64)
        return below


def find_distributions(
    schema: Schema, statistics: Sequence[ColumnStatistics | None], sketches: Sketches
) -> tuple[Distribution | None, ...]:
    """Of every column in schema order, None for those without finite numbers."""
    spreads = [spread_of(c, s, sketches.of(n)) for n, (c, s) in enumerate(zip(schema.columns, statistics, strict=True))]
    return tuple(None if spread is None else spread.distribution() for spread in spreads)


def spread_of(column: Column, statistics: ColumnStatistics | None, sketch: Sketch) -> Spread | None:
    """How the numbers of a column lie, None if there are none."""
    if statistics is None or statistics.min is None or statistics.max is None:
        return None
    return Spread(sketch, statistics.min, statistics.max, integral=column.parts[-1].dtype[1] in "biu")


def column_sketch_rows(manifest: Manifest) -> list[dict[str, Any]]:
    """For the catalog: ``quantiles`` and ``histogram`` of every column in schema order, None where there are none."""
    return [
        {
            "quantiles": list(found.quantiles) if found else None,
            "histogram": [{"low": b.low, "high": b.high, "count": b.count} for b in found.bins] if found else None,
        }
        for found in manifest.distributions
    ]
