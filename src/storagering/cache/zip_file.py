"""Writing a zip without copying what goes into it; zipfile costs ten times as much for small members."""

from __future__ import annotations

import struct
import zlib

from storagering.errors import LimitExceededError

#: Data begin on multiples of this, so that raw arrays can be used in place.
ALIGNMENT = 64
LOCAL_HEADER_BYTES = 30

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_EPOCH = (0, 0x21)  # 0:00 on 1 January 1980
_STORED, _DEFLATED = 0, 8
_UTF8 = 1 << 11
_VERSION, _UNIX = 45, 3 << 8
_PERMISSIONS = 0o600 << 16
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF


class ZipPieces:
    """The pieces of a growing zip; the same members give the same bytes.

    Attributes:
        pieces: the file so far.
        size: number of bytes in them.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes | memoryview] = []
        self.size = 0
        self._directory: list[bytes] = []
        self._deflated: dict[bytes, bytes] = {}

    def add(self, name: str, data: bytes | memoryview) -> int:
        """Add a member as it is; returns where its data begin.

        Raises:
            LimitExceededError: it has 4 GiB or more.
        """
        if len(data) >= _MAX32:
            raise LimitExceededError(f"array {name!r} of one chunk has {len(data):,} bytes; lower --chunk-bytes")
        return self._add(name, data, _STORED, zlib.crc32(data), len(data))

    def add_deflated(self, name: str, data: bytes) -> None:
        """Add a small member, compressed; what is equal is compressed once."""
        if data not in self._deflated:
            encoder = zlib.compressobj(6, zlib.DEFLATED, -10, 4)  # the usual window takes 40 us to set up
            self._deflated[data] = encoder.compress(data) + encoder.flush()
        self._add(name, self._deflated[data], _DEFLATED, zlib.crc32(data), len(data))

    def _add(self, name: str, data: bytes | memoryview, method: int, crc: int, unpacked: int) -> int:
        path, start = name.encode(), self.size
        begin = start + LOCAL_HEADER_BYTES + len(path) + 4
        padding = -begin % ALIGNMENT if method == _STORED else 0
        extra = b"\xd9\x35" + padding.to_bytes(2, "little") + bytes(padding)  # as Android's zipalign does
        common = (0 if name.isascii() else _UTF8, method, *_EPOCH, crc, len(data), unpacked, len(path))
        self._append(_LOCAL.pack(b"PK\3\4", _VERSION, *common, len(extra)) + path + extra)
        begin = self.size
        self._append(data)
        wide = struct.pack("<2HQ", 1, 8, start) if start >= _MAX32 else b""
        entry = _CENTRAL.pack(
            b"PK\1\2", _UNIX | _VERSION, _VERSION, *common, len(wide), 0, 0, 0, _PERMISSIONS, min(start, _MAX32)
        )
        self._directory.append(entry + path + wide)
        return begin

    def _append(self, data: bytes | memoryview) -> None:
        self.pieces.append(data)
        self.size += len(data)

    def finish(self) -> None:
        """Add the directory; nothing can be added after it."""
        start, count = self.size, len(self._directory)
        self._append(b"".join(self._directory))
        length, end = self.size - start, self.size
        if count >= _MAX16 or end >= _MAX32:
            self._append(_END64.pack(b"PK\6\6", 44, _UNIX | _VERSION, _VERSION, 0, 0, count, count, length, start))
            self._append(_LOCATOR64.pack(b"PK\6\7", 0, end, 1))
        count, length, start = min(count, _MAX16), min(length, _MAX32), min(start, _MAX32)
        self._append(_END.pack(b"PK\5\6", 0, 0, count, count, length, start, 0))
