"""Threads of a loader. Unlike those of the standard library's pools, they never hold up the end of a program."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

_Result = TypeVar("_Result")
_Job = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


class ThreadCrew:
    """So many threads that do one job after the other. Close it.

    A thread that stands still in a job (a disk that does not answer) is left behind when it is closed; it ends with
    the program.
    """

    def __init__(self, size: int, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=_work, args=(self._jobs,), name=f"{name}-{number}", daemon=True)
            for number in range(size)
        ]
        for thread in self._threads:
            thread.start()
        self.last_done = time.monotonic()

    def submit(self, job: Callable[..., _Result], *arguments: Any) -> Future[_Result]:
        """Have a job done; it is cancelled if the crew is closed."""
        future: Future[_Result] = Future()
        future.add_done_callback(self._note)
        with self._lock:
            if self._closed:
                future.cancel()
            else:
                self._jobs.put((future, job, arguments))
        return future

    def _note(self, _future: Future[Any]) -> None:
        self.last_done = time.monotonic()

    def map(self, job: Callable[..., _Result], items: Iterable[Any]) -> list[_Result]:
        """The job done for every item; the first error in order, when all have ended."""
        futures = [self.submit(job, item) for item in items]
        errors = [future.exception() for future in futures]
        for error in errors:
            if error is not None:
                raise error
        return [future.result() for future in futures]

    def close(self, seconds: float) -> None:
        """Drop what is not begun, and wait up to so long for what is."""
        with self._lock:
            self._closed = True
        with suppress(Empty):
            while (job := self._jobs.get_nowait()) is not None:
                job[0].cancel()
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        future, function, arguments = job
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = function(*arguments)
        except BaseException as error:  # noqa: BLE001  (raised again where the result is used)
            future.set_exception(error)
        else:
            future.set_result(result)
        del job, future, function, arguments  # what a job held, it does not hold while the thread waits
        result = None
