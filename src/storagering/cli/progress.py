"""Progress bars, on stderr and only where a person looks at it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from storagering.cache.progress import BuildProgress
from storagering.cli.console import clean, say


class ConversionBar(BuildProgress):
    """A bar of the entries converted or written, with their rate.

    Attributes:
        started: whether anything had to be converted.
    """

    def __init__(self, what: str = "converting") -> None:
        self.started = False
        self._what = what
        self._progress = _bar("{task.fields[rate]}")
        self._task: TaskID | None = None
        self._since = 0.0
        self._entries = self._bytes = 0

    def __enter__(self) -> Self:
        if not self._progress.disable:
            self._progress.start()
        self._task = self._progress.add_task("opening the sources", total=None, rate="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._progress.disable:  # older releases of rich would print an empty line
            self._progress.stop()

    def start(self, total_entries: int) -> None:
        """Begin, or begin again."""
        self.started = True
        self._since, self._entries, self._bytes = time.perf_counter(), 0, 0
        if self._task is not None:
            self._progress.reset(self._task, description=self._what, total=total_entries)

    def advance(self, entries: int, decoded_bytes: int) -> None:
        """Move on."""
        self._entries += entries
        self._bytes += decoded_bytes
        seconds = max(time.perf_counter() - self._since, 1e-3)
        rate = f"{self._entries / seconds:,.0f} entries/s, {self._bytes / seconds / 1e6:.1f} MB/s"
        if self._task is not None:
            self._progress.update(self._task, advance=entries, rate=rate)

    def tell(self, message: str) -> None:
        """Say it above the bar."""
        if self._progress.disable:
            say(message)
        else:
            self._progress.console.print(clean(message), markup=False, highlight=False)


@contextmanager
def counting_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of ``total`` things; yields what is called with how many are done."""
    progress = _bar()
    with nullcontext() if progress.disable else progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def _bar(*more: str) -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *map(TextColumn, more))
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True)
