"""Bytes of files on servers, through fsspec."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import fsspec

from storagering.config import Settings
from storagering.errors import TruncatedError
from storagering.files import redact_url
from storagering.formats.remote.errors import source_errors
from storagering.formats.remote.options import storage_options

#: Reading over a gap of this size costs less than another request.
_GAP_BYTES = 32 << 10


class FilesystemBlob:
    """See `storagering.formats.blob.Blob`."""

    checksum = ""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        with source_errors(url):
            self._filesystem, self._path = fsspec.core.url_to_fs(url, **storage_options(url, settings))
            info = self._filesystem.info(self._path)
        self.size = int(info.get("size") or 0)
        self.version = str(info.get("ETag") or info.get("mtime") or info.get("LastModified") or "")

    def read(self, start: int, stop: int) -> memoryview:
        """See `Blob.read`."""
        return self.read_ranges([(start, stop)])[0]

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """See `Blob.read_ranges`."""
        runs = merge_ranges(ranges)
        with source_errors(self.url):
            starts, stops = [a for a, _ in runs], [b for _, b in runs]
            found = self._filesystem.cat_ranges([self._path] * len(runs), starts, stops, on_error="raise")
        for data, (start, stop) in zip(found, runs, strict=True):
            if len(data) != stop - start:
                raise TruncatedError(f"{redact_url(self.url)} ends too early: {len(data)} bytes at {start:,}")
        wanted = []
        for start, stop in ranges:
            run = bisect_right(starts, start) - 1
            wanted.append(memoryview(found[run])[start - starts[run] : stop - starts[run]])
        return wanted

    def close(self) -> None:
        """See `Blob.close`."""


def merge_ranges(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges sorted, those with little between them as one."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start - merged[-1][1] <= _GAP_BYTES:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged
