"""The port of a node: where it listens, under which conditions, and how slow askers are got rid of."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from storagering.cache.peers.address import is_loopback
from storagering.cache.peers.identity import NODE_HEADER
from storagering.errors import ConfigError, PeerError

_HEADER_BYTES = 8 << 10
_CONNECTIONS = 256
_IDLE_SECONDS = 2
_SHUTDOWN_SECONDS = 3


@dataclass(frozen=True)
class Door:
    """Where and how a node listens.

    Attributes:
        port: 0 picks a free one.
        certificate: files of a TLS certificate and of its key, None for plain HTTP.
    """

    host: str
    port: int
    token: str | None = field(default=None, repr=False)
    certificate: tuple[Path, Path] | None = None

    def check(self) -> None:
        """Raise ConfigError if it is not usable, or would be open to other machines without a token and TLS."""
        if not 0 <= self.port < 1 << 16:
            raise ConfigError(f"--port {self.port}: a port is a number from 0 to 65535")
        if not is_loopback(self.host):
            lacking = [
                what
                for what, there in (
                    ("a token (--token-file)", self.token),
                    ("TLS (--tls-cert, --tls-key)", self.certificate),
                )
                if not there
            ]
            if lacking:
                raise ConfigError(f"--host {self.host} is open to other machines, which needs {' and '.join(lacking)}")
        if self.certificate is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self.certificate)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"cannot use the certificate {self.certificate[0]} with its key") from error


def bind(door: Door) -> tuple[socket.socket, str]:
    """A listening socket, and the URL under which it is reached.

    Raises:
        ConfigError: it must not listen there, see `Door.check`.
        PeerError: it cannot.
    """
    door.check()
    try:
        family, _, _, _, address = socket.getaddrinfo(door.host, door.port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address[:2], family=family, backlog=_CONNECTIONS)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (")[0]
        raise PeerError(f"cannot listen on {door.host}, port {door.port}: {reason}") from error
    if not door.certificate and not is_loopback(listening.getsockname()[0]):
        listening.close()
        raise ConfigError(f"--host {door.host} is not an address of this machine alone")
    host = f"[{door.host}]" if ":" in door.host else door.host
    return listening, f"{'https' if door.certificate else 'http'}://{host}:{listening.getsockname()[1]}"


def serve(app: ASGIApp, listening: socket.socket, door: Door, timeout_seconds: float, *, node: str) -> None:
    """Answer until a signal (KeyboardInterrupt, SIGTERM) ends it; what is under way is given a few seconds.

    Args:
        node: id that is told in every answer.
    """
    certificate: dict[str, Any] = {}
    if door.certificate is not None:
        certificate = {"ssl_certfile": door.certificate[0], "ssl_keyfile": door.certificate[1]}
    config = uvicorn.Config(
        app,
        http=_timed_protocol(timeout_seconds),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # its lines hold what was asked for
        access_log=False,
        headers=[(NODE_HEADER, node)],
        server_header=False,
        date_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        **certificate,
    )
    uvicorn.Server(config).run(sockets=[listening])


def _timed_protocol(seconds: float) -> type[H11Protocol]:
    """The protocol of uvicorn, which cuts connections on which nothing moves for so long."""

    class Timed(H11Protocol):
        _request: asyncio.TimerHandle | None = None
        _reader: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._request = self.loop.call_later(seconds, _cut, transport)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                _cancel(self._request)
                self._request = None
            elif self._request is None:  # the headers of a further request have begun
                self._request = self.loop.call_later(seconds, _cut, self.transport)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._reader = self.loop.call_later(seconds, _cut, self.transport)

        def resume_writing(self) -> None:
            super().resume_writing()
            _cancel(self._reader)

        def timeout_keep_alive_handler(self) -> None:
            super().timeout_keep_alive_handler()
            self._reader = self.loop.call_later(seconds, _cut, self.transport)  # the last bytes may not be read

        def connection_lost(self, exc: Exception | None) -> None:
            _cancel(self._request)
            _cancel(self._reader)
            super().connection_lost(exc)

    return Timed


def _cut(transport: asyncio.Transport) -> None:
    """End a connection at once; without a reset, the kernel would keep what is not read."""
    with suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
