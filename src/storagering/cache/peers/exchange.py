"""One question to another node, which ends in time whatever the other side does.

Standard library only: its sockets let the time that is left be set before each read, so that no trickle of bytes,
in headers or in the body, holds anybody up. Redirections, proxies and passwords of the environment are not used.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, cast

from storagering.cache.peers.address import PeerAddress, is_loopback
from storagering.cache.peers.identity import NODE_HEADER
from storagering.errors import PeerError

#: What a node must send at least, once it sends; slower ones are given up.
MIN_BYTES_PER_SECOND = 1 << 20
_BLOCK_BYTES = 1 << 20


class Clock:
    """The time that an exchange has left."""

    def __init__(self, step_seconds: float) -> None:
        self._step = step_seconds
        self._end = time.monotonic() + step_seconds

    def allow(self, nbytes: int) -> None:
        """Give it the time that so many bytes may take."""
        self._end = time.monotonic() + self._step + nbytes / MIN_BYTES_PER_SECOND

    def left(self) -> float:
        """Seconds for the next step.

        Raises:
            TimeoutError: none are left.
        """
        left = min(self._step, self._end - time.monotonic())
        if left <= 0:
            raise TimeoutError
        return left


class Answer:
    """What a node answered: a status, and the bytes that follow.

    Attributes:
        status: of HTTP.
        nbytes: how many bytes it says will follow, None if it does not say.
        node: its id, as it says.
    """

    def __init__(self, peer: PeerAddress, response: HTTPResponse, link: _TimedSocket) -> None:
        self._peer, self._response, self._link = peer, response, link
        self.status = response.status
        self.nbytes = None if response.chunked else response.length
        self.node = response.headers.get(NODE_HEADER, "")

    def read(self, nbytes: int, each: Callable[[memoryview], object]) -> memoryview:
        """So many bytes.

        Args:
            each: called with every block as it comes.

        Raises:
            PeerError: the node sends fewer, or too slowly.
        """
        buffer = memoryview(bytearray(nbytes))
        self._link.clock.allow(nbytes)
        at = 0
        while at < nbytes:
            with network_errors(self._peer):
                count = self._response.readinto(buffer[at : at + _BLOCK_BYTES])
            if not count:
                raise PeerError(f"{self._peer.url} ends after {at:,} of {nbytes:,} bytes")
            each(buffer[at : at + count])
            at += count
        return buffer

    def close(self) -> None:
        """Hang up."""
        self._response.close()
        self._link.hang_up()


def ask(
    peer: PeerAddress,
    path: str,
    headers: Mapping[str, str],
    clock: Clock,
    tls: ssl.SSLContext | None,
    *,
    token: str | None,
) -> Answer:
    """Ask a node for a path; the answer is to be closed.

    Args:
        tls: for a node that is reached by TLS; made anew without it.
        token: told to it only over TLS or within this machine.

    Raises:
        PeerError: it does not answer in time, or not in HTTP.
    """
    with network_errors(peer):
        link = _connect(peer, clock, tls)
        try:
            sent = dict(headers)
            if token is not None and (peer.secure or (peer.local and link.is_local())):
                sent["Authorization"] = f"Bearer {token}"
            connection = HTTPConnection(peer.host, peer.port)
            connection.sock = cast(Any, link)
            connection.request("GET", f"{peer.prefix}{path}", headers=sent | {"Connection": "close"})
            return Answer(peer, connection.getresponse(), link)
        except BaseException:
            link.hang_up()
            raise


@contextmanager
def network_errors(peer: PeerAddress) -> Iterator[None]:
    """Turn what a socket or the HTTP client raises into a PeerError that names the node."""
    try:
        yield
    except TimeoutError as error:
        raise PeerError(f"{peer.url} does not answer in time") from error
    except ssl.SSLCertVerificationError as error:
        raise PeerError(
            f"{peer.url} is not trusted: {error.verify_message}; SSL_CERT_FILE can name a certificate to trust"
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        raise PeerError(f"{peer.url}: {getattr(error, 'strerror', None) or type(error).__name__}") from error


def _connect(peer: PeerAddress, clock: Clock, tls: ssl.SSLContext | None) -> _TimedSocket:
    link = socket.create_connection((peer.host, peer.port), timeout=clock.left())
    if not peer.secure:
        return _TimedSocket(link, clock)
    try:
        tls = tls or ssl.create_default_context()
        link.settimeout(clock.left())
        return _TimedSocket(tls.wrap_socket(link, server_hostname=peer.host), clock)
    except BaseException:
        link.close()
        raise


class _TimedSocket:
    """The few methods of a socket that the HTTP client uses, each within the time that is left."""

    def __init__(self, link: socket.socket, clock: Clock) -> None:
        self._link, self.clock = link, clock

    def is_local(self) -> bool:
        """Whether the other end is on this machine indeed."""
        return is_loopback(self._link.getpeername()[0])

    def sendall(self, data: bytes) -> None:
        self._link.settimeout(self.clock.left())
        self._link.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._link, self.clock), 1 << 16)

    def close(self) -> None:
        """The HTTP client is done with it before the body is read."""

    def hang_up(self) -> None:
        self._link.close()


class _TimedReader(io.RawIOBase):
    def __init__(self, link: socket.socket, clock: Clock) -> None:
        self._link, self._clock = link, clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._link.settimeout(self._clock.left())
        return self._link.recv_into(buffer)
