"""A loopback HTTP server with byte ranges, a log of its requests and faults on demand."""

import contextlib
import mimetypes
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args
from urllib.parse import quote, unquote, urlsplit

from storagering.errors import InputError, NotFoundError

Fault = Literal["404", "403", "500", "reset", "stall", "short", "slow", "wrong-range", "no-range", "redirect-loop"]
_HOST = "127.0.0.1"
_COPY_BYTES = 1 << 20
_DRIP_SECONDS = 0.2
_SINGLE_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")


class Request(NamedTuple):
    """One request as the server received it.

    Attributes:
        method: ``GET`` or ``HEAD``.
        path: Path with its query, as sent.
        range: The ``Range`` header, None without one.
        authorization: The ``Authorization`` header, None without one.
    """

    method: str
    path: str
    range: str | None
    authorization: str | None = None


class _Unsatisfiable(Exception):  # noqa: N818 - never leaves this file
    """The range asked for lies outside the file."""


class HTTPServer:
    """A running HTTP server; made by `http_server`.

    Attributes:
        port: TCP port on 127.0.0.1.
        root: The folder that it serves.
        requests: Every request so far, in order of arrival, those answered by a fault included.
        redirect_to: Where every request is sent on to with its path, e.g. ``http://127.0.0.1:8080``; '' to answer it.
        digest: The ``Repr-Digest`` header of every answer, '' for none.
    """

    def __init__(self, root: Path, certificate: tuple[Path, Path] | None = None) -> None:
        self.root = root.resolve()
        self.requests: list[Request] = []
        self.redirect_to = self.digest = ""
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._fault_left: int | None = None
        self._healed = threading.Event()
        self._server = _Server((_HOST, 0), _Handler)
        self._server.owner = self
        self._scheme = "http"
        if certificate is not None:
            self._scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def fault(self) -> Fault | None:
        """What goes wrong with every request from now on, None for nothing.

        ``"404"``, ``"403"``, ``"500"``: that status. ``"reset"``: the connection is reset before an answer.
        ``"stall"``: headers and half of the body, then silence until the fault is changed. ``"short"``: headers
        and half of the body, then the connection is closed. ``"slow"``: the body byte by byte, five a second.
        ``"wrong-range"``: the range one byte later. ``"no-range"``: the whole file, whatever the range.
        ``"redirect-loop"``: a redirection to the same address.

        Raises:
            InputError: It is set to something else.
        """
        return self._fault

    @fault.setter
    def fault(self, fault: Fault | None) -> None:
        self.fail(fault)

    def fail(self, fault: Fault | None, times: int | None = None) -> None:
        """Set `fault` for the next ``times`` requests only (None: until it is changed).

        Raises:
            InputError: There is no such fault.
        """
        if fault is not None and fault not in get_args(Fault):
            raise InputError(f"there is no fault {fault!r}; there are: {', '.join(get_args(Fault))}")
        with self._lock:
            self._healed.set()
            self._healed = threading.Event()
            self._fault, self._fault_left = fault, times

    def url(self, name: str) -> str:
        """The address of the file ``name`` of the folder (it need not exist)."""
        return f"{self._scheme}://{_HOST}:{self.port}/{quote(name.lstrip('/'))}"

    def _receive(self, request: Request) -> tuple[Fault | None, threading.Event]:
        """Log a request; return the fault that it meets and the event that ends a stall."""
        with self._lock:
            self.requests.append(request)
            if self._fault_left is not None:
                if self._fault_left == 0:
                    self._fault = self._fault_left = None
                else:
                    self._fault_left -= 1
            return self._fault, self._healed

    def _close(self) -> None:
        self.fail(None)
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()
        self._thread.join()


@contextlib.contextmanager
def http_server(root: Path, certificate: tuple[Path, Path] | None = None) -> Iterator[HTTPServer]:
    """Serve a folder over HTTP on a free loopback port, from threads of this process.

    One range a request is honoured; several at once are answered with the whole file, as RFC 9110 allows.
    Every answer carries a strong ``ETag`` and ``Last-Modified``.

    Args:
        root: Folder to serve, as it is at the time of each request.
        certificate: Files of a certificate and its key, to serve by HTTPS.

    Yields:
        The server. At the end its connections are closed, stalled ones too.

    Raises:
        NotFoundError: ``root`` is not a folder.
    """
    if not root.is_dir():
        raise NotFoundError(f"{root} is not a folder; pass the folder that the HTTP server is to serve")
    server = HTTPServer(root, certificate)
    server._thread.start()
    try:
        yield server
    finally:
        server._close()


