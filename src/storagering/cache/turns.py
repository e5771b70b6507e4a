"""Taking turns: of many processes that want the same dataset one builds it, and a stopped one stops nobody."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from storagering.cache.layout import Cache
from storagering.cache.progress import BuildProgress
from storagering.errors import LockTimeoutError
from storagering.files import FileLock

#: How often those who wait look whether the dataset has appeared.
_LOOK_SECONDS = 1.0


@contextmanager
def turn_to_build(cache: Cache, name: str, progress: BuildProgress) -> Iterator[bool]:
    """The turn to build a dataset, waiting for whoever has it as long as that one gets something done.

    A holder that gets nothing done for ``lock_timeout_seconds`` may be stopped, or hang: the turn is then taken
    beside it. The wait also ends when the dataset appears.

    Yields:
        Whether nobody else has the turn. If not, whoever publishes first wins.

    Raises:
        LockTimeoutError: the holder adds to a dataset of that name, or mends it: nobody can do that beside it.
    """
    for number in itertools.count():
        lock = cache.build_lock(name, number)
        if _wait(cache, name, lock, progress):
            break
        progress.tell(f"process {lock.holder()}, which holds {lock.path}, does nothing: going on without it")
    try:
        yield number == 0 and lock.descriptor is not None  # without the lock, the dataset has appeared
    finally:
        lock.release()


def _wait(cache: Cache, name: str, lock: FileLock, progress: BuildProgress) -> bool:
    """Wait for a lock, or for the dataset; False if the holder stands still."""
    timeout = cache.settings.lock_timeout_seconds
    deadline, work = time.monotonic() + timeout, cache.work_on(name)
    tell: Callable[[str], None] | None = progress.tell
    while True:
        try:
            lock.acquire(min(timeout, _LOOK_SECONDS), tell)
        except LockTimeoutError:
            tell = None  # once is enough
        else:
            return True
        if cache.contains(name):
            return True
        if time.monotonic() > deadline:
            before, work = work, cache.work_on(name)
            if work == before:
                _check_replaceable(cache, name, lock)
                return False
            deadline = time.monotonic() + timeout


def _check_replaceable(cache: Cache, name: str, lock: FileLock) -> None:
    if cache.is_changing(name):
        raise LockTimeoutError(
            f"process {lock.holder()}, which holds {lock.path}, did nothing for "
            f"{cache.settings.lock_timeout_seconds:g} s, and may still change dataset {name!r}: end it first"
        )
