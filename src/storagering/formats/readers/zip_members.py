"""Files within a zip file, read by ranges: those stored as they are in place, others unpacked into the spool."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from storagering.config import Settings
from storagering.errors import ChecksumError, CorruptDataError, FormatError, TruncatedError
from storagering.formats.blob import Blob, BlobFile
from storagering.formats.readers.arrow_source import damage
from storagering.formats.readers.unpack import UnpackedBlob, copy_bounded
from storagering.formats.spool import spool_file
from storagering.urls import redact_url

_STEP_BYTES = 1 << 20
_LOCAL_HEADER_BYTES = 30
_MAX_END_BYTES = 22 + 0xFFFF
_ENCRYPTED, _UTF8 = 1, 0x800


@dataclass(frozen=True)
class Extent:
    """Where in a blob a file begins."""

    blob: Blob
    start: int


class ZipMember:
    """One file in a zip file.

    Args:
        header: what stands before its contents, from `zip_members`.
    """

    def __init__(self, blob: Blob, info: zipfile.ZipInfo, header: bytes, settings: Settings, spool: str) -> None:
        self.name, self.nbytes = info.filename, info.file_size
        self._blob, self._info, self._settings, self._spool = blob, info, settings, spool
        self._what = f"{self.name!r} in it"
        if info.flag_bits & _ENCRYPTED:
            raise FormatError(f"{redact_url(blob.url)}: {self._what} is encrypted")
        # The list of members has no checksum; a name must be there as it stands before the contents.
        length, extra = (int.from_bytes(header[n : n + 2], "little") for n in (26, 28))
        name = header[_LOCAL_HEADER_BYTES:].decode("utf-8" if info.flag_bits & _UTF8 else "cp437", "replace")
        self._start = info.header_offset + _LOCAL_HEADER_BYTES + length + extra
        whole = self._start + info.compress_size <= blob.size
        if not whole or header[:4] != b"PK\x03\x04" or not name == self.name == info.orig_filename:
            raise CorruptDataError(f"{redact_url(blob.url)}: {self._what} is not where its list says; fetch it again")

    def head(self, count: int) -> bytes:
        """The first bytes of its contents, not checked."""
        count = min(count, self.nbytes)
        if self._info.compress_type == zipfile.ZIP_STORED:
            return bytes(self._blob.read(self._start, self._start + count))
        with damage(self._blob.url, self._what), open_zip(self._blob) as packed, packed.open(self._info) as stream:
            return stream.read(count)

    def extent(self) -> Extent:
        """Its contents, after comparing their CRC-32 once a build.

        Raises:
            ChecksumError: they differ.
            LimitExceededError: it unpacks to far more than honest data do.
        """
        key = f"{self._blob.url} {self._blob.version} {self._blob.size} member {self._info.header_offset} {self.name}"
        if self._info.compress_type == zipfile.ZIP_STORED:
            spool_file(self._spool, key, self._compare, self._settings)
            return Extent(self._blob, self._start)
        path = spool_file(self._spool, key, self._unpack, self._settings)
        return Extent(UnpackedBlob(path, self._blob), 0)

    def _compare(self, path: Path) -> None:
        found, stop = 0, self._start + self.nbytes
        for here in range(self._start, stop, _STEP_BYTES):
            found = zlib.crc32(self._blob.read(here, min(here + _STEP_BYTES, stop)), found)
        if found != self._info.CRC:
            raise ChecksumError(f"{redact_url(self._blob.url)}: {self._what} differs from its checksum; fetch it again")
        path.write_bytes(b"")

    def _unpack(self, path: Path) -> None:
        with damage(self._blob.url, self._what), open_zip(self._blob) as packed, packed.open(self._info) as stream:
            copy_bounded(stream, path, self._info.compress_size, self._blob.url)


@contextmanager
def open_zip(blob: Blob) -> Iterator[zipfile.ZipFile]:
    """A zip file.

    Raises:
        TruncatedError: its list of members, which stands at the end, is not there.
    """
    with damage(blob.url, "its list of members"):
        try:
            packed = zipfile.ZipFile(io.BufferedReader(BlobFile(blob), _STEP_BYTES))
        except zipfile.BadZipFile as error:
            if "not a zip file" in str(error):
                text = f"{redact_url(blob.url)} does not end as a zip file does: fetch it again"
                raise TruncatedError(text) from error
            raise
    with packed:
        yield packed


def zip_members(blob: Blob, settings: Settings, spool: str) -> list[ZipMember]:
    """What a zip file holds; raises as `open_zip`.

    Raises:
        CorruptDataError: its list of members does not fit the rest of it.
    """
    with open_zip(blob) as packed:
        infos = packed.infolist()
    _check_count(blob, len(infos))
    ends = [i.header_offset + _LOCAL_HEADER_BYTES + len(_encoded(i)) for i in infos]
    if any(not 0 <= info.header_offset < end <= blob.size for info, end in zip(infos, ends, strict=True)):
        raise CorruptDataError(f"{redact_url(blob.url)}: its list of members leads beyond its end; fetch it again")
    headers = blob.read_ranges([(info.header_offset, end) for info, end in zip(infos, ends, strict=True)])
    pairs = zip(infos, headers, strict=True)
    return [ZipMember(blob, info, bytes(header), settings, spool) for info, header in pairs]


def _check_count(blob: Blob, found: int) -> None:
    """The end of the file says how many members there are; Python's module does not ask."""
    tail = bytes(blob.read(max(0, blob.size - _MAX_END_BYTES), blob.size))
    at = tail.rfind(b"PK\5\6") + 10
    stated = int.from_bytes(tail[at : at + 2], "little")
    if stated not in (found, 0xFFFF):  # that stands for a count that does not fit
        raise CorruptDataError(
            f"{redact_url(blob.url)}: its list has {found} members and its end says {stated}; fetch it again"
        )


def _encoded(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
