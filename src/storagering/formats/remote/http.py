"""Files on web servers, by ranges of which every one is checked to be what was asked for."""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import ssl
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import aiohttp
import fsspec.asyn

from storagering.config import Settings
from storagering.errors import RefusedError, SourceChangedError, SourceError
from storagering.formats.checksums import http_digest
from storagering.formats.remote.errors import source_errors
from storagering.formats.remote.plain import warn_if_plain
from storagering.formats.remote.ranges import Limits, Range, pick_ranges, plan_requests
from storagering.urls import redact_url

SCHEMES = ("http", "https", "dav", "davs")

_Result = TypeVar("_Result")
_LIMITS = Limits(elements=1, gap_bytes=32 << 10)
_REQUESTS_AT_ONCE = 8
_REDIRECTS = 8
#: A transfer slower than this is given up: a server can drip for ever.
_BYTES_PER_SECOND = 1 << 10
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)")
_GRID_CERTIFICATES = "/etc/grid-security/certificates"
#: Worth another attempt; every other 4xx is not.
_PASSING_STATUS = (408, 425, 429)


class _Answer(NamedTuple):
    status: int
    start: int
    size: int
    version: str
    body: bytes


class HTTPBlob:
    """See `storagering.formats.remote.reliable.ServedBlob`."""

    checksum = ""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        self._address = re.sub(r"^dav", "http", url)
        self._settings = settings
        found = self._wait(self._get((0, 1)))
        self.size, self.version = found.size, found.version

    def read(self, start: int, stop: int) -> memoryview:
        """See `Blob.read`."""
        return self.read_ranges([(start, stop)])[0]

    def read_ranges(self, ranges: Sequence[Range]) -> list[memoryview]:
        """See `Blob.read_ranges`: several requests at once."""
        wanted = [request[0] for request in plan_requests(ranges, _LIMITS)]
        found = self._wait(self._get_all(wanted))
        return pick_ranges(ranges, {r: memoryview(body) for r, body in zip(wanted, found, strict=True)})

    def stated_checksum(self) -> str:
        """See `ServedBlob.stated_checksum`: the digest header of the answer to a HEAD request, if any."""
        try:
            return self._wait(self._digest())
        except SourceError:
            return ""

    def close(self) -> None:
        """See `Blob.close`; connections stay open for the next file."""

    def _wait(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        with source_errors(self.url):
            return asyncio.run_coroutine_threadsafe(work, fsspec.asyn.get_loop()).result()

    async def _get_all(self, ranges: Sequence[Range]) -> list[bytes]:
        some = asyncio.Semaphore(_REQUESTS_AT_ONCE)

        async def get(wanted: Range) -> bytes:
            async with some:
                return self._checked(await self._get(wanted), wanted)

        tasks = [asyncio.ensure_future(get(wanted)) for wanted in ranges]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:  # the rest, after one has failed
                task.cancel()

    async def _get(self, wanted: Range) -> _Answer:
        start, stop = wanted
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        async with self._response("GET", headers) as response:
            where = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            if response.status == 416 and where:
                return _Answer(416, 0, int(where[3]), version, b"")
            if response.status >= 400:
                self._refuse(response.status)
            if response.status == 200 and response.headers.get("Content-Length") == "0":
                return _Answer(200, 0, 0, version, b"")
            if response.status != 206 or where is None or where[1] is None:
                raise RefusedError(
                    f"{redact_url(self.url)}: the server does not send parts of files; fetch it first, e.g. with curl"
                )
            return _Answer(206, int(where[1]), int(where[3]), version, await self._body(response, stop - start))

    async def _body(self, response: aiohttp.ClientResponse, wanted: int) -> bytes:
        """What is sent, though hardly more than is wanted and not at a drip."""
        parts: list[bytes] = []
        total = 0
        seconds = self._settings.request_timeout_seconds
        begin, count = asyncio.get_running_loop().time(), 0
        async for part in response.content.iter_any():
            parts.append(part)
            count += len(part)
            total += len(part)
            if total > wanted:
                break  # for `_checked` to refuse
            now = asyncio.get_running_loop().time()
            if now - begin > seconds:
                if count < _BYTES_PER_SECOND * seconds:
                    raise TimeoutError(f"{count:,} bytes in {now - begin:.0f} s")
                begin, count = now, 0
        return b"".join(parts)

    def _checked(self, answer: _Answer, wanted: Range) -> bytes:
        """The body, if it is that range of the file that was opened."""
        shown = redact_url(self.url)
        if (answer.size, answer.version) != (self.size, self.version):
            raise SourceChangedError(f"{shown} changed while it was being read; run the command again")
        if answer.start != wanted[0] or len(answer.body) != wanted[1] - wanted[0]:
            raise SourceError(
                f"{shown}: the server sent {len(answer.body):,} bytes from {answer.start:,} "
                f"in place of {wanted[0]:,} to {wanted[1]:,}"
            )
        return answer.body

    async def _digest(self) -> str:
        wanted = "adler32, crc32c, md5, sha-256"
        async with self._response("HEAD", {"Want-Digest": wanted, "Want-Repr-Digest": "sha-256=1, md5=1"}) as response:
            if response.status != 200:
                return ""
            stated = response.headers
            return http_digest(stated.get("Digest", "")) or http_digest(stated.get("Repr-Digest", ""))

    @asynccontextmanager
    async def _response(self, method: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, as far as its headers: these may come at a drip, and with redirects each time anew."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(self._settings.connect_timeout_seconds + self._settings.request_timeout_seconds):
                response = await stack.enter_async_context(self._request(method, headers))
            warn_if_plain(str(response.url))  # where a redirection has led to
            yield response

    def _request(self, method: str, headers: dict[str, str]) -> Any:
        settings = self._settings
        timeout = aiohttp.ClientTimeout(
            total=None,
            sock_connect=settings.connect_timeout_seconds,
            sock_read=settings.request_timeout_seconds,
        )
        return _session(asyncio.get_running_loop()).request(
            method, self._address, headers=headers | self._credentials(), timeout=timeout, max_redirects=_REDIRECTS
        )

    def _credentials(self) -> dict[str, str]:
        """The bearer token of the environment, over TLS only, and not beside a password in the URL.

        The client drops it on the way to another host.
        """
        wanted = self._address.startswith("https:") and "@" not in urlsplit(self._address).netloc
        token = bearer_token() if wanted else ""
        return {"Authorization": f"Bearer {token}"} if token else {}

    def _refuse(self, status: int) -> None:
        if status < 500 and status not in (401, 403, 404, *_PASSING_STATUS):
            raise RefusedError(f"{redact_url(self.url)}: the server answers {status}")
        raise _StatusError(status)


class _StatusError(OSError):
    """An answer that is no file, for `map_source_error`."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answers {status}")
        self.status = status


def bearer_token() -> str:
    """The token of the WLCG conventions: ``BEARER_TOKEN``, the file ``BEARER_TOKEN_FILE`` or ``bt_u<uid>``; else ''."""
    if token := os.environ.get("BEARER_TOKEN", "").strip():
        return token
    name = f"bt_u{os.getuid()}"
    places = [
        os.environ.get("BEARER_TOKEN_FILE", ""),
        f"{os.environ.get('XDG_RUNTIME_DIR', '')}/{name}",
        f"/tmp/{name}",  # noqa: S108  (where the conventions want it; the owner is checked)
    ]
    for place in places:
        with suppress(OSError, UnicodeDecodeError):
            if place and Path(place).stat().st_uid == os.getuid():
                return Path(place).read_text().strip()
    return ""


@cache
def _session(loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
    """The connections of this process; one session, as connections are worth keeping. Made inside the loop."""
    connector = aiohttp.TCPConnector(limit_per_host=2 * _REQUESTS_AT_ONCE, ssl=_tls())
    session = aiohttp.ClientSession(connector=connector, headers={"Accept-Encoding": "identity"}, auto_decompress=False)

    def close() -> None:
        if loop.is_running():
            with suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(session.close(), loop).result(1)

    atexit.register(close)
    return session


def _tls() -> ssl.SSLContext:
    """Verification by the system's authorities and the grid's, with the user's proxy certificate if there is one."""
    context = ssl.create_default_context()
    grid = os.environ.get("X509_CERT_DIR", _GRID_CERTIFICATES)
    if Path(grid).is_dir():
        context.load_verify_locations(capath=grid)
    proxy = os.environ.get("X509_USER_PROXY", "")
    if proxy and Path(proxy).is_file():
        context.load_cert_chain(proxy)
    return context
