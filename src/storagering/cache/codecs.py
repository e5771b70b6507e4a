"""The codecs of Zarr chunks: which one an array gets, its bytes, and its name in Zarr's metadata.

Measured reasons are in design/0002: pcodec has the best ratio on numbers and decodes faster than zstd;
nothing but bit-packing and raw bytes is worth having beside it (of sparse columns: design/0022). All decoders
release the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numcodecs.blosc
import numcodecs.lz4
import numcodecs.zstd
import numpy as np
from pcodec import ChunkConfig, standalone

from storagering.types import Array, Profile, Role

# Its threads write blocks in the order in which they end, so that no two files would be equal; and they are not ours.
# zarr-python sets this, too.
numcodecs.blosc.use_threads = False

_PCODEC_LEVEL = 6
_ZSTD_LEVEL = 1
#: An lz4 copy must save this share of the bytes to be worth decoding.
_LZ4_WORTH = 1 / 4
#: Where integers fit a smaller type, lz4 must leave this share of what that leaves: it is slower both ways.
_LZ4_SMALLER = 1 / 2
#: Bytes sorted by significance must save this share to be worth putting together again.
_PLANES_WORTH = 1 / 16
#: Larger arrays are tried on two slices of this size first.
_SAMPLE_BYTES = 8 << 10

_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_ZSTD = {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": False}}
_LZ4 = {"name": "numcodecs.lz4", "configuration": {"acceleration": 1}}
_PCODEC = {"name": "numcodecs.pcodec", "configuration": {"level": _PCODEC_LEVEL}}
_PLANES = {"cname": "blosclz", "clevel": 1, "shuffle": "shuffle", "blocksize": 0}
_PACKBITS = {"name": "numcodecs.packbits", "configuration": {}}


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to store an array.

    Attributes:
        number: what the chunk index calls it.
        zarr: Zarr v3 codec pipeline that reads it.
        encode: contiguous array -> bytes, or the array's own if these are stored as they are.
        decode: bytes -> the given contiguous array, filled; raises if they do not fit.
    """

    number: int
    zarr: tuple[dict[str, Any], ...]
    encode: Callable[[Array], bytes | memoryview]
    decode: Callable[[memoryview, Array], None]


def _decode_raw(data: memoryview, out: Array) -> None:
    out.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)


def _decode_zstd(data: memoryview, out: Array) -> None:
    numcodecs.zstd.decompress(data, out)


def _decode_lz4(data: memoryview, out: Array) -> None:
    numcodecs.lz4.decompress(data, out)


def _encode_pcodec(array: Array) -> bytes:
    config = ChunkConfig(compression_level=_PCODEC_LEVEL)
    return bytes(standalone.simple_compress(array.reshape(-1), config))


def _decode_pcodec(data: memoryview, out: Array) -> None:
    progress = standalone.simple_decompress_into(bytes(data), out.reshape(-1))
    if not progress.finished or progress.n_processed != out.size:
        raise ValueError(f"{progress.n_processed} numbers instead of {out.size}")


def _pack(array: Array) -> bytes:
    """Numcodecs' packbits: one byte that counts the padding bits, then eight bools a byte."""
    padding = (8 - array.size % 8) % 8
    return bytes([padding]) + np.packbits(array.reshape(-1)).tobytes()


def _unpack(data: Any, out: Array) -> None:
    packed = np.frombuffer(data, np.uint8)
    if packed[0] != (8 - out.size % 8) % 8 or len(packed) != 1 + (out.size + 7) // 8:
        raise ValueError(f"{len(packed)} bytes of packed bits do not hold {out.size} values")
    out.reshape(-1)[:] = np.unpackbits(packed[1:], count=out.size).view(np.bool_)


RAW = Codec(0, (_BYTES,), lambda a: a.reshape(-1).view(np.uint8).data, _decode_raw)
ZSTD = Codec(1, (_BYTES, _ZSTD), lambda a: bytes(numcodecs.zstd.compress(a, _ZSTD_LEVEL)), _decode_zstd)
LZ4 = Codec(2, (_BYTES, _LZ4), lambda a: bytes(numcodecs.lz4.compress(a, 1)), _decode_lz4)
PCODEC = Codec(3, (_PCODEC,), _encode_pcodec, _decode_pcodec)
BITS = Codec(4, (_PACKBITS, _BYTES), _pack, _unpack)
BITS_ZSTD = Codec(
    5,
    (_PACKBITS, _BYTES, _ZSTD),
    lambda a: bytes(numcodecs.zstd.compress(_pack(a), _ZSTD_LEVEL)),
    lambda data, out: _unpack(numcodecs.zstd.decompress(data), out),
)


