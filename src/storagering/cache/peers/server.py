"""The service of a node: files by their digests, over HTTP, read-only."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from storagering.cache.peers.address import HOPS_HEADER, MAX_HOPS
from storagering.cache.peers.exchange import MIN_BYTES_PER_SECOND
from storagering.cache.peers.guard import Guard, Rules
from storagering.cache.peers.library import Library
from storagering.cache.peers.merging import MergedResolve, Resolve
from storagering.errors import CacheFullError, StorageringError
from storagering.files import load_mapped, map_file

_DIGEST = re.compile(r"[0-9a-f]{64}")
_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 5
#: Of the time that an asker waits: so it hears in time that it should ask somebody else.
_SHARE_FOR_RESOLVING = 0.8


def make_app(
    library: Library,
    rules: Rules,
    *,
    resolve: Resolve | None = None,
    timeout_seconds: float = 10.0,
    tell: Callable[[str], None] = lambda _message: None,
) -> ASGIApp:
    """The service as an ASGI application.

    Args:
        resolve: gets a chunk that is not here from elsewhere; called once for all who ask for it at a time.
        timeout_seconds: for one answer, and what its bytes may take at the least rate.
        tell: gets sentences for the operator.
    """
    return Guard(_Service(library, resolve, timeout_seconds, tell).router(), rules, tell)


class _Service:
    def __init__(
        self, library: Library, resolve: Resolve | None, timeout_seconds: float, tell: Callable[[str], None]
    ) -> None:
        self._library, self._timeout, self._tell = library, timeout_seconds, tell
        self._resolve = resolve
        self._merged = MergedResolve(self._look_and_resolve)

    def router(self) -> ASGIApp:
        routes = [
            Route("/v1/chunks/{digest}", self._chunk),
            Route("/v1/manifests/{name}", self._named(self._library.manifest)),
            Route("/v1/specs/{name}", self._named(self._library.manifest_of_spec)),
            Route("/v1/statistics/{name}", self._named(self._library.statistics)),
        ]
        return Router(routes, redirect_slashes=False)

    async def _chunk(self, request: Request) -> ASGIApp:
        digest = request.path_params["digest"]
        if not _DIGEST.fullmatch(digest):
            return _status(HTTPStatus.NOT_FOUND)
        answer = await asyncio.to_thread(self._open, digest)
        if answer is None and self._resolve is not None and _hops(request) < MAX_HOPS:
            try:
                answer = await self._open_resolved(digest)
            except (TimeoutError, CacheFullError):
                return _status(HTTPStatus.SERVICE_UNAVAILABLE)
            except StorageringError as error:
                self._tell(f"chunk {digest} cannot be had: {error}")
        return _status(HTTPStatus.NOT_FOUND) if answer is None else answer

    async def _open_resolved(self, digest: str) -> _Bytes | None:
        async with asyncio.timeout(self._timeout * _SHARE_FOR_RESOLVING):
            for _ in range(_ATTEMPTS):  # where there is little room, it may be evicted at once
                if await self._merged.resolve(digest) is None:
                    break
                if (answer := await asyncio.to_thread(self._open, digest)) is not None:
                    return answer
        return None

    def _open(self, digest: str) -> _Bytes | None:
        path = self._library.chunk(digest)
        with suppress(StorageringError, OSError):  # evicted just now
            if path is not None:
                view = map_file(path, path.lstat().st_size)
                return _Bytes(len(view), lambda start, stop: bytes(load_mapped(path, view, start, stop)), self._timeout)
        return None

    def _look_and_resolve(self, digest: str) -> Path | None:
        """Another request may have brought it since this one looked."""
        return self._library.chunk(digest) or (self._resolve(digest) if self._resolve else None)

    def _named(self, find: Callable[[str], bytes | None]) -> Callable[[Request], object]:
        async def answer(request: Request) -> ASGIApp:
            data = await asyncio.to_thread(find, request.path_params["name"])
            if data is None:
                return _status(HTTPStatus.NOT_FOUND)
            return _Bytes(len(data), lambda start, stop: data[start:stop], self._timeout)

        return answer


class _Bytes:
    """An answer of bytes, read block by block and sent in bounded time."""

    def __init__(self, size: int, read: Callable[[int, int], bytes], timeout_seconds: float) -> None:
        self._size, self._read = size, read
        self._seconds = timeout_seconds + size / MIN_BYTES_PER_SECOND

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        size = self._size
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", str(size).encode())]
        async with asyncio.timeout(self._seconds):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            for start in range(0, size, _BLOCK_BYTES) if scope["method"] == "GET" else ():
                block = await asyncio.to_thread(self._read, start, min(size, start + _BLOCK_BYTES))
                await send({"type": "http.response.body", "body": block, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


def _status(status: HTTPStatus) -> Response:
    return Response(status_code=status)


def _hops(request: Request) -> int:
    text = request.headers.get(HOPS_HEADER, "0")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else MAX_HOPS
