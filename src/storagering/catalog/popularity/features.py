"""What is known of a dataset at the end of a week: nothing of a later week enters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from storagering.catalog.popularity.weeks import WeeklyAccesses
from storagering.errors import SpecError
from storagering.types import Array

_LAGS = 4
_SPANS = (4, 8, 13, 26)
_FAR = 52.0


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        accesses: a dataset is popular in a week with at least so many.
        window: only datasets that were read within so many weeks are asked about.

    Raises:
        SpecError: one of them is less than 1.
    """

    accesses: float = 10.0
    window: int = 26

    def __post_init__(self) -> None:
        if self.accesses < 1 or self.window < 1:
            raise SpecError(f"accesses {self.accesses}, window {self.window}: at least 1 is needed of both")


def asked(data: WeeklyAccesses, week: int, question: Question) -> Array:
    """Rows of the datasets that are asked about at the end of a week."""
    recent = data.counts[:, max(0, week - question.window + 1) : week + 1]
    return np.flatnonzero((recent > 0).any(axis=1))


def answers(data: WeeklyAccesses, week: int, rows: Array, question: Question) -> Array:
    """Whether each is popular in the week after; bool."""
    popular: Array = data.counts[rows, week + 1] >= question.accesses
    return popular


def feature_names(data: WeeklyAccesses) -> list[str]:
    """Names of the columns of `features`."""
    return [
        *(f"accesses_{lag}_weeks_ago" for lag in range(_LAGS)),
        *(f"mean_{span}_weeks" for span in _SPANS),
        *(f"popular_of_{span}_weeks" for span in _SPANS),
        *(f"read_of_{span}_weeks" for span in _SPANS),
        "maximum",
        "spread",
        "since_read",
        "since_popular",
        "age",
        "tier_popular",
        "all_popular",
        *(f"tier_{tier}" for tier in sorted(set(data.tiers))),
    ]


def features(data: WeeklyAccesses, week: int, rows: Array, question: Question) -> Array:
    """What the models learn from: (rows, features) float32; numbers of accesses as log(1 + n)."""
    past = data.counts[rows, : week + 1]
    logs, popular, read = np.log1p(past), past >= question.accesses, past > 0
    columns = [_lag(logs, lag) for lag in range(_LAGS)]
    columns += [np.log1p(past[:, -span:].mean(axis=1)) for span in _SPANS]
    columns += [popular[:, -span:].mean(axis=1) for span in _SPANS]
    columns += [read[:, -span:].mean(axis=1) for span in _SPANS]
    columns += [logs[:, -question.window :].max(axis=1, initial=0), logs[:, -8:].std(axis=1)]
    columns += [_since(read), _since(popular), _age(read)]
    tiers = np.asarray(data.tiers, dtype=object)[rows]
    columns += [_tier_share(tiers, popular[:, -1]), np.full(len(rows), popular[:, -1].mean() if len(rows) else 0.0)]
    columns += [tiers == tier for tier in sorted(set(data.tiers))]
    return np.column_stack(columns).astype(np.float32)


def _lag(logs: Array, lag: int) -> Array:
    if lag >= logs.shape[1]:
        return np.zeros(len(logs))
    column: Array = logs[:, -1 - lag]
    return column


def _since(happened: Array) -> Array:
    """Weeks since it happened last, at most 52."""
    backwards = happened[:, ::-1]
    weeks = np.where(backwards.any(axis=1), backwards.argmax(axis=1), _FAR)
    return np.minimum(weeks, _FAR)


def _age(read: Array) -> Array:
    """Weeks since it was read first, at most 52."""
    first = np.where(read.any(axis=1), read.shape[1] - 1 - read.argmax(axis=1), 0)
    return np.minimum(first, _FAR)


def _tier_share(tiers: Array, popular: Array) -> Array:
    """Of each dataset's tier, the share that is popular now."""
    share = np.zeros(len(tiers))
    for tier in set(tiers):
        share[tiers == tier] = popular[tiers == tier].mean()
    return share
