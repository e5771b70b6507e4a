"""Trying again: soon at first, then less and less often, never in step with others, and not for long."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import TypeVar

from storagering.config import Settings
from storagering.errors import AuthError, RefusedError, SourceChangedError, SourceError

Result = TypeVar("Result")

_FIRST_DELAY_SECONDS = 0.25


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    return isinstance(error, SourceError) and not isinstance(error, AuthError | RefusedError | SourceChangedError)


def with_retries(action: Callable[[], Result], settings: Settings) -> Result:
    """What ``action`` gives, repeated ``settings.retries`` times at most while its failures may pass.

    It ends within ``settings.retry_seconds``, unless the first attempt takes longer. The delay before a
    repetition is random between 0 and a bound that doubles each time, so that the workers of a cluster do
    not return to a server all at once.

    Raises:
        StorageringError: the last failure.
    """
    begin = last = time.monotonic()
    bound = _FIRST_DELAY_SECONDS
    for _ in range(settings.retries):
        try:
            return action()
        except SourceError as error:
            now = time.monotonic()
            delay = bound * secrets.randbelow(1 << 16) / (1 << 16)
            end = now + delay + (now - last)  # of another attempt like this one
            if not is_passing(error) or end - begin > settings.retry_seconds:
                raise
        time.sleep(delay)
        last = time.monotonic()
        bound *= 2
    return action()
