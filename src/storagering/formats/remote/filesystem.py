"""Files in object stores and on other servers, through fsspec."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import fsspec

from storagering.config import Settings
from storagering.errors import SourceChangedError, SourceError
from storagering.formats.checksums import known_checksum
from storagering.formats.remote.errors import source_errors
from storagering.formats.remote.options import storage_options
from storagering.formats.remote.ranges import Limits, Range, pick_ranges, plan_requests
from storagering.urls import redact_url

_LIMITS = Limits(elements=1, gap_bytes=32 << 10)
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


class FilesystemBlob:
    """See `storagering.formats.remote.reliable.ServedBlob`."""

    checksum = ""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        options = storage_options(url, settings)
        with source_errors(url):
            self._filesystem, self._path = fsspec.core.url_to_fs(url, **options)
            if "config_kwargs" in options:
                self._filesystem.retries = 1  # we repeat requests ourselves
        self._etag = ""
        self.size, self.version = self._look()

    def read(self, start: int, stop: int) -> memoryview:
        """See `Blob.read`."""
        return self.read_ranges([(start, stop)])[0]

    def read_ranges(self, ranges: Sequence[Range]) -> list[memoryview]:
        """See `Blob.read_ranges`; looks at the file again afterwards, as answers do not tell its version."""
        wanted = [request[0] for request in plan_requests(ranges, _LIMITS)]
        if not wanted:
            return pick_ranges(ranges, {})
        with source_errors(self.url):
            starts, stops = [a for a, _ in wanted], [b for _, b in wanted]
            found = self._filesystem.cat_ranges([self._path] * len(wanted), starts, stops, on_error="raise")
        shown = redact_url(self.url)
        if self._look() != (self.size, self.version):
            raise SourceChangedError(f"{shown} changed while it was being read; run the command again")
        for data, (start, stop) in zip(found, wanted, strict=True):
            if len(data) != stop - start:
                raise SourceError(f"{shown}: the server sent {len(data):,} bytes at {start:,}, not {stop - start:,}")
        return pick_ranges(ranges, {r: memoryview(data) for r, data in zip(wanted, found, strict=True)})

    def stated_checksum(self) -> str:
        """See `ServedBlob.stated_checksum`: S3's etag where it is an MD5, which it is not for files sent in parts."""
        digits = _MD5.fullmatch(self._etag)
        return known_checksum(f"md5:{digits[1]}") if digits else ""

    def close(self) -> None:
        """See `Blob.close`."""

    def _look(self) -> tuple[int, str]:
        with source_errors(self.url):
            self._filesystem.invalidate_cache(self._path)
            info: dict[str, Any] = self._filesystem.info(self._path)
            if info.get("type") == "directory":
                raise IsADirectoryError(self.url)
        self._etag = str(info.get("ETag") or info.get("etag") or "")
        moment = next((info[key] for key in ("mtime", "LastModified", "last_modified", "created") if info.get(key)), "")
        return int(info.get("size") or 0), self._etag or str(moment)
