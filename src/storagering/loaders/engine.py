"""The epoch engine: windows decoded ahead in threads, batches made ahead of the training step."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from storagering.errors import LoaderError
from storagering.loaders.batches import BatchArrays, BatchMaker
from storagering.loaders.plan import EpochPlan
from storagering.loaders.sources import WindowSource
from storagering.loaders.threads import ThreadCrew
from storagering.loaders.windows import Window

_POLL_SECONDS = 0.05
#: Time for threads to end what they are at when an epoch is broken off.
_CLOSE_SECONDS = 5.0

_NOTHING = Window((), (0,), 0)
_Made = TypeVar("_Made")
Batches = Generator[BatchArrays, None, None]
"""Closing it ends its threads."""


Finish = Callable[[BatchArrays], Any]
"""Makes of a batch what is delivered."""


@dataclass(frozen=True, slots=True)
class Feeding:
    """What to make of the entries: shared by all epochs of a loader.

    Attributes:
        finish: what is done with every batch, in a thread.
        stall_seconds: time without any progress of the threads after which they are given up.
    """

    rank: int
    world_size: int
    threads: int
    prefetch_batches: int
    stall_seconds: float
    finish: Finish | None


def run_epoch(begin: Callable[[], Epoch], first_step: int, stride: int = 1) -> Batches:
    """The batches of an epoch from ``first_step`` on, or every so many of them; it begins when the first is asked for.

    Closing the iterator ends all its threads.

    Raises:
        CorruptDataError: a chunk is damaged.
        LoaderError: it is used in a process that was forked from the one that began it; its threads stand still.
    """
    owner = os.getpid()
    epoch = begin()
    batches = epoch.batches(first_step, stride)
    try:
        while True:
            if os.getpid() != owner:
                raise LoaderError(f"this iteration belongs to process {owner}; after a fork, iterate the loader anew")
            try:
                batch = next(batches)
            except StopIteration:
                return
            yield batch
    finally:
        batches.close()
        if os.getpid() == owner:  # nobody in a forked child would end what was begun
            epoch.close()


class Epoch:
    """One epoch of one rank: its threads, the window in use, and the next ones being made as soon as they can be.

    Args:
        source: makes windows, with the help of a crew.
        where: the data is, for messages.
    """

    def __init__(
        self,
        feeding: Feeding,
        plan: EpochPlan,
        maker: BatchMaker,
        source: Callable[[ThreadCrew], WindowSource],
        where: str,
    ) -> None:
        self._feeding, self.plan, self._maker, self._where = feeding, plan, maker, where
        self._crew = ThreadCrew(feeding.threads, "storagering-decode")
        self._source = source(self._crew)
        self._stopped = threading.Event()
        self._assemblers = ThreadCrew(self._source.at_once, "storagering-window")
        self._coming: dict[int, Future[Window]] = {}
        self._ask_again, self._patience = 0.0, _CLOSE_SECONDS
        self._number, self._current = -1, _NOTHING

    def batches(self, first_step: int, stride: int) -> Batches:
        """The batches, in order; those that take work are made ahead."""
        if self._maker.is_cheap and self._feeding.finish is None:
            for step in range(first_step, self.plan.num_steps, stride):
                number, position = self.plan.window_of(step)
                yield self._maker.make(self._enter(number), position)
            return
        ahead: deque[Future[BatchArrays]] = deque()
        step, last = first_step, self.plan.num_steps
        while step < last or ahead:
            while step < last and len(ahead) <= self._feeding.prefetch_batches:
                job = self._begin(step, wait=not ahead)
                if job is None:
                    break
                step += stride
                ahead.append(self._crew.submit(job, soon=True))
                del job  # it holds a window
            yield self._wait(ahead.popleft())

    def _begin(self, step: int, *, wait: bool) -> Callable[[], BatchArrays] | None:
        """What makes the batch of a step; None if it would have to be waited for, and that is not wanted."""
        number, position = self.plan.window_of(step)
        if number != self._number and not wait and not (number in self._coming and self._coming[number].done()):
            return None
        return partial(self._make, self._enter(number), position)

    def _enter(self, number: int) -> Window:
        """The window in use; another is waited for."""
        if number != self._number:
            self._number, self._current = -1, _NOTHING  # its memory may be of use to the next
            self._number, self._current = number, self._get(number)
        return self._current

    def _make(self, window: Window, position: int) -> BatchArrays:
        batch = self._maker.make(window, position)
        return batch if self._feeding.finish is None else self._feeding.finish(batch)

    def _get(self, number: int) -> Window:
        """A window, waiting for it; the next are begun.

        Raises:
            LoaderError: the epoch was ended meanwhile, or there is no progress.
        """
        # Chunks are waited for here, in a thread that the end of the program does not wait for.
        while number not in self._coming and not self._is_ready(number):
            if self._stopped.wait(_POLL_SECONDS):
                raise LoaderError("the iteration was ended while it waited for its data")
        self._look_ahead(number)
        for behind in [n for n in self._coming if n < number]:
            del self._coming[behind]
        return self._wait(self._coming[number])

    def begin(self) -> None:
        """Begin the first windows, before their batches are asked for."""
        self._look_ahead(0)

    def _look_ahead(self, number: int) -> None:
        for ahead in range(number, min(number + 1 + self._source.ahead, self.plan.num_windows)):
            if ahead not in self._coming and (ahead == number or self._is_ready(ahead)):
                self._coming[ahead] = self._assemblers.submit(self._source.make, ahead)

    def _is_ready(self, number: int) -> bool:
        """Whether a window can be made; asked not more often than is worth while."""
        now = time.monotonic()
        if now < self._ask_again:
            return False
        ready = self._source.is_ready(number)
        self._ask_again = 0.0 if ready else now + _POLL_SECONDS
        return ready

    def _wait(self, future: Future[_Made]) -> _Made:
        """What a thread makes; gives up when none of them has done anything for long."""
        began = time.monotonic()
        while True:
            try:
                return future.result(timeout=min(1.0, self._feeding.stall_seconds))
            except TimeoutError:
                if future.done():
                    raise
                since = time.monotonic() - max(began, self._crew.last_done)
                if since > self._feeding.stall_seconds:
                    self._patience = 0.0
                    raise LoaderError(
                        f"no thread of the loader has done anything for {since:.0f} s: they wait for the disk of "
                        f"{self._where}, or a transform does not end; see the option stall_seconds"
                    ) from None

    def close(self) -> None:
        """End all threads."""
        self._stopped.set()
        self._assemblers.close(0.0)
        self._crew.close(self._patience)
        self._assemblers.close(self._patience)
