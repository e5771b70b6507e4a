"""Who may ask a node, for what, and how much at once: in front of everything else."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from storagering.cache.peers.address import is_loopback

_LONGEST_PATH = 512
_HEADER_BYTES = 8 << 10


@dataclass(frozen=True)
class Rules:
    """What the guard lets pass.

    Attributes:
        token: what everybody must show, None if nobody need.
        local_only: whether only names of this machine are answered to (a page of another site, open in a
            browser here, could have its name lead to this machine).
        concurrent: requests that are answered at the same time.
    """

    token: str | None = field(default=None, repr=False)
    local_only: bool = True
    concurrent: int = 64


class Guard:
    """Refuses what breaks the rules with a bare status; tells the operator, not the asker, what went wrong."""

    def __init__(self, app: ASGIApp, rules: Rules, tell: Callable[[str], None]) -> None:
        self._app, self._rules, self._tell = app, rules, tell
        self._active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status = self._refusal(scope)
        if status is None and self._active >= self._rules.concurrent:
            status = HTTPStatus.SERVICE_UNAVAILABLE
        if status is not None:
            await refuse(send, status)
            return
        started = False

        async def sending(message: dict[str, object]) -> None:
            nonlocal started
            started = True
            await send(message)

        self._active += 1
        try:
            await self._app(scope, receive, sending)  # type: ignore[arg-type]
        except Exception as error:
            self._tell(f"a request failed: {type(error).__name__}: {error}")
            if started:  # the connection is cut, so that nobody takes a part for the whole
                raise
            await refuse(send, HTTPStatus.INTERNAL_SERVER_ERROR)
        finally:
            self._active -= 1

    def _refusal(self, scope: Scope) -> HTTPStatus | None:
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        if not self._shows_token(headers):
            return HTTPStatus.UNAUTHORIZED
        if scope["method"] not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED
        if len(scope["raw_path"]) + len(scope["query_string"]) > _LONGEST_PATH:
            return HTTPStatus.REQUEST_URI_TOO_LONG
        if sum(len(name) + len(value) for name, value in headers) > _HEADER_BYTES:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers
        ):
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        if self._rules.local_only and not any(name == b"host" and _is_local(value) for name, value in headers):
            return HTTPStatus.MISDIRECTED_REQUEST
        return None

    def _shows_token(self, headers: list[tuple[bytes, bytes]]) -> bool:
        if self._rules.token is None:
            return True
        shown = [value for name, value in headers if name == b"authorization"]
        wanted = f"Bearer {self._rules.token}".encode()
        return len(shown) == 1 and hmac.compare_digest(shown[0], wanted)


def _is_local(host: bytes) -> bool:
    name, _, port = host.decode("latin-1").rpartition(":")
    if not name or not port.isdecimal():
        name = host.decode("latin-1")
    return is_loopback(name.strip("[]"))


async def refuse(send: Send, status: HTTPStatus) -> None:
    """A status and nothing else; the connection ends, so that what else came with the request is dropped."""
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    if status is HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": b""})
