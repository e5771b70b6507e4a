"""Threads of a loader. Unlike those of the standard library's pools, they never hold up the end of a program."""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from storagering.errors import ResourceError

_Result = TypeVar("_Result")
_Job = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


class ThreadCrew:
    """So many threads that do one job after the other. Close it.

    A thread that stands still in a job (a disk that does not answer) is left behind when it is closed; it ends with
    the program.
    """

    def __init__(self, size: int, name: str) -> None:
        self._soon: deque[_Job] = deque()
        self._jobs: deque[_Job] = deque()
        self._closed = False
        self._wake = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(size)
        ]
        for thread in self._threads:
            thread.start()
        self.last_done = time.monotonic()

    def submit(self, job: Callable[..., _Result], *arguments: Any, soon: bool = False) -> Future[_Result]:
        """Have a job done, ``soon`` before those that wait already; in order; it is cancelled if the crew is closed."""
        future: Future[_Result] = Future()
        future.add_done_callback(self._note)
        with self._wake:
            if self._closed:
                future.cancel()
            else:
                (self._soon if soon else self._jobs).append((future, job, arguments))
            self._wake.notify()
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
        with self._wake:
            self._closed = True
            dropped = [*self._soon, *self._jobs]
            self._soon.clear()
            self._jobs.clear()
            self._wake.notify_all()
        for future, _, _ in dropped:
            future.cancel()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while (job := self._next()) is not None:
            future, function, arguments = job
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*arguments)
                except BaseException as error:  # noqa: BLE001  (raised again where the result is used)
                    future.set_exception(_explained(error))
                else:
                    future.set_result(result)
                result = None
            del job, future, function, arguments  # what a job held, it does not hold while the thread waits

    def _next(self) -> _Job | None:
        with self._wake:
            while not (self._soon or self._jobs):
                if self._closed:
                    return None
                self._wake.wait()
            return (self._soon or self._jobs).popleft()


def _explained(error: BaseException) -> BaseException:
    """The error; the compiler, which reads what it made before, knows no better than the system's."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        explained = ResourceError(f"no more files can be opened ({error.strerror}); raise the limit with 'ulimit -n'")
        explained.__cause__ = error
        return explained
    return error
