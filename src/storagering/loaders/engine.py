"""The epoch engine: windows decoded ahead in threads, batches made ahead of the training step."""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from storagering.errors import CorruptDataError, LoaderError
from storagering.loaders.batches import BatchArrays, BatchMaker
from storagering.loaders.exact import RandomRows
from storagering.loaders.plan import EpochPlan
from storagering.loaders.supply import ChunkSupply
from storagering.loaders.threads import ThreadCrew
from storagering.loaders.windows import Window, WindowMaker

#: Two, so that threads have something to do while one of them is begun or ended.
_WINDOWS_AHEAD = 2
_POLL_SECONDS = 0.05
#: Time for threads to end what they are at when an epoch is broken off.
_CLOSE_SECONDS = 5.0

_NOTHING = Window((), (0,), 0)
_Made = TypeVar("_Made")
Windows = Callable[[ThreadCrew], WindowMaker]
Batches = Generator[BatchArrays, None, None]
"""Closing it ends its threads."""


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
    finish: Callable[[BatchArrays], BatchArrays] | None


def run_epoch(begin: Callable[[], Epoch], first_step: int) -> Batches:
    """The batches of an epoch from ``first_step`` on; it begins when the first is asked for.

    Closing the iterator ends all its threads.

    Raises:
        CorruptDataError: a chunk is damaged.
        LoaderError: it is used in a process that was forked from the one that began it; its threads stand still.
    """
    owner = os.getpid()
    epoch = begin()
    batches = epoch.batches(first_step)
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


class Epoch(ABC):
    """One epoch of one rank: its threads, and the batches they make.

    Args:
        where: the data is, for messages.
    """

    def __init__(self, feeding: Feeding, plan: EpochPlan, maker: BatchMaker, where: str) -> None:
        self._feeding, self._plan, self._maker, self._where = feeding, plan, maker, where
        self.crew = ThreadCrew(feeding.threads, "storagering-decode")

    @abstractmethod
    def _begin(self, step: int, *, wait: bool) -> Callable[[], BatchArrays] | None:
        """What makes the batch of a step; None if it would have to be waited for, and that is not wanted."""

    def batches(self, first_step: int) -> Batches:
        """The batches, in order; those that take work are made ahead."""
        ahead: deque[Future[BatchArrays]] = deque()
        limit = self._feeding.prefetch_batches if self._feeding.finish or not self._is_cheap else 0
        step, last = first_step, self._plan.num_steps
        while step < last or ahead:
            while step < last and len(ahead) <= limit:
                job = self._begin(step, wait=not ahead)
                if job is None:
                    break
                step += 1
                if not limit:
                    yield job()
                else:
                    ahead.append(self.crew.submit(job, soon=True))
                del job  # it holds a window
            if ahead:
                yield self._wait(ahead.popleft())

    @property
    def _is_cheap(self) -> bool:
        return self._maker.is_cheap

    def _make(self, window: Window, position: int) -> BatchArrays:
        batch = self._maker.make(window, position)
        return batch if self._feeding.finish is None else self._feeding.finish(batch)

    def _wait(self, future: Future[_Made]) -> _Made:
        """What a thread makes; gives up when none of them has done anything for long."""
        began = time.monotonic()
        while True:
            try:
                return future.result(timeout=min(1.0, self._feeding.stall_seconds))
            except TimeoutError:
                if future.done():
                    raise
                since = time.monotonic() - max(began, self.crew.last_done)
                if since > self._feeding.stall_seconds:
                    raise LoaderError(
                        f"no thread of the loader has done anything for {since:.0f} s: they wait for the disk of "
                        f"{self._where}, or a transform does not end; see the option stall_seconds"
                    ) from None

    def close(self) -> None:
        """End all threads."""
        self.crew.close(_CLOSE_SECONDS)


class BlockEpoch(Epoch):
    """Windows in order: the one in use, and the next ones being made as soon as their chunks are there."""

    def __init__(
        self, feeding: Feeding, plan: EpochPlan, maker: BatchMaker, supply: ChunkSupply, windows: Windows
    ) -> None:
        super().__init__(feeding, plan, maker, supply.where)
        self._supply, self._windows = supply, windows(self.crew)
        self._stopped = threading.Event()
        # Chunks that come and go are held for one window at a time: there may be room for no more.
        self._assemblers = ThreadCrew(_WINDOWS_AHEAD if supply.is_settled else 1, "storagering-window")
        self._coming: dict[int, Future[Window]] = {}
        self._ask_again = 0.0
        self._number, self._current = -1, _NOTHING

    def _begin(self, step: int, *, wait: bool) -> Callable[[], BatchArrays] | None:
        number, position = self._plan.window_of(step)
        if number != self._number:
            if not wait and not (number in self._coming and self._coming[number].done()):
                return None
            self._number, self._current = -1, _NOTHING  # its memory may be of use to the next
            self._number, self._current = number, self._get(number)
        return partial(self._make, self._current, position)

    def _get(self, number: int) -> Window:
        """A window, waiting for it; the next are begun.

        Raises:
            LoaderError: the epoch was ended meanwhile, or there is no progress.
        """
        # Chunks are waited for here, in a thread that the end of the program does not wait for.
        while number not in self._coming and not self._is_ready(number):
            if self._stopped.wait(_POLL_SECONDS):
                raise LoaderError("the iteration was ended while it waited for its data")
        for ahead in range(number, min(number + 1 + _WINDOWS_AHEAD, self._plan.num_windows)):
            if ahead not in self._coming and (ahead == number or self._is_ready(ahead)):
                self._coming[ahead] = self._assemblers.submit(self._assemble, ahead)
        for behind in [n for n in self._coming if n < number]:
            del self._coming[behind]
        return self._wait(self._coming[number])

    def _is_ready(self, number: int) -> bool:
        """Whether all chunks of a window are there; asked not more often than is worth while."""
        now = time.monotonic()
        if now < self._ask_again:
            return False
        ready = all(self._supply.is_ready(unit) for unit in self._plan.units(number))
        self._ask_again = 0.0 if ready else now + _POLL_SECONDS
        return ready

    def _assemble(self, number: int) -> Window:
        share = self._plan.share(number, self._feeding.rank, self._feeding.world_size)
        chunks = [chunk for piece in share.pieces for chunk in self._supply.chunks(piece.unit)]
        with self._supply.held(chunks):
            try:
                return self._windows.make(share)
            except CorruptDataError:
                if not self._supply.mend(chunks):
                    raise
                return self._windows.make(share)

    def close(self) -> None:
        self._stopped.set()
        self._assemblers.close(0.0)
        super().close()
        self._assemblers.close(_CLOSE_SECONDS)


class ExactEpoch(Epoch):
    """Rows from anywhere, batch by batch."""

    def __init__(self, feeding: Feeding, plan: EpochPlan, maker: BatchMaker, rows: RandomRows, where: str) -> None:
        super().__init__(feeding, plan, maker, where)
        self._rows = rows

    @property
    def _is_cheap(self) -> bool:
        return False

    def _begin(self, step: int, *, wait: bool) -> Callable[[], BatchArrays]:  # noqa: ARG002  (there is always one)
        return partial(self._take, step)

    def _take(self, step: int) -> BatchArrays:
        numbers = self._plan.exact(step, self._feeding.rank, self._feeding.world_size)
        return self._make(self._rows.take(numbers), 0)
