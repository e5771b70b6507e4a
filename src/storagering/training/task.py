"""What is learnt from what: a recipe joins columns, inputs, network, loss and baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from torch import Tensor

from storagering.models.network import Network

#: What a loader yields: names (of columns or groups of columns) and tensors of one batch.
TensorBatch: TypeAlias = Mapping[str, Tensor]


class Sample(NamedTuple):
    """A batch as a network and its loss want it.

    Attributes:
        inputs: the arguments of the network.
        targets: (B,) float, 1 for signal and 0 for background.
        weights: (B,) float, of the loss.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True, slots=True)
class Recipe:
    """A binary classification that can be trained on any dataset with the right columns.

    Attributes:
        version: raised whenever a change makes old checkpoints mean something else.
        columns: what to ask of the loader: group -> columns, or name -> single column.
        prepare: (batch, index of the signal class) -> sample.
        make_model: a freshly initialised network, from torch's random state.
        loss: (logits, targets, weights) -> scalar.
        baseline_name: what the baseline looks at, for the report.
        baseline_features: sample -> (B, K) numbers for boosted trees, the yardstick of the network.
        learning_rate: highest one; it rises for one epoch and then falls as a cosine.
    """

    name: str
    summary: str
    version: int
    columns: Mapping[str, list[str] | str]
    prepare: Callable[[TensorBatch, int], Sample]
    make_model: Callable[[], Network]
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    baseline_name: str
    baseline_features: Callable[[Sample], Tensor]
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
