"""Files on XRootD servers, through the client of the XRootD project: every call has a timeout."""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from storagering.config import Settings
from storagering.errors import MissingExtraError, NotFoundError, SourceChangedError, SourceError, StorageringError
from storagering.formats.checksums import known_checksum
from storagering.formats.remote.errors import map_source_error, source_errors
from storagering.formats.remote.ranges import Limits, Range, Request, pick_ranges, plan_requests
from storagering.urls import redact_url

_NO_RECOVERY = "xrdcl.recover-reads=false"
#: XRootD's names; its crc32 is the one of POSIX cksum, which nothing else here knows.
_CHECKSUMS = {"zcrc32": "crc32", "crc32": "posix-crc32"}
SCHEMES = ("root", "roots", "xroot", "xroots")


class XRootDBlob:
    """See `storagering.formats.remote.reliable.ServedBlob`."""

    checksum = ""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        self._settings = settings
        client = load_client(settings)
        self._file = client.File()
        # Left to itself, the client opens a file anew after a failure, whatever lies there by then.
        self._call("open", f"{url}{'&' if '?' in url else '?'}{_NO_RECOVERY}", client.flags.OpenFlags.READ)
        self.size, self.version = self._stat()

    def read(self, start: int, stop: int) -> memoryview:
        """See `Blob.read`."""
        return self.read_ranges([(start, stop)])[0]

    def read_ranges(self, ranges: Sequence[Range]) -> list[memoryview]:
        """See `Blob.read_ranges`: long runs in sequential reads, the rest in vector reads."""
        pieces: dict[Range, memoryview] = {}
        with source_errors(self.url):
            limits = _limits_of(self._server(), self._settings) if len(ranges) > 1 else Limits()
        for request in plan_requests(ranges, limits):
            for piece, data in zip(request, self._fetch(request), strict=True):
                if len(data) != piece[1] - piece[0]:
                    self._check_unchanged()
                    raise SourceError(f"{redact_url(self.url)}: the server sent {len(data):,} bytes at {piece[0]:,}")
                pieces[piece] = memoryview(data)
        if pieces:
            self._check_unchanged()
        return pick_ranges(ranges, pieces)

    def stated_checksum(self) -> str:
        """See `ServedBlob.stated_checksum`; a server that does not answer in time states none."""
        client = load_client(self._settings)
        parts, timeout = urlsplit(self.url), self._settings.checksum_timeout_seconds
        path = _with_query(f"/{parts.path.lstrip('/')}", parts.query)
        server = client.FileSystem(self._server())
        status, answer = server.query(client.flags.QueryCode.CHECKSUM, path, timeout=timeout)
        words = bytes(answer).decode(errors="replace").strip("\0\n ").split() if status.ok else []
        return known_checksum(f"{_CHECKSUMS.get(words[0], words[0])}:{words[1]}") if len(words) == 2 else ""

    def close(self) -> None:
        """See `Blob.close`."""
        if self._file.is_open():
            self._file.close(timeout=1)

    def _fetch(self, request: Request) -> list[bytes]:
        if len(request) == 1:
            start, stop = request[0]
            return [self._call("read", start, stop - start)]
        answer = self._call("vector_read", [(start, stop - start) for start, stop in request])
        return [chunk.buffer for chunk in answer.chunks]

    def _stat(self) -> tuple[int, str]:
        found = self._call("stat", True)
        return int(found.size), str(found.mtime)

    def _check_unchanged(self) -> None:
        if self._stat() != (self.size, self.version):
            raise SourceChangedError(f"{redact_url(self.url)} changed while it was being read; run the command again")

    def _server(self) -> str:
        """The server that has the file, where the one that was asked has sent us."""
        return f"{self.url.partition('://')[0]}://{self._file.get_property('DataServer')}"

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            status, answer = getattr(self._file, method)(*arguments, timeout=self._settings.request_timeout_seconds)
        except ValueError as error:  # the client has closed the file after a failure
            raise map_source_error(ConnectionError(str(error)), self.url) from error
        if not status.ok:
            raise _error(status, self.url)
        return answer