def _narrow(number: int, wide: str, narrow: str) -> Codec:
    """Integers as a smaller type that holds them all."""

    def decode(data: memoryview, out: Array) -> None:
        numbers = np.frombuffer(data, narrow)
        if len(numbers) != out.size:
            raise ValueError(f"{len(numbers)} numbers instead of {out.size}")
        np.copyto(out.reshape(-1), numbers)

    names = {"encode_dtype": np.dtype(narrow).name, "decode_dtype": np.dtype(wide).name}
    chain = ({"name": "numcodecs.astype", "configuration": names}, _BYTES)
    return Codec(number, chain, lambda array: RAW.encode(array.astype(narrow)), decode)


_WIDTHS = ((1, 2), (1, 4), (2, 4), (1, 8), (2, 8), (4, 8))
#: By kind of integer, bytes of the smaller type, and bytes of the larger.
_NARROW = {
    (kind, narrow, wide): _narrow(6 + position, f"<{kind}{wide}", f"<{kind}{narrow}")
    for position, (kind, (narrow, wide)) in enumerate(product("iu", _WIDTHS))
}


def _planes(number: int, size: int) -> Codec:
    """Numbers of that many bytes, first all their lowest bytes, and so on: what is zero in all takes no room."""

    def encode(array: Array) -> bytes:
        return bytes(numcodecs.blosc.compress(array, b"blosclz", 1, numcodecs.blosc.SHUFFLE, 0, size))

    chain = (_BYTES, {"name": "blosc", "configuration": _PLANES | {"typesize": size}})
    return Codec(number, chain, encode, _decode_planes)


def _decode_planes(data: memoryview, out: Array) -> None:
    header = np.frombuffer(data, "<u4", 3, 4)  # decoded, block and encoded size, which the library takes as given
    if (int(header[0]), int(header[2])) != (out.nbytes, len(data)):
        raise ValueError(f"{len(data)} bytes that hold {header[0]}, not {out.nbytes}")
    numcodecs.blosc.decompress(data, out)


_PLANES_OF = {size: _planes(18 + number, size) for number, size in enumerate((2, 4, 8))}
CODECS = {
    codec.number: codec for codec in (RAW, ZSTD, LZ4, PCODEC, BITS, BITS_ZSTD, *_NARROW.values(), *_PLANES_OF.values())
}
Encode = Callable[[Array, Role, Profile], tuple[Codec, bytes | memoryview]]


def encode_array(array: Array, role: Role, profile: Profile) -> tuple[Codec, bytes | memoryview]:
    """The array's codec under a profile, and its bytes."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        codec = BITS_ZSTD if profile == "small" else BITS
        return codec, codec.encode(array)
    if profile == "small":
        codec = PCODEC if kind in "iuf" and 2 <= size <= 8 else ZSTD
        return codec, codec.encode(array)
    if role == "counts":
        return RAW, RAW.encode(array)
    narrow = _narrowest(array)
    share = (1 - _LZ4_WORTH) * (1 if narrow is None else _LZ4_SMALLER * narrow[1] / size)
    if _sample_share(array) < share:
        squeezed = LZ4.encode(array)
        if len(squeezed) < array.nbytes * share:
            return LZ4, squeezed
    codec = RAW if narrow is None else _NARROW[narrow]
    return codec, codec.encode(array)


def encode_sparse(array: Array, role: Role, profile: Profile) -> tuple[Codec, bytes | memoryview]:
    """`encode_array` for a part of a sparse column: places and values decode a few for every element of a batch.

    So ``fast`` can take the trouble to leave out the bytes that say nothing.
    """
    codec = _PLANES_OF.get(array.dtype.itemsize)
    if profile == "fast" and role != "counts" and codec is not None and array.nbytes < numcodecs.blosc.MAX_BUFFERSIZE:
        planes = codec.encode(array)
        if len(planes) < array.nbytes * (1 - _PLANES_WORTH):
            return codec, planes
    return encode_array(array, role, profile)


def _narrowest(array: Array) -> tuple[str, int, int] | None:
    """The key in `_NARROW` of the smallest type that holds all numbers, None if there is no smaller one."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "iu" or size == 1:
        return None
    low, high = int(array.min()), int(array.max())
    bits = max(high.bit_length(), (-low - 1 if low < 0 else low).bit_length()) + (kind == "i")
    fitting = [width for width in (1, 2, 4) if width < size and bits <= 8 * width]
    return (kind, fitting[0], size) if fitting else None


def _sample_share(array: Array) -> float:
    """Size that lz4 leaves, as a share; of large arrays, by a sample."""
    data = array.reshape(-1).view(np.uint8)
    if len(data) > 8 * _SAMPLE_BYTES:
        third = len(data) // 3 // array.itemsize * array.itemsize
        data = np.concatenate([data[at : at + _SAMPLE_BYTES] for at in (third, 2 * third)])
    return len(numcodecs.lz4.compress(data, 1)) / len(data)
