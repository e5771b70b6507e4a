"""Training: epochs over the cache, checkpoints on the way, a report at the end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from storagering.cache.dataset import Dataset
from storagering.errors import ConfigError, InputError, NotFoundError
from storagering.files import FileLock, make_directory
from storagering.loaders.torch import DataLoader
from storagering.training.checkpoint import FILE_NAME, compare_identity, load_checkpoint, save_checkpoint
from storagering.training.evaluate import Evaluation, evaluate
from storagering.training.noting import noted
from storagering.training.options import TRAIN_SPLIT, WORKING_POINT, Report, TrainingOptions
from storagering.training.plots import draw_roc
from storagering.training.progress import Tick, show_progress
from storagering.training.run import Run, plan_run
from storagering.training.state import TrainingState

#: Batches of training jets from which a network takes its input constants.
SCALING_BATCHES = 32


def train(recipe: str, data: str | Dataset, *, output: Path, options: TrainingOptions | None = None) -> Report:
    """Train a recipe on a dataset, or finish a training that was interrupted, and evaluate it.

    Jets are split by a hash of the entry: 80% train, 20% test. On CPU the result follows from dataset,
    recipe and options alone, bit for bit, however often the training was killed and resumed (with the
    same version of torch and number of torch threads). Written to ``output``: ``checkpoint.safetensors``,
    ``roc.png`` and ``report.json``.

    Args:
        recipe: name of a recipe, e.g. ``jet-deepset``.
        data: name of a dataset, or the dataset.
        output: folder, created if absent; one training per folder.
        options: None for the recipe's own numbers.

    Raises:
        InputError: no such recipe, dataset or class; columns are lacking; ``output`` holds a checkpoint
            although ``resume`` is off; the loss is not finite.
        ResumeMismatchError: the checkpoint belongs to another run; lists the differences.
        CorruptDataError: the checkpoint or the dataset is damaged.
        LockTimeoutError: another process trains into ``output``.
    """
    options = options or TrainingOptions()
    run = plan_run(recipe, data, options)
    make_directory(output)
    with ExitStack() as stack:
        stack.enter_context(FileLock(output / ".lock").held(timeout_seconds=0))
        stack.enter_context(_torch_threads(options.threads))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        state = _initial_state(run, stack.enter_context(run.open_loader(TRAIN_SPLIT, shuffle=True)))
        _start_or_resume(run, state, output / FILE_NAME, resume=options.resume)
        total = run.settings.epochs * len(state.loader)
        notes = stack.enter_context(noted(run, state, output))
        with show_progress(wanted=options.progress, total=total, done=state.step) as tick:
            _run_epochs(run, state, output / FILE_NAME, options.checkpoint_every, tick)
        notes.report = _report(run, state, evaluate(run, state.model), output)
        return notes.report


def learning_rate_at(step: int, *, steps_per_epoch: int, total_steps: int, highest: float) -> float:
    """Linear rise over the first epoch times half a cosine down to zero (Loshchilov, Hutter, arXiv:1608.03983)."""
    rise = min(1.0, (step + 1) / steps_per_epoch)
    return highest * rise * 0.5 * (1 + math.cos(math.pi * step / total_steps))


def _initial_state(run: Run, loader: DataLoader) -> TrainingState:
    if not len(loader):
        raise InputError(f"dataset {run.dataset.manifest.name!r} is too small: no jets in its training part")
    settings = run.settings
    torch.manual_seed(settings.seed)
    model = run.recipe.make_model().to(run.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return TrainingState(model, optimizer, loader, run.identity)


def _start_or_resume(run: Run, state: TrainingState, path: Path, *, resume: bool) -> None:
    for leftover in path.parent.glob(f".{path.name}.*"):  # of a process killed while it saved
        leftover.unlink(missing_ok=True)
    try:
        checkpoint = load_checkpoint(path)
    except NotFoundError:
        state.model.fit_scaling([sample.inputs for sample in run.first_samples(TRAIN_SPLIT, SCALING_BATCHES)])
        return
    if not resume:
        raise ConfigError(
            f"{path} is the checkpoint of an earlier training: choose another output folder, delete that file "
            "to start again, or let the training resume"
        )
    compare_identity(path, checkpoint.state.get("identity", {}), run.identity)
    state.restore(checkpoint)


def _run_epochs(run: Run, state: TrainingState, path: Path, every: int | None, tick: Tick) -> None:
    steps_per_epoch = len(state.loader)
    total = run.settings.epochs * steps_per_epoch
    before, start = state.seconds, time.perf_counter()

    def save() -> None:
        state.seconds = before + time.perf_counter() - start
        save_checkpoint(path, state.capture())

    state.model.train()
    while len(state.history) < run.settings.epochs:
        for sample in run.samples(state.loader):
            rate = learning_rate_at(
                state.step, steps_per_epoch=steps_per_epoch, total_steps=total, highest=run.settings.learning_rate
            )
            tick(len(state.history), state.take_step(run.recipe, sample, rate))
            # The last step of an epoch is saved with the epoch, when the loader has moved on too.
            if every and state.step % every == 0 and state.step % steps_per_epoch:
                save()
        state.finish_epoch()
        save()


def _report(run: Run, state: TrainingState, evaluation: Evaluation, output: Path) -> Report:
    network, baseline = evaluation.network, evaluation.baseline
    report = Report(
        recipe=run.recipe.name,
        dataset=run.dataset.manifest.name,
        dataset_digest=run.dataset.manifest.digest,
        signal=run.signal_name,
        background=run.background_name,
        settings=run.settings,
        parameters=sum(p.numel() for p in state.model.parameters()),
        train_jets=state.examples // run.settings.epochs,
        test_jets=network.signal + network.background,
        auc=network.auc,
        auc_error=network.auc_error,
        rejection=network.rejection_at(WORKING_POINT),
        baseline=run.recipe.baseline_name,
        baseline_auc=baseline.auc,
        baseline_rejection=baseline.rejection_at(WORKING_POINT),
        seconds=state.seconds,
        examples_per_second=state.examples / state.seconds,
        history=tuple(state.history),
    )
    draw_roc(
        output / "roc.png",
        {run.recipe.name: network, "boosted trees": baseline},
        title=f"{report.dataset}: {report.test_jets:,} held-out jets",
        signal=run.signal_name,
        background=run.background_name,
    )
    report.save(output / "report.json")
    return report


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
