"""A file on servers that fail now and then: repeated requests, replicas, and never two versions in one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from storagering.config import Settings
from storagering.errors import (
    NotFoundError,
    RefusedError,
    SourceChangedError,
    SourceError,
    SourceTimeoutError,
    StorageringError,
    TruncatedError,
    UnreachableError,
)
from storagering.formats.blob import Blob, Range
from storagering.formats.remote.retry import Result, with_retries
from storagering.formats.source import FileState, Location
from storagering.urls import redact_url

_log = logging.getLogger("storagering.remote")

#: Servers that did not answer this process, and when; their replicas are tried first for a while.
_down: dict[str, float] = {}
_DOWN_SECONDS = 60.0


def _server_of(url: str) -> str:
    return urlsplit(url)._replace(path="", query="", fragment="").geturl()


def _is_down(url: str) -> bool:
    return time.monotonic() - _down.get(_server_of(url), -_DOWN_SECONDS) < _DOWN_SECONDS


class ServedBlob(Blob, Protocol):
    """The bytes of a file on one server: every request is tried once."""

    def stated_checksum(self) -> str:
        """The whole-file checksum that the server states (``adler32:0a1b2c3d``), '' if it does not."""


class ReliableBlob:
    """See `storagering.formats.blob.Blob`.

    Attributes:
        state: the file as it was first found, with the server's checksum where it was asked for.
    """

    checksum = ""

    def __init__(self, location: Location, settings: Settings, connect: Callable[[str], ServedBlob]) -> None:
        """Open the first of the location's URLs that can be opened.

        Args:
            connect: opens one URL, in one attempt.
        """
        self.url = location.url
        self._urls = sorted((location.url, *location.replicas), key=_is_down)  # the order counts otherwise
        self._settings, self._connect = settings, connect
        self._lock = threading.RLock()
        self._known = location.state
        self._vouched = location.checksum
        self._versions = {location.state.url: location.state.version} if location.state else {}
        self._at = 0
        self._blob: ServedBlob | None = None
        self._try(lambda blob: blob.size)
        self.size, self.version = self.state.size, self.state.version

    @property
    def state(self) -> FileState:
        assert self._known is not None  # noqa: S101  (known since the first connection)
        return self._known

    def read(self, start: int, stop: int) -> memoryview:
        """See `Blob.read`."""
        self._check_inside([(start, stop)])
        return self._try(lambda blob: blob.read(start, stop))

    def read_ranges(self, ranges: Sequence[Range]) -> list[memoryview]:
        """See `Blob.read_ranges`."""
        self._check_inside(ranges)
        return self._try(lambda blob: blob.read_ranges(ranges))

    def close(self) -> None:
        """See `Blob.close`."""
        with self._lock:
            if self._blob is not None:
                self._blob.close()
            self._blob = None

    def stated_checksum(self) -> str:
        """The whole-file checksum that the server states, '' if it does not."""
        return self._try(lambda blob: blob.stated_checksum())

    def _check_inside(self, ranges: Sequence[Range]) -> None:
        for start, stop in ranges:
            if not 0 <= start <= stop <= self.size:
                raise TruncatedError(
                    f"{redact_url(self.url)} has {self.size:,} bytes, bytes {start:,} to {stop:,} are wanted"
                )

    def _try(self, action: Callable[[ServedBlob], Result]) -> Result:
        """Do it with the server in use, again if that may help, then with the replicas."""
        failures: list[str] = []
        while True:
            at = self._at
            try:
                return with_retries(lambda: self._once(action), self._settings)
            except SourceChangedError:
                raise
            except (SourceError, NotFoundError) as error:
                failures.append(str(error))
                if at + 1 == len(self._urls):
                    raise type(error)("; ".join(failures)) from error
                self._go_on_after(at, error)

    def _once(self, action: Callable[[ServedBlob], Result]) -> Result:
        blob = self._connected()
        try:
            return action(blob)
        except SourceError:
            with self._lock:
                if self._blob is blob:  # no other thread has connected anew since
                    self._blob = None
            raise

    def _connected(self) -> ServedBlob:
        with self._lock:
            if self._blob is None:
                self._blob = self._checked(self._urls[self._at])
            return self._blob

    def _checked(self, url: str) -> ServedBlob:
        """A connection to the file that was there before, or to a copy of it."""
        blob = self._connect(url)
        known, version = self._known, self._versions.get(url)
        if known is None:
            compared = len(self._urls) > 1 and not self._vouched
            self._known = FileState(url, blob.size, blob.version, blob.stated_checksum() if compared else "")
        elif version is None:
            self._check_copy(url, blob, known)
        elif (blob.size, blob.version) != (known.size, version):
            raise SourceChangedError(f"{redact_url(url)} changed while it was being read; run the command again")
        self._versions[url] = blob.version
        return blob

    def _check_copy(self, url: str, blob: ServedBlob, known: FileState) -> None:
        """Refuse a replica of another size, or of another checksum where both are known."""
        if blob.size != known.size:
            raise RefusedError(
                f"{redact_url(url)} has {blob.size:,} bytes, {redact_url(known.url)} has {known.size:,}: not a replica"
            )
        wanted = self._vouched or known.checksum
        found = blob.stated_checksum() if wanted else ""
        if found and found != wanted and found.partition(":")[0] == wanted.partition(":")[0]:
            raise RefusedError(f"{redact_url(url)} has checksum {found}, not {wanted}: not a replica")

    def _go_on_after(self, at: int, error: StorageringError) -> None:
        with self._lock:
            if self._at == at:  # the first thread that fails moves on for all
                self._at, self._blob = at + 1, None
                if isinstance(error, UnreachableError | SourceTimeoutError):
                    _down[_server_of(self._urls[at])] = time.monotonic()
                _log.warning("%s; going on with %s", error, redact_url(self._urls[at + 1]))
