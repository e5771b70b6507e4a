"""Text files as blocks of whole lines, and such blocks as a file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from storagering.errors import LimitExceededError
from storagering.formats.blob import Blob
from storagering.urls import redact_url

BLOCK_BYTES = 4 << 20
BOM = b"\xef\xbb\xbf"
_MAX_LINE_BYTES = 64 << 20


def line_blocks(blob: Blob) -> Iterator[bytes]:
    """The file in blocks of some MiB that end where lines do, without byte order mark.

    Raises:
        LimitExceededError: a line is longer than 64 MiB.
    """
    rest = bytearray()
    for start in range(0, blob.size, BLOCK_BYTES):
        rest += blob.read(start, min(start + BLOCK_BYTES, blob.size))
        if not start and rest.startswith(BOM):
            del rest[: len(BOM)]
        whole = rest.rfind(b"\n") + 1
        if whole:
            yield bytes(memoryview(rest)[:whole])
            del rest[:whole]
        elif len(rest) > _MAX_LINE_BYTES:
            raise LimitExceededError(f"{redact_url(blob.url)}: a line is longer than {_MAX_LINE_BYTES:,} bytes")
    if rest:
        yield bytes(rest)


class BlockFile(io.RawIOBase):
    """Blocks of bytes as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._block = blocks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._block:
            found = next(self._blocks, None)
            if found is None:
                return 0
            self._block = memoryview(found)
        count = min(len(buffer), len(self._block))
        memoryview(buffer).cast("B")[:count] = self._block[:count]
        self._block = self._block[count:]
        return count
