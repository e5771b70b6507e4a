"""How the numbers of a column are distributed, in short: some quantiles, and a histogram for pictures."""

from __future__ import annotations

from dataclasses import dataclass
from math import isinf

#: Of the quantiles that manifests hold.
PROBABILITIES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
#: Bins that a histogram has at most, and values that are counted one by one.
MOST_BINS = 64


@dataclass(frozen=True, slots=True)
class Bin:
    """Numbers from ``low`` up to ``high``, without that; the last bin with it, and so one of a single value.

    Attributes:
        count: how many there are.
    """

    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """The finite numbers of a column; bools count as 0 and 1.

    Attributes:
        quantiles: at `PROBABILITIES`.
        limits: the least number, where bins of equal width begin and end, and the largest number.
        counts: of numbers below these bins, in each of them, and above them; or of each of ``values``.
        values: all there are, if they are few; else empty.
    """

    quantiles: tuple[float, ...]
    limits: tuple[float, float, float, float]
    counts: tuple[int, ...]
    values: tuple[float, ...] = ()

    @property
    def bins(self) -> tuple[Bin, ...]:
        """At most `MOST_BINS`, rising, which hold every number: of equal width but for a first and a last one.

        Few values have a bin of their own each, from the value to itself.
        """
        if self.values:
            return tuple(Bin(value, value, count) for value, count in zip(self.values, self.counts, strict=True))
        least, low, high, most = self.limits
        below, *inside, above = self.counts
        edges = split(low, high, len(inside))
        found = [Bin(*item) for item in zip(edges, edges[1:], inside, strict=False)]
        first = [Bin(least, low, below)] if below else []
        return (*first, *found, *([Bin(high, most, above)] if above else []))

    @property
    def is_sound(self) -> bool:
        """Whether its numbers fit each other: manifests come from elsewhere, too."""
        bins = len(self.values) or len(self.counts) - 2
        fit = len(self.values) in (0, len(self.counts))
        return len(self.quantiles) == len(PROBABILITIES) and fit and 0 < bins <= MOST_BINS and min(self.counts) >= 0


def split(low: float, high: float, parts: int) -> list[float]:
    """The edges of so many intervals of equal width, which never fall."""
    shares = [number / parts for number in range(1, parts)]
    if isinf(high - low):
        return [low, *(low * (1 - share) + high * share for share in shares), high]
    return [low, *(min(low + (high - low) * share, high) for share in shares), high]
