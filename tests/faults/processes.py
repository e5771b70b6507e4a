"""Processes that start within milliseconds, as they are forked from a server that has imported everything."""

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

#: A process has one such server: all who start processes ask for the same.
PRELOAD = [
    "storagering.api",
    "storagering.cache.append",
    "storagering.cache.build",
    "storagering.cache.repair",
    "storagering.catalog.index",
    "storagering.formats.readers.root",
    "storagering.formats.readers.ttree",
    "storagering.loaders.torch",
    "storagering.training.checkpoint",
    "tests.faults.held",
    "tests.faults.processes",
]
_TIMEOUT_SECONDS = 120


class Child:
    """A process that calls a function, under this process's settings, as the leader of a session of its own.

    Attributes:
        pid: its number.
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        self._results, end = context.Pipe(duplex=False)
        environment = {name: value for name, value in os.environ.items() if name.startswith("STORAGERING_")}
        self.process = context.Process(target=_run, args=(end, environment, function, arguments))
        self.process.start()
        end.close()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    def result(self, seconds: float = _TIMEOUT_SECONDS) -> Any:
        """What the function returned."""
        assert self._results.poll(seconds), "the process does not end"
        try:
            failure, value = self._results.recv()
        except EOFError:
            self.process.join(_TIMEOUT_SECONDS)
            raise AssertionError(f"the process ended with {self.process.exitcode}") from None
        self.process.join(_TIMEOUT_SECONDS)
        self._results.close()
        assert not failure, failure
        return value

    def kill(self) -> None:
        """End it, and whatever it started, by SIGKILL."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not yet come to lead its session, or is gone
            self.process.kill()
        self.join()

    def join(self) -> int:
        """Wait for its end; its exit code."""
        self.process.join(_TIMEOUT_SECONDS)
        self._results.close()
        assert self.process.exitcode is not None, "the process does not end"
        return self.process.exitcode

    def wait_until_stopped(self) -> None:
        """Wait until SIGSTOP has stopped it."""
        wait_for(lambda: psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)

    def go_on(self) -> None:
        """Let it go on after SIGSTOP."""
        os.kill(self.pid, signal.SIGCONT)


def results(children: Iterable[Child]) -> list[Any]:
    """What all of them returned."""
    return [child.result() for child in children]


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not become so"
        time.sleep(0.002)


def touch_first(path: Path) -> bool:
    """Whether this is the first process to touch a file."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _run(end: Any, environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    for name in [name for name in os.environ if name.startswith("STORAGERING_")]:
        del os.environ[name]
    os.environ.update(environment)
    try:
        answer = ("", function(*arguments))
    except BaseException as error:  # noqa: BLE001  (the test reports it)
        answer = ("".join(traceback.format_exception(error)), None)
    end.send(answer)
    end.close()
