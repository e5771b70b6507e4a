import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from storagering.errors import InputError
from storagering.training.metrics import Rejection, compute_roc


def gaussian_scores(separation: float, jets: int = 40_000) -> tuple[Any, ...]:
    random = np.random.default_rng(4)
    scores = np.concatenate([random.normal(separation, 1, jets), random.normal(0, 1, jets)])
    return scores, np.repeat([1, 0], jets)


@pytest.mark.parametrize("separation", [0.0, 0.5, 1.5, 3.0])
def test_two_gaussians_give_the_closed_form(separation: float) -> None:
    roc = compute_roc(*gaussian_scores(separation))
    exact = 0.5 * (1 + math.erf(separation / 2))
    assert abs(roc.auc - exact) < 4 * roc.auc_error
    # At 50% efficiency the cut is at the signal's mean: the background passes with the tail beyond it.
    rejection = roc.rejection_at(0.5)
    assert abs(rejection.value - 2 / math.erfc(separation / math.sqrt(2))) < 4 * rejection.error + 0.02


def test_error_of_the_auc_is_that_of_repeated_samples() -> None:
    random = np.random.default_rng(0)
    truth = np.repeat([1, 0], 200)
    aucs, errors = [], []
    for _ in range(200):
        roc = compute_roc(random.normal(1.2 * truth, 1), truth)
        aucs.append(roc.auc)
        errors.append(roc.auc_error)
    assert np.mean(errors) == pytest.approx(np.std(aucs), rel=0.2)


def test_perfect_reversed_and_tied_scores() -> None:
    truth = np.array([1, 1, 0, 0])
    assert compute_roc(truth.astype(float), truth).auc == 1
    assert compute_roc(-truth.astype(float), truth).auc == 0
    tied = compute_roc(np.zeros(4), truth)
    assert tied.auc == 0.5
    assert tied.rejection_at(0.5) == Rejection(signal_efficiency=1.0, passing=2, background=2)


def test_rejection_counts_jets_at_and_above_the_threshold() -> None:
    scores = np.array([9, 8, 7, 6, 8.5, 5, 4, 3, 2, 1])
    roc = compute_roc(scores, np.array([1] * 4 + [0] * 6))
    assert roc.rejection_at(0.25) == Rejection(0.25, 0, 6)
    assert roc.rejection_at(0.5) == Rejection(0.5, 1, 6)
    assert roc.rejection_at(0.51) == Rejection(0.75, 1, 6)
    assert roc.rejection_at(1.0).value == 6


def test_without_passing_background_there_is_a_bound() -> None:
    none = Rejection(0.5, 0, 1000)
    assert none.value == none.error == math.inf
    assert none.lower_bound == pytest.approx(1000 / 3, rel=0.01)
    assert none.describe() == "> 334 (95% CL; none of 1000 background jets passes)"
    # at the bound, seeing nothing has a probability of 5%
    assert (1 - 1 / none.lower_bound) ** 1000 == pytest.approx(0.05)


def test_few_passing_jets_are_pointed_out() -> None:
    assert Rejection(0.5, 4, 1000).describe() == "250.0 ± 124.7 (only 4 background jets pass)"
    assert Rejection(0.5, 100, 1000).describe() == "10.0 ± 0.9"


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        ([0.1, 0.2], [1, 1], "2 signal and 0 background"),
        ([], [], "0 signal and 0 background"),
        ([0.1, math.nan], [1, 0], "1 of 2 scores are not finite"),
    ],
)
def test_what_has_no_roc_curve(scores: list[Any], truth: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compute_roc(np.array(scores), np.array(truth))


@pytest.mark.parametrize("efficiency", [0.0, 1.1, math.nan])
def test_working_points_lie_between_0_and_1(efficiency: float) -> None:
    with pytest.raises(InputError, match="not in"):
        compute_roc(np.array([1.0, 0.0]), np.array([1, 0])).rejection_at(efficiency)
