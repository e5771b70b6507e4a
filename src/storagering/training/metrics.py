"""Figures of merit of a binary classifier, with their statistical errors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from storagering.errors import InputError
from storagering.types import Array

#: Below this many background jets the Gaussian error of a rejection means little.
FEW = 10


@dataclass(frozen=True, slots=True)
class Rejection:
    """Background rejection 1 / (background efficiency) at a working point.

    Attributes:
        signal_efficiency: the efficiency reached, the smallest not below the one asked for.
        passing: background jets that pass.
        background: all background jets.
    """

    signal_efficiency: float
    passing: int
    background: int

    @property
    def value(self) -> float:
        """The rejection; infinite if no background jet passes."""
        return self.background / self.passing if self.passing else math.inf

    @property
    def error(self) -> float:
        """Binomial standard deviation of the rejection; infinite if no background jet passes."""
        if not self.passing:
            return math.inf
        return self.value * math.sqrt((1 - self.passing / self.background) / self.passing)

    @property
    def lower_bound(self) -> float:
        """95% confidence: what the rejection is at least, by the exact binomial law if none passes."""
        if not self.passing:
            return 1 / (1 - math.pow(0.05, 1 / self.background))
        return max(1.0, self.value - 1.645 * self.error)

    def describe(self) -> str:
        """For people: value and error, or a bound where there are too few jets for that."""
        if not self.passing:
            return f"> {self.lower_bound:.0f} (95% CL; none of {self.background} background jets passes)"
        text = f"{self.value:.1f} ± {self.error:.1f}"
        return text if self.passing >= FEW else f"{text} (only {self.passing} background jets pass)"


@dataclass(frozen=True, slots=True)
class Roc:
    """A receiver operating characteristic: efficiencies at falling thresholds, each from 0 to 1.

    Attributes:
        auc: area under it, ties counting one half.
        auc_error: its standard deviation by Hanley and McNeil, Radiology 143 (1982) 29.
    """

    signal_efficiency: Array
    background_efficiency: Array
    signal: int
    background: int
    auc: float
    auc_error: float

    def rejection_at(self, signal_efficiency: float) -> Rejection:
        """The rejection at the first threshold that keeps this share of the signal."""
        if not 0 < signal_efficiency <= 1:
            raise InputError(f"signal efficiency {signal_efficiency!r} is not in (0, 1]")
        point = int(np.searchsorted(self.signal_efficiency, signal_efficiency * (1 - 1e-12)))
        passing = round(float(self.background_efficiency[point]) * self.background)
        return Rejection(float(self.signal_efficiency[point]), passing, self.background)


def compute_roc(scores: Array, targets: Array) -> Roc:
    """The ROC curve of scores (N,), the higher the more like signal; targets (N,), 1 for signal.

    Raises:
        InputError: there is only one class, or a score is NaN.
    """
    is_signal = np.asarray(targets) > 0.5
    signal = int(is_signal.sum())
    background = len(is_signal) - signal
    if not signal or not background:
        raise InputError(f"a ROC curve needs two classes; there are {signal} signal and {background} background jets")
    if not np.isfinite(scores).all():
        raise InputError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite numbers")
    false_rate, true_rate, _ = roc_curve(is_signal, scores, drop_intermediate=False)
    auc = float(roc_auc_score(is_signal, scores))
    return Roc(true_rate, false_rate, signal, background, auc, _auc_error(auc, signal, background))


def _auc_error(auc: float, signal: int, background: int) -> float:
    both_signal, both_background = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (signal - 1) * (both_signal - auc**2) + (background - 1) * (both_background - auc**2)
    return math.sqrt(max(0.0, variance) / (signal * background))
