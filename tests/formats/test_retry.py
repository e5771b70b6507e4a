"""Repeating what failed: only where that may help, ever less often, and not for long."""

from dataclasses import replace
from itertools import count

import pytest

from storagering.config import Settings, load_settings
from storagering.errors import (
    AuthError,
    ChecksumError,
    NotFoundError,
    RefusedError,
    SourceChangedError,
    SourceError,
    SourceTimeoutError,
    StorageringError,
    UnreachableError,
)
from storagering.formats.remote import retry
from storagering.formats.remote.retry import with_retries


class Clock:
    """A time that passes only when someone sleeps."""

    def __init__(self) -> None:
        self.now, self.delays = 0.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.delays.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    return clock


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def fail(error: StorageringError, attempts: list[int]) -> None:
    attempts.append(1)
    raise error


@pytest.mark.parametrize("kind", [SourceError, UnreachableError, SourceTimeoutError])
def test_what_may_pass_is_repeated(clock: Clock, settings: Settings, kind: type[StorageringError]) -> None:
    attempts: list[int] = []
    with pytest.raises(kind):
        with_retries(lambda: fail(kind("no"), attempts), replace(settings, retries=3, retry_seconds=60))
    assert len(attempts) == 4
    assert all(delay <= 0.25 * 2**number for number, delay in enumerate(clock.delays))


@pytest.mark.parametrize("kind", [AuthError, RefusedError, SourceChangedError, NotFoundError, ChecksumError])
def test_what_will_not_pass_is_not(clock: Clock, settings: Settings, kind: type[StorageringError]) -> None:
    attempts: list[int] = []
    with pytest.raises(kind):
        with_retries(lambda: fail(kind("no"), attempts), settings)
    assert len(attempts) == 1
    assert not clock.delays


def test_the_time_is_bounded(clock: Clock, settings: Settings) -> None:
    attempts: list[int] = []
    with pytest.raises(SourceError):
        with_retries(lambda: fail(SourceError("no"), attempts), replace(settings, retries=1000, retry_seconds=5))
    assert clock.now <= 5
    assert len(attempts) < 50


def test_a_slow_failure_is_not_repeated(clock: Clock, settings: Settings) -> None:
    def stall() -> None:
        clock.now += 6
        raise SourceTimeoutError("no")

    with pytest.raises(SourceTimeoutError):
        with_retries(stall, settings)
    assert clock.now == 6


def test_workers_do_not_return_in_step(clock: Clock, settings: Settings) -> None:
    for _ in range(20):
        with pytest.raises(SourceError):
            with_retries(lambda: fail(SourceError("no"), []), replace(settings, retries=1))
    assert len(set(clock.delays)) > 10
    assert min(clock.delays) < 0.125 < max(clock.delays) <= 0.25


def test_success_ends_it(clock: Clock, settings: Settings) -> None:
    numbers = count()

    def work() -> int:
        number = next(numbers)
        if number < 2:
            raise SourceError("not yet")
        return number

    assert with_retries(work, settings) == 2
