"""The epoch engine: windows decoded ahead in threads, batches gathered ahead of the training step."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from storagering.errors import CorruptDataError, LoaderError
from storagering.loaders.buffers import BufferPool
from storagering.loaders.feed import Group
from storagering.loaders.gather import Jagged, Piece, gather_batch
from storagering.loaders.plan import BatchCut, EpochPlan, in_split
from storagering.loaders.supply import ChunkSupply
from storagering.loaders.windows import Window, WindowMaker
from storagering.types import Array

_WINDOWS_AHEAD = 1
_POLL_SECONDS = 0.05

BatchArrays = dict[str, Array]
Batches = Generator[BatchArrays, None, None]
"""Closing it ends its threads."""


@dataclass(frozen=True, slots=True)
class Feeding:
    """What to make of the entries: shared by all epochs of a loader."""

    supply: ChunkSupply
    groups: tuple[Group, ...]
    split: tuple[float, float] | None
    jagged: Jagged
    pad_to: int | None
    threads: int
    prefetch_batches: int
    pool: BufferPool


def iterate_epoch(feeding: Feeding, plan: EpochPlan, cut: BatchCut, first_step: int) -> Batches:
    """This rank's batches of an epoch from ``first_step`` on.

    Batches are gathered up to ``prefetch_batches`` ahead in a thread of their own. Closing the iterator
    ends all its threads.

    Raises:
        CorruptDataError: a chunk is damaged.
        LoaderError: it is used in a process that was forked from the one that began it.
    """
    stopped = threading.Event()
    batches = _gathered(feeding, plan, cut, first_step, stopped)
    if feeding.prefetch_batches:
        batches = _prefetched(batches, feeding.prefetch_batches, stopped)
    return _in_one_process(batches)


def _in_one_process(batches: Batches) -> Batches:
    """The batches, but an error after a fork: the threads that make them are not in the child."""
    owner, used_up = os.getpid(), object()
    try:
        while True:
            if os.getpid() != owner:
                raise LoaderError(f"this iteration belongs to process {owner}; after a fork, iterate the loader anew")
            batch = next(batches, used_up)
            if batch is used_up:
                return
            yield batch  # type: ignore[misc]
    finally:
        batches.close()


def _gathered(feeding: Feeding, plan: EpochPlan, cut: BatchCut, first_step: int, stopped: threading.Event) -> Batches:
    with _Windows(feeding, plan, stopped) as windows:
        for step in range(first_step, len(cut)):
            ranges = list(plan.pieces(*cut.entries(step)))
            if not ranges:  # fewer entries left than ranks: an empty batch of the right shapes
                ranges = [(len(plan.windows) - 1, 0, 0)]
            windows.recycle(ranges[0][0])
            pieces: list[Piece] = []
            for window, start, stop in ranges:
                ready = windows.get(window)
                pieces.append((ready, ready.rows[start:stop]))
            yield gather_batch(feeding.groups, pieces, feeding.jagged, feeding.pad_to)


class _Windows:
    """Windows in order: the one in use, and the next being decoded as soon as its chunks are there."""

    def __init__(self, feeding: Feeding, plan: EpochPlan, stopped: threading.Event) -> None:
        self._feeding, self._plan, self._stopped = feeding, plan, stopped
        self._coming: dict[int, Future[Window]] = {}
        self._ask_again = 0.0

    def __enter__(self) -> _Windows:
        self._owner = os.getpid()
        self._decoders = ThreadPoolExecutor(self._feeding.threads, "storagering-decode")
        self._assembler = ThreadPoolExecutor(1, "storagering-window")
        self._maker = WindowMaker(self._feeding.supply, self._feeding.groups, self._decoders, self._feeding.pool)
        return self

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._owner:  # forked: nobody here would end what was begun
            return
        self._assembler.shutdown(wait=False, cancel_futures=True)
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._assembler.shutdown(wait=True)
        self._decoders.shutdown(wait=True)
        self.recycle(len(self._plan.windows))

    def get(self, number: int) -> Window:
        """A window, waiting for it; the next is begun.

        Raises:
            LoaderError: the epoch was ended meanwhile.
        """
        # Chunks are waited for here, in a thread that the end of the program does not wait for.
        while number not in self._coming and not self._is_ready(number):
            if self._stopped.wait(_POLL_SECONDS):
                raise LoaderError("the iteration was ended while it waited for its data")
        for ahead in range(number, min(number + 1 + _WINDOWS_AHEAD, len(self._plan.windows))):
            if ahead not in self._coming and (ahead == number or self._is_ready(ahead)):
                self._coming[ahead] = self._assembler.submit(self._assemble, ahead)
        return self._coming[number].result()

    def _is_ready(self, number: int) -> bool:
        """Whether all chunks of a window are there; asked not more often than is worth while."""
        now = time.monotonic()
        if now < self._ask_again:
            return False
        ready = all(self._feeding.supply.is_ready(unit) for unit in self._plan.windows[number])
        self._ask_again = 0.0 if ready else now + _POLL_SECONDS
        return ready

    def recycle(self, before: int) -> None:
        """Windows before this one, which no batch needs any more, lend their memory to later ones."""
        for behind in [n for n in self._coming if n < before]:
            future = self._coming.pop(behind)
            if not future.cancelled() and future.exception() is None:
                self._maker.recycle(future.result())

    def _assemble(self, number: int) -> Window:
        supply = self._feeding.supply
        chunks = [chunk for unit in self._plan.windows[number] for chunk in supply.chunks(unit)]
        rows = self._plan.rows(number)
        if self._feeding.split is not None:
            taking_part = np.concatenate([in_split(c.start, c.stop, self._feeding.split) for c in chunks])
            rows = np.flatnonzero(taking_part)[rows]
        with supply.held(chunks):
            try:
                return self._maker.make(chunks, rows)
            except CorruptDataError:
                if not supply.mend(chunks):
                    raise
                return self._maker.make(chunks, rows)


class _End:
    """The last thing in the queue: why there is nothing more."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _prefetched(batches: Batches, ahead: int, stopped: threading.Event) -> Batches:
    ready: queue.Queue[BatchArrays | _End] = queue.Queue(ahead)

    def put(item: BatchArrays | _End) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for batch in batches:
                if not put(batch):
                    return
            put(_End(None))
        except BaseException as error:  # noqa: BLE001  (raised again where the batches are used)
            put(_End(error))
        finally:
            batches.close()  # ends the decoding threads

    thread = threading.Thread(target=work, name="storagering-gather", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join()


def count_entries(supply: ChunkSupply, split: tuple[float, float] | None) -> Sequence[int]:
    """Entries of each unit that take part."""
    if split is None:
        return supply.entries
    bounds = pairwise(accumulate(supply.entries, initial=0))
    return [int(in_split(start, stop, split).sum()) for start, stop in bounds]
