"""Doing once what several ask for at the same time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

Resolve = Callable[[str], Path | None]
"""Gets the chunk with that digest from elsewhere: its file, None if nobody has it. Called in a thread."""


class MergedResolve:
    """Resolves each name once at a time, however many wait for it. Used from one event loop."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._running: dict[str, asyncio.Future[Path | None]] = {}

    async def resolve(self, digest: str) -> Path | None:
        """What `Resolve` gives, or raises; the work goes on for others when this one is cancelled."""
        future = self._running.get(digest)
        if future is None:
            future = self._running[digest] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: self._finish(digest, done))
            # A thread of its own: those of a pool would keep the process from ending.
            threading.Thread(target=self._work, args=(digest, future), name="resolve", daemon=True).start()
        return await asyncio.shield(future)

    def _finish(self, digest: str, future: asyncio.Future[Path | None]) -> None:
        del self._running[digest]
        if not future.cancelled():
            future.exception()  # whoever waited is told; maybe nobody waits any more

    def _work(self, digest: str, future: asyncio.Future[Path | None]) -> None:
        loop = future.get_loop()
        try:
            path = self._resolve(digest)
        except BaseException as error:  # noqa: BLE001  (it belongs to who waits)
            self._tell(loop, future.set_exception, error)
        else:
            self._tell(loop, future.set_result, path)

    @staticmethod
    def _tell(loop: asyncio.AbstractEventLoop, call: Callable[..., None], value: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(call, value)
