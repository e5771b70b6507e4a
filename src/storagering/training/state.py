"""A training under way: what changes from step to step, and how it is kept and brought back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from storagering.errors import FormatError, InputError
from storagering.loaders.torch import DataLoader
from storagering.models.network import Network
from storagering.training.checkpoint import Checkpoint, load_checkpoint
from storagering.training.options import EpochRecord
from storagering.training.recipes import find_recipe
from storagering.training.task import Recipe, Sample

_MODEL, _OPTIMIZER, _RANDOM = "model.", "optimizer.", "random.cpu"


@dataclass
class TrainingState:
    """Everything that a checkpoint holds.

    Attributes:
        identity: what the run is; see `storagering.training.checkpoint.compare_identity`.
        step: optimiser steps done.
        examples: jets trained on.
        epoch_loss: sum of the losses of the jets of the current epoch; ``epoch_examples`` their number.
    """

    model: Network
    optimizer: AdamW
    loader: DataLoader
    identity: Mapping[str, Any]
    step: int = 0
    examples: int = 0
    epoch_loss: float = 0.0
    epoch_examples: int = 0
    seconds: float = 0.0
    history: list[EpochRecord] = field(default_factory=list)

    def take_step(self, recipe: Recipe, sample: Sample, learning_rate: float) -> float:
        """One optimiser step; returns the loss before it.

        Raises:
            InputError: the loss is not finite. Nothing is changed then.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        loss = recipe.loss(self.model(*sample.inputs), sample.targets, sample.weights)
        value = loss.item()
        if not math.isfinite(value):
            raise InputError(
                f"the loss became {value} in step {self.step}: look for NaN or huge numbers in the columns, "
                "or lower the learning rate"
            )
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        jets = len(sample.targets)
        self.step += 1
        self.examples += jets
        self.epoch_examples += jets
        self.epoch_loss += value * jets
        return value

    def finish_epoch(self) -> None:
        """Note the mean loss and begin the next epoch."""
        self.history.append(EpochRecord(len(self.history), self.epoch_loss / self.epoch_examples))
        self.epoch_loss, self.epoch_examples = 0.0, 0

    def capture(self) -> Checkpoint:
        """A checkpoint of this moment; its tensors are the live ones, so save it at once."""
        optimizer = self.optimizer.state_dict()
        tensors = {_MODEL + name: tensor for name, tensor in self.model.state_dict().items()}
        for index, slots in optimizer["state"].items():
            tensors |= {f"{_OPTIMIZER}{index}.{name}": tensor for name, tensor in slots.items()}
        tensors[_RANDOM] = torch.get_rng_state()
        names = ("step", "examples", "epoch_loss", "epoch_examples", "seconds")
        state = {name: getattr(self, name) for name in names} | {
            "identity": dict(self.identity),
            "history": [asdict(record) for record in self.history],
            "loader": self.loader.state_dict(),
            "optimizer": optimizer["param_groups"],
        }
        return Checkpoint(tensors, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become what was captured.

        Raises:
            FormatError: something is missing or of another shape.
            ResumeMismatchError: the loader refuses its part.
        """
        state = checkpoint.state
        try:
            _load_weights(self.model, checkpoint)
            slots = _unflatten(checkpoint.tensors)
            self.optimizer.load_state_dict({"state": slots, "param_groups": state["optimizer"]})
            torch.set_rng_state(checkpoint.tensors[_RANDOM])
            self.step, self.examples = state["step"], state["examples"]
            self.epoch_loss, self.epoch_examples = state["epoch_loss"], state["epoch_examples"]
            self.seconds = state["seconds"]
            self.history = [EpochRecord(**record) for record in state["history"]]
            position = state["loader"]
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise FormatError(f"the checkpoint does not fit this network: {error}") from error
        self.loader.load_state_dict(position)


def load_model(path: Path) -> Network:
    """The network of a checkpoint, ready to be applied.

    Raises:
        NotFoundError: no such file, or its recipe is not known.
        CorruptDataError: the file is damaged or not a checkpoint.
    """
    checkpoint = load_checkpoint(path)
    try:
        with torch.random.fork_rng(devices=[]):  # the weights drawn here are thrown away
            model = find_recipe(checkpoint.state["identity"]["recipe"]).make_model()
        _load_weights(model, checkpoint)
    except (LookupError, TypeError, RuntimeError) as error:
        raise FormatError(f"{path} does not fit its network: {error}") from error
    return model.eval()


def _load_weights(model: Network, checkpoint: Checkpoint) -> None:
    tensors = {n.removeprefix(_MODEL): t for n, t in checkpoint.tensors.items() if n.startswith(_MODEL)}
    model.load_state_dict(tensors)


def _unflatten(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(_OPTIMIZER):
            index, slot = name.removeprefix(_OPTIMIZER).split(".")
            slots.setdefault(int(index), {})[slot] = tensor
    return slots