class _Server(ThreadingHTTPServer):
    """The listening socket; remembers its connections so that none outlives the server."""

    daemon_threads = True
    request_queue_size = 128  # with the usual 5, clients that open many connections wait for a second
    owner: HTTPServer

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        with self._open_lock:
            self._open.add(cast(socket.socket, request))
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        with self._open_lock:
            self._open.discard(cast(socket.socket, request))
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what tests do on purpose: print nothing."""

    def close_connections(self) -> None:
        """Wake the threads that wait for a next request on a connection that is kept alive."""
        with self._open_lock:
            for link in self._open:
                with contextlib.suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    protocol_version = "HTTP/1.1"
    # Headers and body are two writes: with Nagle's algorithm each answer would wait for a delayed ACK.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Write nothing to stderr: the log is `HTTPServer.requests`."""

    def _answer(self, *, body: bool) -> None:
        owner = cast(_Server, self.server).owner
        asked = (self.headers.get("Range"), self.headers.get("Authorization"))
        fault, healed = owner._receive(Request(self.command, self.path, *asked))
        if fault == "reset":
            return self._reset()
        if fault in ("403", "404", "500"):
            return self._status(HTTPStatus(int(fault)))
        if fault == "redirect-loop" or owner.redirect_to:
            return self._redirect("" if fault else owner.redirect_to)
        path = (owner.root / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        if not (path.is_relative_to(owner.root) and path.is_file()):
            return self._status(HTTPStatus.NOT_FOUND)
        try:
            start, stop = self._headers_of(path, fault, owner.digest)
        except _Unsatisfiable:
            return self._status(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"bytes */{path.stat().st_size}")
        if body:
            broken = fault in ("short", "stall")
            step, pause = (1, _DRIP_SECONDS) if fault == "slow" else (_COPY_BYTES, 0.0)
            self._send(path, start, start + (stop - start) // 2 if broken else stop, step, lambda: healed.wait(pause))
            if fault == "stall":
                healed.wait()
            self.close_connection = self.close_connection or broken
        return None

    def _headers_of(self, path: Path, fault: Fault | None, digest: str) -> tuple[int, int]:
        """Send the headers of a file or range of it; return the first byte to send and that after the last."""
        stat = path.stat()
        span = None if fault == "no-range" else _byte_range(self.headers.get("Range"), stat.st_size)
        if span and fault == "wrong-range" and span[1] < stat.st_size:
            span = (span[0] + 1, span[1] + 1)
        start, stop = span or (0, stat.st_size)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if span else HTTPStatus.OK)
        self.send_header("Content-Type", mimetypes.guess_type(path.name)[0] or "application/octet-stream")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{stat.st_size:x}-{stat.st_mtime_ns:x}"')
        self.send_header("Last-Modified", self.date_time_string(int(stat.st_mtime)))
        if digest:
            self.send_header("Repr-Digest", digest)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{stat.st_size}")
        self.end_headers()
        return start, stop

    def _send(self, path: Path, start: int, stop: int, step: int, pause: Callable[[], object]) -> None:
        with path.open("rb") as file:
            file.seek(start)
            while start < stop and (data := file.read(min(step, stop - start))):
                self.wfile.write(data)
                start += len(data)
                pause()

    def _redirect(self, server: str) -> None:
        self.send_response(HTTPStatus.FOUND)
        self.send_header("Location", server + self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _status(self, status: HTTPStatus, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()

    def _reset(self) -> None:
        """Close without lingering, which makes the kernel send RST in place of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Two file objects hold the socket; it is closed only when the last of them is.
        self.rfile.close()
        self.connection.close()
        self.close_connection = True


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 that signs itself, and its key.

    Returns:
        Their paths. A client trusts the server if the environment's ``SSL_CERT_FILE`` names the first.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _HOST)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address(_HOST))])
    signed = builder.add_extension(alternative, critical=False).sign(key, hashes.SHA256())
    paths = folder / "server.pem", folder / "server.key"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths[1].write_bytes(key.private_bytes(*form))
    return paths


def _byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and that after the last of a single range; None for the whole file."""
    match = _SINGLE_RANGE.match(header or "")
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
    if start >= stop:
        raise _Unsatisfiable
    return start, stop
