"""What the bundled networks share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A network that scales its own inputs, by constants fitted before the first training step."""

    @abstractmethod
    def fit_scaling(self, samples: Sequence[Any]) -> None:
        """Set the input constants from batches of training inputs (never from test data)."""


class Standardise(nn.Module):
    """(x - mean) / std with constants that travel with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    def fit(self, values: Tensor) -> None:
        """Take mean and standard deviation from ``values`` of shape (N, F); constants keep std 1."""
        wide = values.double()
        std = wide.std(0, correction=0)
        self.mean.copy_(wide.mean(0))
        self.std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    def forward(self, values: Tensor) -> Tensor:
        """Float, (..., F) -> (..., F)."""
        return (values - self.mean) / self.std
