"""Judging models as time goes on: each week is predicted by what was known before it, never by a random split.

A model's threshold is the one that was best for the weeks before, of which it had made predictions in the same way: no
model chooses its threshold on rows that it has learnt from, nor on a week that is still to come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from storagering.catalog.popularity.features import Question, answers, asked, features
from storagering.catalog.popularity.models import MODELS, PERSISTENCE, Model, fit
from storagering.catalog.popularity.weeks import WeeklyAccesses
from storagering.errors import SpecError
from storagering.types import Array

#: Weeks whose predictions tell the threshold.
_SETTLING = 12
#: A model learns anew after so many weeks.
_RENEWED = 4
#: Fewest weeks to learn from.
_LEAST = 4
#: Thresholds that are as good as the best, within this.
_TIE = 0.002


@dataclass(frozen=True)
class Outcome:
    """What a model said of the datasets of one tier in one week, and what came.

    Attributes:
        week: the week that was predicted.
    """

    model: str
    tier: str
    week: int
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int


@dataclass(frozen=True)
class _Week:
    """What is asked at the end of a week, with its features and answers."""

    week: int
    rows: Array
    features: Array
    popular: Array


def roll(
    data: WeeklyAccesses,
    *,
    question: Question | None = None,
    weeks: int = 20,
    models: Sequence[str] = MODELS,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """Predict the last weeks of the data, one after the other.

    Args:
        weeks: how many are predicted; twelve more before them settle the thresholds.
        progress: called with the number of weeks that are done, of `rolled_weeks`.

    Returns:
        An outcome for each model, tier and predicted week.

    Raises:
        SpecError: there are too few weeks.
        MissingExtraError: scikit-learn or XGBoost is not installed.
    """
    question = question or Question()
    first = data.num_weeks - 1 - rolled_weeks(weeks)
    if weeks < 1 or first < _LEAST:
        least = rolled_weeks(weeks) + _LEAST + 1
        raise SpecError(f"{data.num_weeks} weeks are too few to predict {weeks} of them; at least {least} are needed")
    known = [_week(data, week, question) for week in range(data.num_weeks - 1)]
    found: list[Outcome] = []
    said: dict[str, list[tuple[Array, Array]]] = {name: [] for name in models}
    learnt: dict[str, Model] = {}
    for done, at in enumerate(range(first, len(known)), 1):
        for name in models:
            if done % _RENEWED == 1:
                learnt[name] = _learn(name, known[:at], question, seed, threads)
            scores = learnt[name].score(known[at].features)
            if done > _SETTLING:
                positive = scores >= _threshold(name, said[name][-_SETTLING:])
                found += _compare(data, name, known[at], positive)
            said[name].append((scores, known[at].popular))
        if progress is not None:
            progress(done)
    return found


def rolled_weeks(weeks: int) -> int:
    """How many weeks are predicted in all, for so many that count."""
    return weeks + _SETTLING


def predict(
    data: WeeklyAccesses, *, model: str, question: Question | None = None, seed: int = 0, threads: int = 1
) -> dict[str, float]:
    """What is expected of the week after the data: dataset -> score from 0 to 1.

    Of datasets that nobody has read within the window nothing is said.

    Raises:
        SpecError: there are too few weeks to learn from, or no such model.
        MissingExtraError: scikit-learn or XGBoost is not installed.
    """
    question = question or Question()
    if model not in MODELS:
        raise SpecError(f"no model {model!r}: choose one of {', '.join(MODELS)}")
    last = data.num_weeks - 1
    if model != PERSISTENCE and last < _LEAST:
        raise SpecError(f"{data.num_weeks} weeks are too few for {model!r}; 'persistence' needs one")
    known = [_week(data, week, question) for week in range(last)] if model != PERSISTENCE else []
    rows = asked(data, last, question)
    scores = _learn(model, known, question, seed, threads).score(features(data, last, rows, question))
    return {data.datasets[row]: float(score) for row, score in zip(rows, scores, strict=True)}


def _week(data: WeeklyAccesses, week: int, question: Question) -> _Week:
    rows = asked(data, week, question)
    return _Week(week, rows, features(data, week, rows, question), answers(data, week, rows, question))


def _learn(name: str, weeks: Sequence[_Week], question: Question, seed: int, threads: int) -> Model:
    if name == PERSISTENCE or not weeks:
        return fit(PERSISTENCE, np.empty((0, 1)), np.empty(0, bool), question, seed=seed, threads=threads)
    rows = np.concatenate([week.features for week in weeks])
    popular = np.concatenate([week.popular for week in weeks])
    return fit(name, rows, popular, question, seed=seed, threads=threads)


def _threshold(name: str, said: Sequence[tuple[Array, Array]]) -> float:
    """Where balanced accuracy was highest; the middle one of those that are as good."""
    if name == PERSISTENCE:
        return 0.5
    scores, popular = (np.concatenate(parts) for parts in zip(*said, strict=True))
    if popular.all() or not popular.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    hits, alarms = np.cumsum(popular[order]), np.cumsum(~popular[order])
    balanced = (hits / popular.sum() + 1 - alarms / (~popular).sum()) / 2
    ends = np.append(np.diff(scores[order]) < 0, True)
    good = scores[order][ends & (balanced >= balanced[ends].max() - _TIE)]
    return float(np.median(good))


def _compare(data: WeeklyAccesses, name: str, week: _Week, positive: Array) -> list[Outcome]:
    tiers = np.asarray(data.tiers, dtype=object)[week.rows]
    found = []
    for tier in sorted(set(tiers)):
        said, came = positive[tiers == tier], week.popular[tiers == tier]
        counts = [int((a & b).sum()) for a, b in ((said, came), (said, ~came), (~said, ~came), (~said, came))]
        found.append(Outcome(name, tier, data.first_week + week.week + 1, *counts))
    return found
