"""Runs the tasks of a build in this process, or in several of their own."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from typing import Any

from storagering.cache.finished import BuiltChunks
from storagering.cache.messages import BuildContext, Task, decode_reply, encode_message, read_by
from storagering.cache.opened import KeptSource, OpenSources
from storagering.cache.run import Run
from storagering.cache.worker import run_task
from storagering.errors import ResourceError, StorageringError, WorkerDiedError

#: A worker that is killed while it does a task may be out of memory by the fault of others.
_MAX_DEATHS = 3
#: A process takes as long to start as two tasks to do.
_TASKS_PER_PROCESS = 2


def run_tasks(
    context: BuildContext, run: Run, workers: int, kept: KeptSource, known: Mapping[str, Any] | None = None
) -> None:
    """Do what is to do in a run, in order.

    Args:
        kept: may have a source that is open already.
        known: the arrays of the only piece of the only task, if they were read already.

    Raises:
        ResourceError: no process can be started.
        WorkerDiedError: a task's worker processes were killed again and again, naming the signal.
        StorageringError: the first error that the run ends with; the other workers are stopped.
    """
    count = min(workers, -(-len(run.todo) // _TASKS_PER_PROCESS))
    if count <= 1:
        with closing(OpenSources(context, kept)) as sources:
            for task in run.todo:
                if run.wanted(task):
                    _run_here(context, task, run, known, sources)
        return
    crew = _Crew(context, run)
    with ThreadPoolExecutor(count, "storagering-build") as threads:
        try:
            futures = [threads.submit(crew.serve) for _ in range(count)]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        finally:
            crew.stop()


def _run_here(
    context: BuildContext, task: Task, run: Run, known: Mapping[str, Any] | None, sources: OpenSources
) -> None:
    try:
        built = run_task(context, task, run.advance, known, sources)
    except StorageringError as error:
        sources.close()
        run.failed(task, error)
    else:
        run.done(task, built)


class _Crew:
    """The processes of a build; each thread that serves has one of its own."""

    def __init__(self, context: BuildContext, run: Run) -> None:
        self._context, self._run = context, run
        self._todo: queue.SimpleQueue[Task] = queue.SimpleQueue()
        for task in run.todo:
            self._todo.put(task)
        self._lock = threading.Lock()
        self._stopped = False
        self._workers: list[_Worker] = []

    def serve(self) -> None:
        """Do tasks until there are none."""
        worker: _Worker | None = None
        while not self._stopped:
            try:
                task = self._todo.get_nowait()
            except queue.Empty:
                return
            if self._run.wanted(task):
                worker = self._do(task, worker)

    def _do(self, task: Task, worker: _Worker | None) -> _Worker | None:
        """Do one task; returns the worker for the next one."""
        how = ""
        for _ in range(_MAX_DEATHS):
            if how:
                self._run.lost(task, how)
            worker = worker or self._hire()
            if worker is None:
                return None
            try:
                built = worker.run(task)
            except _Death as death:
                if self._stopped:
                    return None
                worker, how = None, death.how
            except StorageringError as error:
                self._run.failed(task, error)
                return worker
            else:
                self._run.done(task, built)
                self._run.advance(task.entries, sum(b.chunk.raw_bytes for b in built))
                return worker
        raise WorkerDiedError(
            f"a conversion worker ended ({how}), {_MAX_DEATHS} times over the same work "
            f"(of {read_by(self._context, task)}); run the command again to go on, with fewer --workers or a smaller "
            "--chunk-bytes if memory is short"
        )

    def _hire(self) -> _Worker | None:
        with self._lock:
            if self._stopped:
                return None
            try:
                worker = _Worker(self._context)
            except OSError as error:
                raise ResourceError(
                    f"cannot start a conversion worker ({error.strerror}); take fewer --workers, or allow more "
                    "open files and processes ('ulimit -n', 'ulimit -u')"
                ) from error
            self._workers.append(worker)
            return worker

    def stop(self) -> None:
        """End all processes at once; they have nothing to clean up."""
        with self._lock:
            self._stopped = True
            for worker in self._workers:
                worker.kill()


class _Death(Exception):  # noqa: N818  (never leaves this file)
    def __init__(self, how: str) -> None:
        self.how = how


class _Worker:
    """One process; a plain one, so that a user's script needs no ``if __name__ == '__main__'``."""

    def __init__(self, context: BuildContext) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "storagering.cache.worker"],  # -P: no modules of the folder we are in
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._greeting = encode_message(context)

    def run(self, task: Task) -> BuiltChunks:
        assert self._process.stdout is not None  # noqa: S101  (PIPE below)
        self._send(self._greeting + encode_message(task))
        self._greeting = b""
        reply = self._process.stdout.readline()
        if not reply.endswith(b"\n"):
            raise self._death()
        return decode_reply(reply)

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101  (PIPE above)
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None

    def _death(self) -> _Death:
        code = self._process.wait()
        return _Death(signal.Signals(-code).name if code < 0 else f"exit code {code}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
