"""A progress bar for people, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: Called after every step with the epoch (from 0) and the loss.
Tick: TypeAlias = Callable[[int, float], None]


@contextmanager
def show_progress(*, wanted: bool, total: int, done: int) -> Iterator[Tick]:
    """A bar of ``total`` steps of which ``done`` are done; yields what moves it on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not wanted) as progress:
        task = progress.add_task("training", total=total, completed=done)

        def tick(epoch: int, loss: float) -> None:
            progress.update(task, advance=1, description=f"epoch {epoch + 1}, loss {loss:.3f}")

        yield tick
