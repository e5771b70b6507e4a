"""The figures of merit of a trained network and of its baseline, on the same held-out jets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.ensemble import GradientBoostingClassifier

from storagering.errors import InputError
from storagering.models.network import Network
from storagering.training.metrics import Roc, compute_roc
from storagering.training.options import TEST_SPLIT, TRAIN_SPLIT
from storagering.training.run import Run
from storagering.types import Array

#: The baseline is fitted to at most this many training jets.
BASELINE_JETS = 20_000


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Performance on the test jets."""

    network: Roc
    baseline: Roc


def evaluate(run: Run, model: Network) -> Evaluation:
    """Score the test jets with the network and with boosted trees fitted to training jets.

    Raises:
        InputError: the test part of the dataset is empty or holds one class only.
    """
    with run.open_loader(TEST_SPLIT, shuffle=False) as loader, torch.no_grad():
        model.eval()
        scores, features, targets = [], [], []
        for sample in run.samples(loader):
            scores.append(_to_numpy(model(*sample.inputs)))
            features.append(_to_numpy(run.recipe.baseline_features(sample)))
            targets.append(_to_numpy(sample.targets))
    if not targets:
        raise InputError(f"dataset {run.dataset.manifest.name!r} is too small: no jets in its test part")
    truth = np.concatenate(targets)
    network = compute_roc(np.concatenate(scores), truth)
    trees = fit_baseline(run)
    return Evaluation(network, compute_roc(trees.decision_function(np.concatenate(features)), truth))


def fit_baseline(run: Run) -> GradientBoostingClassifier:
    """Boosted trees (Friedman, Ann. Stat. 29 (2001) 1189) on the recipe's baseline features."""
    features, targets = [], []
    for sample in run.first_samples(TRAIN_SPLIT, -(-BASELINE_JETS // run.settings.batch_size)):
        features.append(_to_numpy(run.recipe.baseline_features(sample)))
        targets.append(_to_numpy(sample.targets))
    trees = GradientBoostingClassifier(n_estimators=100, max_depth=3, random_state=run.settings.seed)
    return trees.fit(np.concatenate(features), np.concatenate(targets))


def _to_numpy(tensor: torch.Tensor) -> Array:
    array: Array = tensor.cpu().numpy()
    return array
