"""Some work on a cache, done again and again with a fault at each of its points in turn.

The work runs in forked processes, so that faults may kill them, and so that they need not import everything first.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from storagering import errors
from storagering.errors import InternalError, StorageringError
from storagering.testing.faults import READS, Fault, FaultyDisk, Kill, Point, PowerCut, Refusal, faulty

#: The last point of all work: whoever wanted it has been told that it is done.
END = "end"
Work = Callable[[Path], Any]
"""Done on a cache's root; what it returns must fit into JSON."""


@dataclass(frozen=True)
class Ended:
    """How work ended.

    Attributes:
        result: what it returned.
        error: what it raised, None if nothing.
        points: the calls it made, unless it was killed.
        killed: by a fault, or since it took too long.
    """

    result: Any = None
    error: StorageringError | None = None
    points: tuple[Point, ...] = ()
    killed: bool = False


@dataclass(frozen=True)
class Trial:
    """Work that a fault has struck, and then the same work without it.

    Attributes:
        struck: how the first ended.
        finished: how the second did, None before it was done.
    """

    root: Path
    point: Point
    struck: Ended
    finished: Ended | None = None


class Forks:
    """Does work in processes that are forked from one that has imported all that it needs."""

    def __init__(self, timeout_seconds: int = 60) -> None:
        """``timeout_seconds``: after which work is killed."""
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, timeout_seconds), daemon=True)
        self._process.start()
        theirs.close()
        self._imported: list[str] = []

    def run(self, work: Work, root: Path, number: int = -1, fault: Fault | None = None) -> Ended:
        """Do it, struck by the fault at its point of that number.

        Raises:
            InternalError: it raised what is no error of ours, or took too long.
        """
        imports, self._imported = self._imported, []
        self._connection.send((work, root, number, fault, imports))
        said = self._connection.recv()
        status = os.waitstatus_to_exitcode(self._connection.recv() if isinstance(said, tuple) else said)
        if isinstance(said, tuple):
            *done, self._imported = said
            return self._read(*done)
        if status != -signal.SIGKILL or not isinstance(fault, Kill | PowerCut):
            raise InternalError(f"the work ended with {status}: it took too long, or something else killed it")
        return Ended(killed=True)

    @staticmethod
    def _read(result: Any, error: tuple[str, str], points: Sequence[Sequence[Any]]) -> Ended:
        kind, message = error
        found = None
        if kind:
            found = getattr(errors, kind, InternalError)(message)
            if isinstance(found, InternalError):
                raise found
        return Ended(result, found, tuple(Point(*point) for point in points))

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join()

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Scenario:
    """Work that must be whole or not be, wherever a fault strikes.

    Attributes:
        prepare: makes the cache as it is before.
        action: what is struck. Without a fault, it ends in the same result each time, begun anew or gone on with.
        check: looks at the cache, once after the fault and once when the action was repeated without it; raises
            AssertionError if something is lost or wrong.
    """

    prepare: Work
    action: Work
    check: Callable[[Trial], None]


def run_at_every_point(
    forks: Forks, folder: Path, scenario: Scenario, fault: Fault, *, first: int = 0, every: int = 1
) -> list[Point]:
    """Strike the action at each of its points in turn, and repeat it; the result must be the one without a fault.

    Args:
        folder: to work in; the cache's root is ``folder/"cache"``.
        first, every: strike only at every so manieth point, from that one on.

    Returns:
        The points that were struck.

    Raises:
        AssertionError: what the check raises, or the result differs; the point is named.
        InternalError: the work raised what is no error of ours, or took too long.
    """
    root, prepared = folder / "cache", folder / "prepared"
    _run_well(forks, scenario.prepare, root)
    shutil.copytree(root, prepared)
    whole = _run_well(forks, scenario.action, root)
    points = [point for point in whole.points if _applies(fault, point)][first::every]
    for point in points:
        try:
            _renew(root, prepared)
            if isinstance(fault, PowerCut):
                _renew(fault.vault)
            struck = forks.run(scenario.action, root, point.number, fault)
            scenario.check(Trial(root, point, struck))
            finished = _run_well(forks, scenario.action, root)
            assert finished.result == whole.result  # noqa: S101
            scenario.check(Trial(root, point, struck, finished))
        except (AssertionError, StorageringError) as error:
            error.add_note(f"with {fault} at {point}")
            raise
    return points


def _run_well(forks: Forks, work: Work, root: Path) -> Ended:
    ended = forks.run(work, root)
    if ended.error is not None:
        raise ended.error
    return ended


def _renew(folder: Path, like: Path | None = None) -> None:
    """An empty folder, or a copy of another one."""
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
    if like is None:
        folder.mkdir()
    else:
        shutil.copytree(like, folder)


def _applies(fault: Fault, point: Point) -> bool:
    if isinstance(fault, Refusal):
        return fault.refuses(point.operation) and point.operation != END
    if isinstance(fault, Kill) and fault.partly:
        return point.operation in ("write", "remove_tree")
    return point.operation not in READS and (point.operation != END or isinstance(fault, PowerCut))


def _serve(connection: Connection, timeout_seconds: int) -> None:
    """Fork for every job that comes."""
    while True:
        try:
            *job, imports = connection.recv()
        except EOFError:
            return
        for name in imports:
            with suppress(Exception):  # what cannot be imported on its own is so when it is needed
                import_module(name)
        child = os.fork()
        if not child:
            signal.alarm(timeout_seconds)
            connection.send(_do(*job))
            os._exit(0)
        connection.send(os.waitpid(child, 0)[1])


def _do(work: Work, root: Path, number: int, fault: Fault | None) -> tuple[Any, ...]:
    """Result or error, points, and what was imported for it."""
    before = set(sys.modules)
    result, error = None, ("", "")
    with faulty(FaultyDisk(number, fault)) as disk:
        try:
            result = work(root)
            if not isinstance(fault, Refusal):
                disk.reach(END, root)
        except StorageringError as found:
            error = (type(found).__name__, str(found))
        except BaseException:  # noqa: BLE001  (told to whoever asked)
            error = ("InternalError", traceback.format_exc())
    points = [(point.number, point.operation, point.path) for point in disk.points]
    return result, error, points, sorted(set(sys.modules) - before)
