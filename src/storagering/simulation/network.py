"""Links that share their bandwidth: transfers flow side by side, each at an equal part of it at every moment."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from storagering.errors import SpecError


@dataclass(frozen=True, slots=True)
class Transfer:
    """A file that went over a link.

    Attributes:
        start, end: seconds; its first byte is sent at the start, its last arrives at the end.
        purpose: ``read`` for a job, ``placement`` before anybody asked.
    """

    source: str
    target: str
    nbytes: int
    start: float
    end: float
    purpose: str


class Clock:
    """Things to do at their times; those of one moment in the order in which they were planned."""

    def __init__(self) -> None:
        self.now = 0.0
        self._count = 0
        self._waiting: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, time: float, what: Callable[..., None], *arguments: Any) -> None:
        """Plan something; not before now."""
        self._count += 1
        heapq.heappush(self._waiting, (max(time, self.now), self._count, what, arguments))

    def run(self) -> None:
        """Do all of it, and what is planned meanwhile."""
        while self._waiting:
            self.now, _, what, arguments = heapq.heappop(self._waiting)
            what(*arguments)


class Link:
    """A way from one site to another.

    Transfers are served in equal parts (processor sharing): with n of them, each flows at a n-th of the bandwidth.
    What is kept is the number of bytes that a transfer present all the time would have got, at which each one ends.

    Args:
        bandwidth: bytes a second.
        latency: seconds before the first byte of a transfer flows.

    Attributes:
        sent: bytes put on the link, integrated over time.
    """

    def __init__(self, clock: Clock, source: str, target: str, bandwidth: float, latency: float) -> None:
        if not bandwidth > 0 or not latency >= 0:
            raise SpecError(
                f"link {source}-{target}: bandwidth={bandwidth} must be above 0, latency={latency} not below"
            )
        self.source, self.target, self.bandwidth, self.latency = source, target, bandwidth, latency
        self.sent = 0.0
        self.waiting = 0
        self._clock = clock
        self._since = self._level = 0.0
        self._turn = 0
        self._flowing: list[tuple[float, int, float, int, str, Callable[[Transfer], None]]] = []

    def send(self, nbytes: int, purpose: str, done: Callable[[Transfer], None]) -> None:
        """Send so many bytes; ``done`` is called when the last has arrived."""
        self.waiting += 1
        self._clock.at(self._clock.now + self.latency, self._begin, nbytes, purpose, done)

    def _begin(self, nbytes: int, purpose: str, done: Callable[[Transfer], None]) -> None:
        self._flow()
        self._turn += 1
        heapq.heappush(self._flowing, (self._level + nbytes, self._turn, self._clock.now, nbytes, purpose, done))
        self._plan()

    def _flow(self) -> None:
        """Bring what has flowed up to now."""
        passed, self._since = self._clock.now - self._since, self._clock.now
        if self._flowing:
            self.sent += passed * self.bandwidth
            self._level += passed * self.bandwidth / len(self._flowing)

    def _plan(self) -> None:
        self._turn += 1
        if self._flowing:
            left = max(0.0, self._flowing[0][0] - self._level) * len(self._flowing)
            self._clock.at(self._clock.now + left / self.bandwidth, self._end, self._turn)
        else:
            self._level = 0.0  # numbers stay small, and exact

    def _end(self, turn: int) -> None:
        if turn != self._turn:  # others have come or gone since this was planned
            return
        self._flow()
        level, _, start, nbytes, purpose, done = heapq.heappop(self._flowing)
        self._level = level
        self.waiting -= 1
        self._plan()
        done(Transfer(self.source, self.target, nbytes, start, self._clock.now, purpose))
