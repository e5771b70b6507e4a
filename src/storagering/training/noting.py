"""What is said of a training in the cache's journal, for the catalog's table ``trainings``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from storagering.cache.accesses import note_training
from storagering.training.options import Report
from storagering.training.run import Run
from storagering.training.state import TrainingState
from storagering.types import sha256_hex


class Notes:
    """What is known of a training when it ends.

    Attributes:
        report: its result; None while there is none.
    """

    report: Report | None = None


@contextmanager
def noted(run: Run, state: TrainingState, output: Path) -> Iterator[Notes]:
    """A training that runs in the ``with`` block is noted when that ends, or is left by an error or Ctrl-C."""
    notes = Notes()
    try:
        yield notes
    finally:
        if state.step:
            note_training(
                run.dataset.cache,
                run.dataset.manifest,
                id=_id(run, output.absolute()),
                recipe=run.recipe.name,
                model=type(state.model).__name__,
                run=output.absolute(),
                epochs=len(state.history),
                seconds=state.seconds,
                metrics=_metrics(state, notes.report),
                seed=run.settings.seed,
                finished=notes.report is not None,
            )


def _id(run: Run, output: Path) -> str:
    """The same whenever the training is resumed: it is in the same folder, and its identity must not change."""
    return sha256_hex(msgspec.json.encode([run.identity, str(output)], order="sorted"))[:32]


def _metrics(state: TrainingState, report: Report | None) -> dict[str, float]:
    found = {"loss": state.history[-1].loss} if state.history else {}
    if report is not None:
        found |= {"auc": report.auc, "auc_error": report.auc_error, "baseline_auc": report.baseline_auc}
        points = {"rejection": report.rejection, "baseline_rejection": report.baseline_rejection}
        found |= {name: point.value for name, point in points.items() if point.passing}
    return found