def load_client(settings: Settings) -> Any:
    """The module ``XRootD.client``, imported under timeouts within which a dead server fails in seconds.

    It reads them from the environment when it is first imported; what the user has set there stays
    (values found by experiment: the defaults hang for longer than 45 s).

    Raises:
        MissingExtraError: XRootD support is not installed.
    """
    seconds = {
        "XRD_CONNECTIONWINDOW": settings.connect_timeout_seconds,
        "XRD_CONNECTIONRETRY": 1,
        "XRD_REQUESTTIMEOUT": settings.request_timeout_seconds,
        "XRD_STREAMTIMEOUT": max(1, settings.request_timeout_seconds - 1),
        "XRD_STREAMERRORWINDOW": 0,  # our own retries know how long to wait
        "XRD_TIMEOUTRESOLUTION": 1,
    }
    for name, value in seconds.items():
        os.environ.setdefault(name, str(value))
    return _import_client()


@cache
def _import_client() -> Any:
    try:
        import XRootD.client.finalize
        import XRootD.client.flags
    except ImportError as error:
        raise MissingExtraError("root:// needs XRootD: pip install 'storagering[xrootd]'") from error
    finalize = XRootD.client.finalize.finalize

    def finalize_quietly() -> None:
        """It looks at every object there is, which makes deprecated ones of other packages complain."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            finalize()

    atexit.unregister(finalize)
    atexit.register(finalize_quietly)
    return XRootD.client


def list_matches(url: str, settings: Settings) -> list[str]:
    """The files that a URL with ``*``, ``[...]`` or ``**`` in its path stands for, sorted.

    Raises:
        NotFoundError, SourceError: the folder before the first pattern cannot be listed.
    """
    parts = urlsplit(url)
    server = _filesystem(url, settings)
    found = _walk(server, "/", [p for p in parts.path.split("/") if p], url, settings)
    return sorted({_with_query(f"{parts.scheme}://{parts.netloc}/{path}", parts.query) for path in found})


def _walk(server: Any, folder: str, parts: Sequence[str], url: str, settings: Settings) -> list[str]:
    """Paths below a folder that match the parts of a pattern, one part a level."""
    fixed = next((i for i, part in enumerate(parts) if any(c in part for c in "*[")), len(parts))
    folder += "".join(f"{part}/" for part in parts[:fixed])
    if fixed == len(parts):
        return [folder.rstrip("/")]
    pattern, rest = parts[fixed], parts[fixed + 1 :]
    found = []
    for name, is_folder in _list(server, folder, url, settings):
        if pattern == "**":
            if is_folder:
                found += _walk(server, f"{folder}{name}/", parts[fixed:], url, settings)
        elif fnmatchcase(name, pattern) and is_folder == bool(rest):
            found += _walk(server, f"{folder}{name}/", rest, url, settings) if rest else [folder + name]
    return found + (_walk(server, folder, rest, url, settings) if pattern == "**" and rest else [])


def _list(server: Any, folder: str, url: str, settings: Settings) -> list[tuple[str, bool]]:
    flags, timeout = load_client(settings).flags, settings.request_timeout_seconds
    status, listing = server.dirlist(_with_query(folder, urlsplit(url).query), flags.DirListFlags.STAT, timeout=timeout)
    if not status.ok:
        raise _error(status, url)
    return [(item.name, bool(item.statinfo and item.statinfo.flags & flags.StatInfoFlags.IS_DIR)) for item in listing]


def _filesystem(url: str, settings: Settings) -> Any:
    parts = urlsplit(url)
    return load_client(settings).FileSystem(f"{parts.scheme}://{parts.netloc}")


@cache
def _limits_of(server: str, settings: Settings) -> Limits:
    """What vector reads of a server may hold; the defaults if it does not say.

    Raises:
        OSError: it does not answer at all.
    """
    client, usual = load_client(settings), Limits()
    status, answer = client.FileSystem(server).query(
        client.flags.QueryCode.CONFIG, "readv_iov_max readv_ior_max", timeout=settings.request_timeout_seconds
    )
    if not status.ok and not status.errno:
        raise OSError(status.message)
    words = bytes(answer).decode(errors="replace").strip("\0\n ").split() if status.ok else []
    if len(words) != 2 or not all(word.isdecimal() and int(word) > 0 for word in words):
        return usual
    elements, nbytes = (int(word) for word in words)
    return Limits(min(usual.elements, elements), min(usual.element_bytes, nbytes))


def _with_query(path: str, query: str) -> str:
    """With the token that it may hold."""
    return f"{path}?{query}" if query else path


def _error(status: Any, url: str) -> StorageringError:
    error = map_source_error(OSError(str(status.message)), url)
    return NotFoundError(str(error)) if getattr(status, "errno", 0) == 3011 else error
