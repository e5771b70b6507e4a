"""Popularity in one call: judge the models on the last weeks, and say what the best of them expects of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from storagering.catalog.popularity.features import Question
from storagering.catalog.popularity.models import FAVOURITE, MODELS
from storagering.catalog.popularity.rolling import predict, roll
from storagering.catalog.popularity.table import Line, best_model, make_table
from storagering.catalog.popularity.weeks import WeeklyAccesses


@dataclass(frozen=True)
class Forecast:
    """What was found.

    Attributes:
        table: how the models did in the weeks that were predicted; empty if none was to be.
        model: the one that did best there, which made the scores.
        week: the week that they are for.
        scores: dataset -> from 0 to 1; only of those that were read within the window.
    """

    table: tuple[Line, ...]
    model: str
    week: int
    scores: dict[str, float]


def forecast(
    data: WeeklyAccesses,
    *,
    question: Question | None = None,
    weeks: int = 20,
    models: Sequence[str] = MODELS,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Forecast:
    """Judge the models on the last weeks, and predict the week after with the best.

    Args:
        weeks: how many weeks they are judged on; 0 for none, which takes the forest unseen.

    Raises:
        SpecError: there are too few weeks.
        MissingExtraError: scikit-learn or XGBoost is not installed.
    """
    question = question or Question()
    table: list[Line] = []
    best = FAVOURITE
    if weeks:
        rolled = roll(
            data, question=question, weeks=weeks, models=models, seed=seed, threads=threads, progress=progress
        )
        table = make_table(rolled)
        best = best_model(table).model
    scores = predict(data, model=best, question=question, seed=seed, threads=threads)
    return Forecast(tuple(table), best, data.first_week + data.num_weeks, scores)
