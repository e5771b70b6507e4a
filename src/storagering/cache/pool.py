"""Runs the tasks of a build in this process, or in several of their own."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

from storagering.cache.chunks import BuiltChunk
from storagering.cache.messages import BuildContext, Task, decode_reply, encode_message
from storagering.cache.worker import Report, run_task
from storagering.errors import WorkerDiedError

_TaskDone = Callable[[Task, tuple[BuiltChunk, ...]], None]


def run_tasks(
    context: BuildContext, tasks: Sequence[Task], workers: int, report: Report, known: Mapping[str, Any] | None = None
) -> list[tuple[BuiltChunk, ...]]:
    """The chunks of every task, in task order, whatever the number of workers.

    Args:
        known: the arrays of the only piece of the only task, if they were read already.

    Raises:
        WorkerDiedError: a worker process was killed, naming the signal.
        StorageringError: the first error of a task; the other workers are stopped.
    """
    if workers <= 1 or len(tasks) <= 1:
        return [run_task(context, task, report, known) for task in tasks]
    results: dict[int, tuple[BuiltChunk, ...]] = {}
    todo: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        todo.put(task)

    def done(task: Task, built: tuple[BuiltChunk, ...]) -> None:
        results[task.number] = built
        report(sum(s.stop - s.start for s in task.pieces), sum(b.chunk.raw_bytes for b in built))

    count = min(workers, len(tasks))
    processes: list[_Worker] = []
    with ThreadPoolExecutor(count, "storagering-build") as threads:
        try:
            processes.extend(_Worker(context) for _ in range(count))  # one by one, so that all are ended
            futures = [threads.submit(worker.serve, todo, done) for worker in processes]
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()
            for future in futures:
                future.result()
        finally:
            for worker in processes:
                worker.kill()
    return [results[task.number] for task in tasks]


class _Worker:
    """One process; a plain one, so that a user's script needs no ``if __name__ == '__main__'``."""

    def __init__(self, context: BuildContext) -> None:
        self._context = context
        self._process = subprocess.Popen(
            [sys.executable, "-m", "storagering.cache.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._killed = threading.Event()

    def serve(self, todo: queue.SimpleQueue[Task], done: _TaskDone) -> None:
        assert self._process.stdout is not None  # noqa: S101  (PIPE above)
        self._send(encode_message(self._context))
        while not self._killed.is_set():
            try:
                task = todo.get_nowait()
            except queue.Empty:
                return
            self._send(encode_message(task))
            reply = self._process.stdout.readline()
            if not reply.endswith(b"\n"):
                raise self._died()
            done(task, decode_reply(reply))

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101  (PIPE above)
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _died(self) -> WorkerDiedError:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return WorkerDiedError(
            f"a conversion worker ended ({how}); run the command again, with fewer --workers if memory is short"
        )

    def kill(self) -> None:
        """End the process at once; it has nothing to clean up."""
        self._killed.set()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
