"""What predicts: persistence as the baseline; random forest, SGD and XGBoost learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from storagering.catalog.popularity.features import Question
from storagering.errors import MissingExtraError
from storagering.types import Array

PERSISTENCE = "persistence"
#: Column of `features.features` with the accesses of this week.
_THIS_WEEK = 0


class Model(Protocol):
    """Scores rows of features: the larger, the more popular next week."""

    def score(self, features: Array) -> Array:
        """Of each row a number from 0 to 1."""


class Persistence:
    """Next week is as this one: half is what a dataset scores that is just popular now."""

    def __init__(self, question: Question) -> None:
        self._at_least = np.float32(np.log1p(question.accesses))

    def score(self, features: Array) -> Array:
        """See `Model.score`."""
        now = features[:, _THIS_WEEK].astype(np.float64)
        scores: Array = now / (now + np.float64(self._at_least))
        return scores


class _Learnt:
    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator

    def score(self, features: Array) -> Array:
        scores: Array = self._estimator.predict_proba(features)[:, 1].astype(np.float64)
        return scores


class _Constant:
    """Where all weeks to learn from say the same."""

    def __init__(self, value: float) -> None:
        self._value = value

    def score(self, features: Array) -> Array:
        return np.full(len(features), self._value)


def fit(name: str, features: Array, popular: Array, question: Question, *, seed: int, threads: int) -> Model:
    """A model that has learnt from rows of features and what became of them.

    Args:
        name: ``persistence``, ``forest``, ``sgd`` or ``xgboost``.

    Raises:
        MissingExtraError: scikit-learn or XGBoost is not installed.
    """
    if name == PERSISTENCE:
        return Persistence(question)
    if not len(popular) or popular.all() or not popular.any():
        return _Constant(float(popular.mean()) if len(popular) else 0.0)
    try:
        estimator = LEARNERS[name](popular, seed, threads)
    except ImportError as error:
        raise MissingExtraError(f'popularity needs {error.name}: pip install "storagering[popularity]"') from error
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", category=UserWarning
        )  # of SGD that has not converged: it is judged all the same
        estimator.fit(features, popular)
    if name == "forest":  # its threads would add the votes of the trees in any order
        estimator.set_params(n_jobs=1)
    return _Learnt(estimator)


# How far each may go was settled on the first weeks of real accesses (CMS, 2013 and early 2014): a few popular datasets
# a week are little to learn from, and large leaves, few shallow trees and much regularisation judge new weeks best.


def _forest(_popular: Array, seed: int, threads: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(
        n_estimators=100, min_samples_leaf=40, class_weight="balanced_subsample", random_state=seed, n_jobs=threads
    )


def _sgd(_popular: Array, seed: int, _threads: int) -> Any:
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    linear = SGDClassifier(loss="log_loss", alpha=1e-2, class_weight="balanced", average=True, random_state=seed)
    return make_pipeline(StandardScaler(), linear)


def _xgboost(popular: Array, seed: int, threads: int) -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(
        n_estimators=60,
        max_depth=3,
        learning_rate=0.05,
        subsample=0.7,
        colsample_bytree=0.5,
        min_child_weight=20,
        scale_pos_weight=float((~popular).sum() / popular.sum()),
        tree_method="hist",
        random_state=seed,
        n_jobs=threads,
    )


LEARNERS: Mapping[str, Callable[[Array, int, int], Any]] = {"forest": _forest, "sgd": _sgd, "xgboost": _xgboost}
MODELS = (PERSISTENCE, *LEARNERS)
#: Where none is judged: the best on real accesses.
FAVOURITE = "forest"
