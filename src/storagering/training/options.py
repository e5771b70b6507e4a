"""What can be chosen about a training, and what it reports."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from storagering.errors import ConfigError
from storagering.files import replace_file
from storagering.training.metrics import Rejection
from storagering.training.task import Recipe

#: Shares of the dataset, by a hash of the entry: the test jets are never used before the end.
TRAIN_SPLIT = (0.0, 0.8)
TEST_SPLIT = (0.8, 1.0)
#: Signal efficiency of the working point that is reported.
WORKING_POINT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Choices; None means what the recipe says.

    Attributes:
        epochs: a resumed training must ask for the same number, because the learning rate falls to zero
            over exactly these epochs.
        seed: of the initial weights and of the order of the jets.
        signal: name of the signal class, None for the first class of the dataset.
        resume: continue from the checkpoint in the output folder, if there is one.
        checkpoint_every: steps between checkpoints within an epoch; None for one per epoch.
        threads: of torch. One is fastest for small networks on shared machines, and makes results
            independent of the number of cores.
        device: where the network runs, e.g. ``cuda``. Only ``cpu`` promises bit-equal results.
        progress: show a progress bar on stderr.
    """

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    signal: str | None = None
    resume: bool = True
    checkpoint_every: int | None = None
    threads: int = 1
    device: str = "cpu"
    progress: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "checkpoint_every", "threads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be positive, not {value!r}")

    def fill(self, recipe: Recipe) -> Hyperparameters:
        """The numbers of this training."""
        return Hyperparameters(
            epochs=self.epochs or recipe.epochs,
            batch_size=self.batch_size or recipe.batch_size,
            learning_rate=self.learning_rate or recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The numbers that, with recipe and dataset, determine the result."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    seed: int


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: from 0.
        loss: mean over its jets, while the network was changing.
    """

    epoch: int
    loss: float


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a training; all figures of merit are of the held-out test jets.

    Attributes:
        rejection: of background at `WORKING_POINT` signal efficiency.
        baseline: what the network is compared with, on the same jets.
        seconds: spent training, over all runs that were interrupted; evaluation excluded.
        examples_per_second: jets trained on per second.
    """

    recipe: str
    dataset: str
    dataset_digest: str
    signal: str
    background: str
    settings: Hyperparameters
    parameters: int
    train_jets: int
    test_jets: int
    auc: float
    auc_error: float
    rejection: Rejection
    baseline: str
    baseline_auc: float
    baseline_rejection: Rejection
    seconds: float
    examples_per_second: float
    history: tuple[EpochRecord, ...]

    def save(self, path: Path) -> None:
        """Write it as JSON; a rejection without passing background is null with a lower bound."""
        document = asdict(self)
        for key in ("rejection", "baseline_rejection"):
            point: Rejection = getattr(self, key)
            document[key] |= {
                "value": point.value if point.passing else None,
                "error": point.error if point.passing else None,
                "lower_bound": point.lower_bound,
            }
        replace_file(path, json.dumps(document, indent=2, allow_nan=False).encode() + b"\n")
