"""The recipes that `storagering train` knows by name."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from storagering.errors import NotFoundError, nearest_names
from storagering.models.deepset import DeepSet, JetInputs
from storagering.models.jet_features import (
    JET_COLUMNS,
    JET_FEATURES,
    PARTICLE_COLUMNS,
    PARTICLE_FEATURES,
    jet_inputs,
)
from storagering.training.task import Recipe, Sample, TensorBatch


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Binary cross-entropy per unit of weight; all arguments (B,), the result a scalar."""
    losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (weights * losses).sum() / weights.sum()


def prepare_jets(batch: TensorBatch, signal: int) -> Sample:
    """Jets of class ``signal`` against all others, each with weight 1."""
    targets = (batch["label"] == signal).float()
    inputs = jet_inputs(batch["particles"], batch["particles_mask"], batch["jet"])
    return Sample(inputs, targets, torch.ones_like(targets))


def jet_shapes(sample: Sample) -> Tensor:
    """Six numbers per jet, (B, 6): log pT, eta, log mass, multiplicity, width and pT dispersion."""
    inputs = JetInputs(*sample.inputs)
    z = inputs.fractions
    distance = inputs.particles[..., PARTICLE_FEATURES.index("r")]  # (B, P)
    shapes = torch.stack([inputs.mask.sum(1), (z * distance).sum(1), z.square().sum(1).sqrt()], dim=-1)  # (B, 3)
    return torch.cat([inputs.jet, shapes], dim=-1)


def make_jet_deepset() -> DeepSet:
    """The deep set of the recipe ``jet-deepset``: 17,537 parameters."""
    return DeepSet(len(PARTICLE_FEATURES), len(JET_FEATURES), width=64)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="jet-deepset",
            summary="deep set that tags jets by their particles",
            version=1,
            columns={"particles": list(PARTICLE_COLUMNS), "jet": list(JET_COLUMNS), "label": "label"},
            prepare=prepare_jets,
            make_model=make_jet_deepset,
            loss=weighted_cross_entropy,
            baseline_name="boosted trees on pT, eta, mass, multiplicity, width and pT dispersion",
            baseline_features=jet_shapes,
            epochs=20,
            batch_size=128,
            learning_rate=3e-3,
            weight_decay=1e-2,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        NotFoundError: there is none; lists the nearest names.
    """
    if name not in RECIPES:
        raise NotFoundError(f"no recipe {name!r}{nearest_names(name, RECIPES)}")
    return RECIPES[name]
