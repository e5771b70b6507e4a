"""Which nodes are worth asking now: one that failed is left alone for a while, longer each time."""

from __future__ import annotations

import threading
import time

_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 300.0


class Health:
    """What is known of one node; safe to use from several threads.

    Attributes:
        reason: why it is left alone, '' if it is not.
        node: its id, '' until it has told.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._until = 0.0
        self.reason = self.node = ""

    def is_usable(self) -> bool:
        """Whether it may be asked: its pause is over, or it never failed."""
        with self._lock:
            return time.monotonic() >= self._until

    def succeed(self) -> None:
        """It answered as it should."""
        with self._lock:
            self._failures, self._until, self.reason = 0, 0.0, ""

    def fail(self, reason: str) -> None:
        """It did not; the reason is kept for messages."""
        with self._lock:
            now = time.monotonic()
            if now >= self._until:  # several requests that fail together count as one failure
                self._failures += 1
                pause = _FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures - 1, 10)
                self._until = now + min(pause, _LONGEST_PAUSE_SECONDS)
            self.reason = reason
