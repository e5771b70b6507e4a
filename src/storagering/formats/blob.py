"""The bytes of one source file, read by ranges: from disk or from any server."""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from storagering.config import Settings
from storagering.errors import FormatError, SourceChangedError, TruncatedError
from storagering.formats.remote.errors import source_errors
from storagering.formats.remote.options import scheme_of
from storagering.formats.source import Location

Range = tuple[int, int]


class Blob(Protocol):
    """A file's bytes. Safe to use from several threads.

    Attributes:
        url: where they are read from; may hold secrets.
        size: number of bytes.
        version: token of the file's state (etag or modification time), '' if unknown.
        checksum: whole-file checksum that was found right, '' if none was compared.
    """

    url: str
    size: int
    version: str
    checksum: str

    def read(self, start: int, stop: int) -> memoryview:
        """Bytes ``start`` to ``stop``, exactly so many.

        Raises:
            TruncatedError: the file ends before.
            SourceError: the server failed, after the retries and replicas that there are.
        """

    def read_ranges(self, ranges: Sequence[Range]) -> list[memoryview]:
        """Several ranges, in as few requests as that takes; raises as `read`."""

    def close(self) -> None:
        """Give it back; bytes that were read stay valid."""


#: Pages of a mapped file count as memory of the process until it gives them back (they are read again if needed).
_MAPPED_BYTES = 64 << 20


class LocalBlob:
    """A file on disk, mapped."""

    checksum = ""

    def __init__(self, path: Path) -> None:
        self.url = str(path)
        with source_errors(self.url):
            if not (path.is_file() or path.is_dir()) and path.exists():
                raise FormatError(f"{path} is neither a file nor a folder")
            self._file = path.open("rb")
            found = os.fstat(self._file.fileno())
            self.size, self.version = found.st_size, str(found.st_mtime)
            mapped = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if self.size else b""
        self._state = found.st_mtime_ns
        self._view = memoryview(mapped)
        self._handed_out = 0

    def read(self, start: int, stop: int) -> memoryview:
        """See `Blob.read`."""
        if not 0 <= start <= stop <= self.size:
            raise TruncatedError(f"{self.url} has {self.size:,} bytes, bytes {start:,} to {stop:,} are wanted")
        self._check_unchanged()
        self._handed_out += stop - start
        if self._handed_out > _MAPPED_BYTES:
            self._handed_out = stop - start
            self._view.obj.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
        return self._view[start:stop]

    def read_ranges(self, ranges: Sequence[Range]) -> list[memoryview]:
        """See `Blob.read_ranges`."""
        return [self.read(start, stop) for start, stop in ranges]

    def stated_checksum(self) -> str:
        """A file system states none."""
        return ""

    def close(self) -> None:
        """See `Blob.close`; the mapping goes when nothing refers to it any more."""
        self._view = memoryview(b"")
        self._file.close()

    def _check_unchanged(self) -> None:
        """A mapping follows every write to the file; one that was cut short must not be touched at all."""
        found = os.fstat(self._file.fileno())
        if (found.st_size, found.st_mtime_ns) != (self.size, self._state):
            raise SourceChangedError(f"{self.url} changed while it was being read; run the command again")


def open_blob(location: Location, settings: Settings, spool: str = "") -> Blob:
    """The bytes behind a location.

    Args:
        spool: folder for a file that is to be fetched whole; a temporary one of this process without it.

    Raises:
        NotFoundError, AuthError, UnreachableError: it cannot be opened, nor any replica.
        SourceChangedError: it is not what `Location.state` says.
        ChecksumError: the whole file was fetched and is not what its checksum says.
    """
    from storagering.formats.whole import open_reliably, open_whole

    if location.whole:
        return open_whole(location, settings, spool)
    if is_local(location.url) and not location.replicas:
        return LocalBlob(local_path(location.url))
    return open_reliably(location, settings)


def is_local(url: str) -> bool:
    """Whether it is a path or a ``file://`` URL."""
    return scheme_of(url) in ("", "file")


def local_path(url: str) -> Path:
    """The path of a local URL."""
    return Path(url.removeprefix("file://"))


class BlobFile(io.RawIOBase):
    """A blob as the seekable binary file that other libraries take; wrap it in `io.BufferedReader`."""

    def __init__(self, blob: Blob) -> None:
        self._blob, self._at = blob, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._blob.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        stop = min(self._at + len(buffer), self._blob.size)
        count = max(0, stop - self._at)
        if count:
            memoryview(buffer).cast("B")[:count] = self._blob.read(self._at, stop)
        self._at += count
        return count
