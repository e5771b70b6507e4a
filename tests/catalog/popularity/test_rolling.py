"""Nothing of a later week enters what is said of it; learnt models find what is to be found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.extras import needs

from storagering.catalog.popularity.features import Question, answers, asked, feature_names, features
from storagering.catalog.popularity.forecast import forecast
from storagering.catalog.popularity.models import MODELS, PERSISTENCE
from storagering.catalog.popularity.rolling import Outcome, predict, roll, rolled_weeks
from storagering.catalog.popularity.table import ALL, Line, best_model, make_table
from storagering.catalog.popularity.weeks import WeeklyAccesses, read_csv
from storagering.config import load_settings
from storagering.errors import SpecError
from storagering.testing.gridlogs.weekly import NEW_TIER, make_weekly_accesses

pytestmark = needs("sklearn", "xgboost")


def until(data: WeeklyAccesses, weeks: int) -> WeeklyAccesses:
    return replace(data, counts=data.counts[:, :weeks])


@given(seed=st.integers(0, 1000), week=st.integers(0, 11), window=st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_features_know_nothing_of_later_weeks(seed: int, week: int, window: int) -> None:
    data, question = make_weekly_accesses(seed=seed, weeks=12, per_tier=5), Question(window=window)
    rows = asked(data, week, question)
    known = features(data, week, rows, question)
    assert known.shape == (len(rows), len(feature_names(data)))
    assert np.isfinite(known).all()
    changed = data.counts.copy()
    changed[:, week + 1 :] = np.random.default_rng(seed).integers(0, 1000, changed[:, week + 1 :].shape)
    other = replace(data, counts=changed)
    assert (asked(other, week, question) == rows).all()
    assert (features(other, week, rows, question) == known).all()


def test_questions() -> None:
    data = WeeklyAccesses(("a", "b", "c"), ("T", "T", "T"), np.array([[10.0, 0, 9], [0, 0, 50], [0, 0, 0]]))
    question = Question(accesses=10, window=1)
    assert asked(data, 0, question).tolist() == [0]
    assert asked(data, 1, question).tolist() == []
    assert asked(data, 1, Question(window=2)).tolist() == [0]
    assert answers(data, 1, np.array([0, 1]), question).tolist() == [False, True]
    with pytest.raises(SpecError, match="at least 1"):
        Question(accesses=0)


def test_a_week_is_judged_without_those_after_it() -> None:
    data = make_weekly_accesses(seed=4, weeks=26, per_tier=8)
    models = [PERSISTENCE, "sgd", "xgboost"]
    whole = roll(data, weeks=4, models=models)
    before = roll(until(data, 24), weeks=2, models=models)
    assert [one for one in whole if one.week < 24] == before


def test_persistence_is_what_it_says() -> None:
    data = make_weekly_accesses(seed=5, weeks=30, per_tier=10)
    found = [one for one in roll(data, weeks=5, models=[PERSISTENCE]) if one.tier == "AOD"]
    for one in found:
        rows = [row for row in asked(data, one.week - 1, Question()) if data.tiers[row] == "AOD"]
        said, came = (data.counts[rows, week] >= 10 for week in (one.week - 1, one.week))
        assert one.true_positives == (said & came).sum()
        assert one.false_negatives == (~said & came).sum()
    scores = predict(data, model=PERSISTENCE)
    assert {name: float(score >= 0.5) for name, score in scores.items()} == {
        data.datasets[row]: float(data.counts[row, -1] >= 10) for row in asked(data, data.num_weeks - 1, Question())
    }


@pytest.mark.parametrize("models", [(PERSISTENCE, "sgd", "xgboost"), pytest.param(MODELS, marks=pytest.mark.soak)])
def test_the_shape_of_five_tiers_of_which_one_is_new(models: tuple[str, ...]) -> None:
    """As CMS saw it when MINIAOD was new: of what was popular .93 to .97 is found in old tiers, .11 in it."""
    table = make_table(roll(make_weekly_accesses(seed=0, weeks=44, per_tier=40), weeks=8, models=models))
    by_tier = {(line.model, line.tier): line for line in table}
    for model in models:
        new, known = (
            by_tier[model, NEW_TIER],
            [by_tier[model, tier] for tier in ("AOD", "AODSIM", "MINIAODSIM", "USER")],
        )
        least = 0.8 if model == "sgd" else 0.9  # of few datasets a linear model learns less
        assert new.tpr.value < 0.4
        assert all(line.tpr.value >= least and line.tnr.value > 0.95 for line in known)
    assert sum(by_tier["xgboost", tier].true_positives for tier in {line.tier for line in table} - {ALL}) == (
        by_tier["xgboost", ALL].true_positives
    )


def test_learning_beats_persistence_where_there_is_something_to_learn() -> None:
    """Datasets that are read every other week: persistence is always wrong."""
    rng = np.random.default_rng(0)
    counts = np.where((np.arange(30) + np.arange(60)[:, None]) % 2, 50, 1) + rng.integers(0, 5, (60, 30))
    data = WeeklyAccesses(tuple(map(str, range(60))), ("all",) * 60, counts.astype(np.float64))
    found = forecast(data, weeks=1)
    lines = {line.model: line for line in found.table}
    assert lines[PERSISTENCE].balanced_accuracy.value == 0
    for model in MODELS[1:]:
        assert lines[model].balanced_accuracy.value > 0.98
        assert lines[model].gain.value > 0.98
    assert found.week == 30
    expected = counts[:, -1] < 10
    assert [found.scores[name] > 0.5 for name in data.datasets] == expected.tolist()


def test_the_same_seed_says_the_same() -> None:
    data = make_weekly_accesses(seed=6, weeks=12, per_tier=6)
    for model in ("forest", "xgboost"):
        assert predict(data, model=model, seed=3) == predict(data, model=model, seed=3, threads=2)


def test_weeks_that_all_say_the_same() -> None:
    data = WeeklyAccesses(("a", "b"), ("T", "T"), np.full((2, 20), 50.0))
    for line in make_table(roll(data, weeks=2)):  # nothing to learn from, but no error either
        assert line.true_positives == 4
        assert np.isnan(line.tnr.value)


def test_too_few_weeks() -> None:
    data = make_weekly_accesses(seed=1, weeks=10, per_tier=2)
    with pytest.raises(SpecError, match=f"at least {rolled_weeks(20) + 5} are needed"):
        roll(data)
    with pytest.raises(SpecError, match="'persistence' needs one"):
        predict(until(data, 3), model="forest")
    with pytest.raises(SpecError, match="choose one of"):
        predict(data, model="oracle")


def outcome(week: int, *counts: int, model: str = "forest") -> Outcome:
    return Outcome(model, "T", week, *counts)


def test_the_table_counts_and_errs_as_it_should() -> None:
    base = [outcome(week, 1, 0, 9, 1, model=PERSISTENCE) for week in range(4)]
    table = make_table([*base, *(outcome(week, 2, 1, 8, 0) for week in range(4))])
    lines = {line.model: line for line in table}
    line = lines["forest"]
    assert (line.weeks, line.true_positives, line.false_positives, line.false_negatives) == (4, 8, 4, 0)
    assert line.tpr.value == 1
    assert line.tnr.value == pytest.approx(8 / 9)
    assert line.tnr.binomial == pytest.approx((8 / 9 / 9 / 36) ** 0.5)
    assert line.tnr.weekly == pytest.approx(0)  # all weeks are alike
    assert line.gain.value == pytest.approx((1 + 8 / 9) / 2 - 0.75)
    assert np.isnan(lines[PERSISTENCE].gain.value)
    assert best_model(table).model == "forest"


def test_the_weekly_error_is_that_of_a_mean() -> None:
    """Of weeks of equal size the jackknife gives the standard error of their mean."""
    hits = [1, 3, 5, 9]
    (line,) = make_table([outcome(week, hit, 0, 10, 10 - hit) for week, hit in enumerate(hits)])
    shares = np.array(hits) / 10
    assert line.tpr.weekly == pytest.approx(shares.std(ddof=1) / 2)


@pytest.mark.soak
def test_real_accesses(shared_data: Path) -> None:
    """Weeks after those that the models were chosen on: none falls behind persistence beyond its error."""
    data = read_csv(shared_data / "cms_popularity" / "weekly_2013_to_week88.csv.gz", load_settings())
    best: Line = best_model(table := make_table(roll(data, weeks=20)))
    (persistence,) = [line for line in table if line.model == PERSISTENCE]
    assert best.balanced_accuracy.value >= persistence.balanced_accuracy.value
    assert best.true_positives + best.false_negatives == persistence.true_positives + persistence.false_negatives
