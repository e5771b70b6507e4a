"""One training on one dataset, before anything moves: what is read, and what it is called."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from storagering.cache.dataset import Dataset, open_dataset
from storagering.errors import ConfigError, SchemaError, nearest_names
from storagering.loaders.torch import DataLoader
from storagering.training.options import TRAIN_SPLIT, Hyperparameters, TrainingOptions
from storagering.training.recipes import find_recipe
from storagering.training.task import Recipe, Sample


@dataclass(frozen=True, slots=True)
class Run:
    """A recipe applied to a dataset.

    Attributes:
        signal: index of the signal class.
        background_name: names of all other classes, joined.
    """

    recipe: Recipe
    dataset: Dataset
    signal: int
    signal_name: str
    background_name: str
    settings: Hyperparameters
    device: torch.device

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be continued, as JSON types."""
        return {
            "recipe": self.recipe.name,
            "recipe_version": self.recipe.version,
            "dataset": self.dataset.manifest.name,
            "dataset_digest": self.dataset.manifest.digest,
            "signal": self.signal_name,
            "train_split": list(TRAIN_SPLIT),
            **asdict(self.settings),
        }

    def open_loader(self, split: tuple[float, float], *, shuffle: bool) -> DataLoader:
        """A loader of a part of the dataset; close it."""
        return DataLoader(
            self.dataset,
            batch_size=self.settings.batch_size,
            columns=dict(self.recipe.columns),
            shuffle="block" if shuffle else None,
            seed=self.settings.seed,
            jagged="padded",
            rank=0,  # one process trains one network, also where torch.distributed is in use
            world_size=1,
            split=split,
        )

    def samples(self, loader: DataLoader) -> Iterator[Sample]:
        """What the loader yields from where it stands, on the device and as the network wants it."""
        for batch in loader:
            yield self.recipe.prepare({name: tensor.to(self.device) for name, tensor in batch.items()}, self.signal)

    def first_samples(self, split: tuple[float, float], batches: int | None = None) -> Iterator[Sample]:
        """Shuffled samples of a part of the dataset, some or all of them, from a loader of their own."""
        with self.open_loader(split, shuffle=True) as loader:
            yield from itertools.islice(self.samples(loader), batches)


def plan_run(recipe_name: str, data: str | Dataset, options: TrainingOptions) -> Run:
    """Look everything up.

    Args:
        recipe_name: see `find_recipe`.
        data: a dataset or its name.
        options: of the training.

    Raises:
        NotFoundError: there is no such recipe or dataset.
        SchemaError: the dataset has no classes, or lacks columns.
        ConfigError: there is no such signal class or device.
    """
    recipe = find_recipe(recipe_name)
    dataset = open_dataset(data) if isinstance(data, str) else data
    _check_columns(recipe, dataset)
    classes = dataset.manifest.spec.classes
    signal_name = classes[0] if options.signal is None else options.signal
    if signal_name not in classes:
        raise ConfigError(
            f"no class {signal_name!r} in dataset {dataset.manifest.name!r}{nearest_names(signal_name, classes)}"
        )
    return Run(
        recipe=recipe,
        dataset=dataset,
        signal=classes.index(signal_name),
        signal_name=signal_name,
        background_name=" + ".join(name for name in classes if name != signal_name),
        settings=options.fill(recipe),
        device=_find_device(options.device),
    )


def _check_columns(recipe: Recipe, dataset: Dataset) -> None:
    name = dataset.manifest.name
    if len(dataset.manifest.spec.classes) < 2:
        raise SchemaError(
            f"dataset {name!r} does not have two classes to tell apart: convert it with one --label per class, "
            "e.g. --label top=top.root --label qcd=qcd.root"
        )
    wanted = [column for value in recipe.columns.values() for column in ([value] if isinstance(value, str) else value)]
    missing = [column for column in wanted if column not in dataset.schema.names]
    if missing:
        known = nearest_names(missing[0], dataset.schema.names)
        raise SchemaError(
            f"recipe {recipe.name!r} needs the columns {', '.join(wanted)}; dataset {name!r} lacks "
            f"{', '.join(missing)}{known}. Missing columns can be defined when converting"
        )


def _find_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used: {error}") from error
    return device
