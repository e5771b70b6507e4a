"""The table of the rolling weeks: true positive and negative rates with errors, for each tier and model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from storagering.catalog.popularity.models import PERSISTENCE
from storagering.catalog.popularity.rolling import Outcome

#: The tier of all tiers together.
ALL = "all tiers"


@dataclass(frozen=True)
class Rate:
    """A share, with two errors.

    Attributes:
        value: NaN where nothing was to be counted.
        binomial: of a share of independent datasets, sqrt(p (1 - p) / n).
        weekly: by leaving out one week after the other (jackknife): what one week does is common to its datasets.
    """

    value: float
    binomial: float
    weekly: float


@dataclass(frozen=True)
class Line:
    """What a model did with the datasets of one tier, over all weeks.

    Attributes:
        tpr, tnr: of the popular (others) the share that was found.
        gain: in balanced accuracy over persistence, week by week the same datasets; NaN for persistence itself.
    """

    model: str
    tier: str
    weeks: int
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    tpr: Rate
    tnr: Rate
    balanced_accuracy: Rate
    gain: Rate


def make_table(outcomes: Sequence[Outcome]) -> list[Line]:
    """A line for each model and tier, and one of all tiers together where there are several."""
    models = list(dict.fromkeys(one.model for one in outcomes))
    tiers = sorted({one.tier for one in outcomes})
    shown = [*tiers, ALL] if len(tiers) > 1 else tiers
    return [_line(model, tier, outcomes) for tier in shown for model in models]


def best_model(table: Iterable[Line]) -> Line:
    """The line with the highest balanced accuracy over all tiers."""
    lines = list(table)
    whole = [line for line in lines if line.tier == ALL] or lines
    return max(
        whole, key=lambda line: -math.inf if math.isnan(line.balanced_accuracy.value) else line.balanced_accuracy.value
    )


def _line(model: str, tier: str, outcomes: Sequence[Outcome]) -> Line:
    of_tier = [one for one in outcomes if tier in (one.tier, ALL)]
    weeks = sorted({one.week for one in of_tier})
    ours, base = (_by_week([one for one in of_tier if one.model == name], weeks) for name in (model, PERSISTENCE))
    total = _sum(ours)
    tp, fp, tn, fn = total
    return Line(
        model,
        tier,
        len(weeks),
        *total,
        tpr=_rate(_tpr, ours, _binomial(tp, tp + fn)),
        tnr=_rate(_tnr, ours, _binomial(tn, tn + fp)),
        balanced_accuracy=_rate(_balanced, ours, _half(_binomial(tp, tp + fn), _binomial(tn, tn + fp))),
        gain=_gain(ours, base) if model != PERSISTENCE and any(map(sum, base)) else Rate(math.nan, math.nan, math.nan),
    )


_Counts = tuple[int, int, int, int]


def _by_week(outcomes: Iterable[Outcome], weeks: Sequence[int]) -> list[_Counts]:
    found: dict[int, list[_Counts]] = {week: [] for week in weeks}
    for one in outcomes:
        counts = (one.true_positives, one.false_positives, one.true_negatives, one.false_negatives)
        found[one.week].append(counts)
    return [_sum(counts) for counts in found.values()]


def _sum(counts: Iterable[_Counts]) -> _Counts:
    tp, fp, tn, fn = (sum(column) for column in zip((0, 0, 0, 0), *counts, strict=True))
    return tp, fp, tn, fn


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _tpr(counts: _Counts) -> float:
    return _share(counts[0], counts[0] + counts[3])


def _tnr(counts: _Counts) -> float:
    return _share(counts[2], counts[2] + counts[1])


def _balanced(counts: _Counts) -> float:
    return (_tpr(counts) + _tnr(counts)) / 2


def _binomial(part: int, whole: int) -> float:
    p = _share(part, whole)
    return math.sqrt(p * (1 - p) / whole) if whole else math.nan


def _half(first: float, second: float) -> float:
    return math.hypot(first, second) / 2


def _rate(measure: Callable[[_Counts], float], weeks: Sequence[_Counts], binomial: float) -> Rate:
    left = [measure(_sum([*weeks[:n], *weeks[n + 1 :]])) for n in range(len(weeks))]
    return Rate(measure(_sum(weeks)), binomial, _jackknife(left))


def _gain(ours: Sequence[_Counts], base: Sequence[_Counts]) -> Rate:
    def gain(left_out: int | None) -> float:
        keep = [n for n in range(len(ours)) if n != left_out]
        return _balanced(_sum([ours[n] for n in keep])) - _balanced(_sum([base[n] for n in keep]))

    return Rate(gain(None), math.nan, _jackknife([gain(n) for n in range(len(ours))]))


def _jackknife(left: Sequence[float]) -> float:
    known = [value for value in left if not math.isnan(value)]
    if len(known) < 2:
        return math.nan
    mean = sum(known) / len(known)
    return math.sqrt((len(known) - 1) / len(known) * sum((value - mean) ** 2 for value in known))
