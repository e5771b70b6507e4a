"""Unpacking ROOT's compressed blocks: nine bytes that say how and how long, then the packed bytes.

zlib, LZ4 (with ROOT's own checksum before it) and xz have checksums, which are compared; zstd as ROOT writes it
has none.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import xxhash

_HEADER = 9
_ZSTD, _LZ4 = pa.Codec("zstd"), pa.Codec("lz4_raw")
_XZ_LIMIT = 256 << 20


#: How it is packed, the packed bytes, and how many they are unpacked.
Block = tuple[bytes, memoryview, int]


def find_blocks(packed: memoryview, size: int) -> list[Block]:
    """The blocks, nothing unpacked yet.

    Args:
        size: how many bytes they hold together, as stated elsewhere.

    Raises:
        ValueError: they are no blocks, or do not hold that.
    """
    blocks = list(_blocks(packed))
    if sum(unpacked for _, _, unpacked in blocks) != size:
        raise ValueError(f"its blocks do not hold {size:,} bytes")
    return blocks


def unpack_blocks(blocks: Sequence[Block]) -> Any:
    """The unpacked bytes as a buffer.

    Raises:
        ValueError, OSError: they are damaged, or not as many as they claim.
    """
    parts = [_DECODERS[kind](data, unpacked) for kind, data, unpacked in blocks]
    return parts[0] if len(parts) == 1 else b"".join(parts)


def has_checksum(kind: bytes, data: memoryview) -> bool:
    """Whether a block carries a checksum."""
    if kind == b"XZ":  # the stream's flags say which, 0 is none
        return len(data) > 7 and data[7] & 0xF != 0
    return kind in (b"ZL", b"L4")


def _blocks(packed: memoryview) -> Iterator[Block]:
    at = 0
    while at < len(packed):
        kind = bytes(packed[at : at + 2])
        begin = at + _HEADER
        end = begin + int.from_bytes(packed[at + 3 : at + 6], "little")
        if kind not in _DECODERS:
            raise ValueError(f"a block begins with {kind!r}")
        if not begin < end <= len(packed):
            raise ValueError("a block is cut short")
        yield kind, packed[begin:end], int.from_bytes(packed[at + 6 : begin], "little")
        at = end


def _unpack_zlib(data: memoryview, size: int) -> Any:
    decoder = zlib.decompressobj()
    try:
        unpacked = decoder.decompress(data, max(1, size))
        if not decoder.eof:  # the checksum may still be unread
            decoder.decompress(decoder.unconsumed_tail, 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    return _of_size(unpacked, size, decoder.eof)


def _unpack_xz(data: memoryview, size: int) -> Any:
    decoder = lzma.LZMADecompressor(memlimit=_XZ_LIMIT)
    try:
        unpacked = decoder.decompress(data, size)
        if not decoder.eof:
            decoder.decompress(b"", 1)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(str(error)) from error
    return _of_size(unpacked, size, decoder.eof)


def _unpack_lz4(data: memoryview, size: int) -> Any:
    if len(data) < 8 or xxhash.xxh64_intdigest(data[8:]) != int.from_bytes(data[:8], "big"):
        raise ValueError("an LZ4 block differs from its checksum")
    return _LZ4.decompress(data[8:], decompressed_size=size)


def _unpack_zstd(data: memoryview, size: int) -> Any:
    return _ZSTD.decompress(data, decompressed_size=size)


def _of_size(unpacked: bytes, size: int, ended: bool) -> bytes:
    if len(unpacked) != size or not ended:
        raise ValueError(f"a block does not hold {size:,} bytes")
    return unpacked


_DECODERS: dict[bytes, Callable[[memoryview, int], Any]] = {
    b"ZL": _unpack_zlib,
    b"XZ": _unpack_xz,
    b"L4": _unpack_lz4,
    b"ZS": _unpack_zstd,
}
