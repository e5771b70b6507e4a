"""How often datasets will be used next, from how often they were: decayed means, with a half-life that is learnt."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from storagering.errors import SpecError
from storagering.simulation.trace import Trace
from storagering.types import Array

_KEPT = 0.9  # of the errors of late from one period to the next
_PERIODS = (0.5, 1.0, 2.0, 4.0, 8.0, 32.0)
_WEEK_SECONDS = 604_800.0


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Expected uses of each dataset, renewed now and then.

    Attributes:
        times: from which on each row holds (k), rising.
        values: (k, datasets).

    Raises:
        SpecError: these do not fit, or are not numbers.
    """

    times: Array
    values: Array

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.times) != len(self.values) or (np.diff(self.times) < 0).any():
            raise SpecError(f"{len(self.times)} times for scores of shape {self.values.shape}: give a row for each")
        if not np.isfinite(self.values).all():
            raise SpecError("scores are not finite numbers")


class DriftPredictor:
    """Next period's counts of many things, as decayed means of those before.

    Of several half-lives the one is taken whose predictions had the smallest squared errors of late.
    """

    def __init__(self, things: int) -> None:
        self._keep = 0.5 ** (1 / np.array(_PERIODS))[:, None]
        self._sums = np.zeros((len(_PERIODS), things))
        self._weights = np.zeros((len(_PERIODS), 1))
        self._errors = np.zeros(len(_PERIODS))

    @property
    def half_life(self) -> float:
        """The one that is believed now, in periods."""
        return _PERIODS[self._best]

    def update(self, counts: Array) -> None:
        """Learn the counts (things) of the period that ends now."""
        if self._weights[0, 0] > 0:
            self._errors = _KEPT * self._errors + ((self._means() - counts) ** 2).mean(axis=1)
        self._sums = self._keep * self._sums + counts
        self._weights = self._keep * self._weights + 1

    def predict(self) -> Array:
        """Expected counts (things) of the period that begins now."""
        means: Array = self._means()[self._best]
        return means

    @property
    def _best(self) -> int:
        return int(np.argmin(self._errors))

    def _means(self) -> Array:
        return self._sums / np.maximum(self._weights, 1e-300)


def predict_scores(trace: Trace, *, period_seconds: float | None = None) -> Scores:
    """Expected uses of each dataset in each period, from those before it.

    Args:
        period_seconds: a week without it, or a fiftieth of a trace that lasts less than ten weeks.

    Raises:
        SpecError: a period that is not above 0.
    """
    if period_seconds is not None and not period_seconds > 0:
        raise SpecError(f"a period of {period_seconds} s: give one above 0")
    groups = int(trace.groups.max(initial=-1)) + 1
    if not len(trace):
        return Scores(np.zeros(0), np.zeros((0, groups)))
    begin, span = trace.times[0], float(trace.times[-1] - trace.times[0])
    period = period_seconds or (_WEEK_SECONDS if span >= 10 * _WEEK_SECONDS else max(span / 50, 1e-9))
    edges = begin + period * np.arange(1, int(span / period) + 1)
    cuts = [0, *np.searchsorted(trace.times, edges).tolist()]
    predictor, rows = DriftPredictor(groups), []
    for start, stop in pairwise(cuts):
        predictor.update(np.bincount(trace.groups[trace.items[start:stop]], minlength=groups))
        rows.append(predictor.predict())
    return Scores(edges, np.array(rows).reshape(len(edges), groups))
