"""Files packed as a whole (gzip, bzip2, xz, zstd, lz4): unpacked once into the spool, within limits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from storagering.config import Settings
from storagering.errors import LimitExceededError, TruncatedError
from storagering.formats.blob import Blob, BlobFile, LocalBlob
from storagering.formats.readers.arrow_source import damage
from storagering.formats.readers.text_blocks import BlockFile
from storagering.formats.spool import spool_file
from storagering.urls import redact_url

#: Wrappings whose checksums cover every byte of the contents, and are compared.
CHECKED = ("gzip", "bzip2")
#: Honest data reach this ratio only when they are almost all zeros; a bomb goes far beyond.
_MAX_RATIO = 1100
#: A packed file in a packed file makes sense, more do not.
_MAX_LAYERS = 3
_FREE_BYTES = 1 << 30
_COPY_BYTES = 1 << 20


class UnpackedBlob(LocalBlob):
    """What was in a packed file, under the name and state of that. In the spool nobody changes it.

    Attributes:
        layers: how often it was packed.
        packed_bytes: size of the outermost file.
    """

    def __init__(self, path: Path, packed: Blob) -> None:
        super().__init__(path)
        self._file.close()  # the mapping remains
        self.layers: int = getattr(packed, "layers", 0) + 1
        self.packed_bytes: int = getattr(packed, "packed_bytes", packed.size)
        self.url, self.version, self.checksum = packed.url, packed.version, packed.checksum

    def _check_unchanged(self) -> None:
        """There is no need to."""


def unpack(blob: Blob, packing: str, settings: Settings, spool: str) -> UnpackedBlob:
    """The contents of a file packed by ``packing``, one of the values of `detect.PACKED`.

    Raises:
        LimitExceededError: it unpacks to far more than honest data do, or was packed over and over.
        CorruptDataError: it is damaged, or ends too early.
    """
    layers, packed_bytes = getattr(blob, "layers", 0), getattr(blob, "packed_bytes", blob.size)
    if layers >= _MAX_LAYERS:
        raise LimitExceededError(f"{redact_url(blob.url)} is packed more than {_MAX_LAYERS} times; unpack it yourself")

    def fill(path: Path) -> None:
        with _opened(blob, packing) as stream:
            copy_bounded(stream, path, packed_bytes, blob.url)

    path = spool_file(spool, f"{blob.url} {blob.version} {packed_bytes} unpacked {layers}", fill, settings)
    return UnpackedBlob(path, blob)


def copy_bounded(stream: IO[bytes], path: Path, packed_bytes: int, url: str) -> None:
    """Write what a stream unpacks to a file.

    Raises:
        LimitExceededError: it is more than 1 GiB and more than 1,100 times ``packed_bytes``.
        TruncatedError, CorruptDataError: it ends too early, or is damaged.
    """
    limit, count = max(_FREE_BYTES, _MAX_RATIO * packed_bytes), 0
    with path.open("wb") as target:
        while data := _read(stream, url):
            count += len(data)
            if count > limit:
                raise LimitExceededError(
                    f"{redact_url(url)}: {packed_bytes:,} bytes unpack to more than {limit:,}; "
                    "if that is right, unpack it yourself"
                )
            target.write(data)


def _read(stream: IO[bytes], url: str) -> bytes:
    with damage(url, "the packed file"):
        try:
            return stream.read(_COPY_BYTES)
        except EOFError as error:
            raise TruncatedError(f"{redact_url(url)} ends before what is packed in it does: fetch it again") from error
        except (OSError, zlib.error, lzma.LZMAError) as error:
            if "runcated" in str(error):
                raise TruncatedError(f"{redact_url(url)} ends before what is packed in it does") from error
            raise


def _opened(blob: Blob, packing: str) -> Any:
    file = io.BufferedReader(BlobFile(blob), _COPY_BYTES)
    if packing == "gzip":
        return gzip.GzipFile(fileobj=file)
    if packing == "bzip2":
        return BlockFile(_streams(file, bz2.BZ2Decompressor))
    if packing == "xz":
        return BlockFile(_streams(file, lzma.LZMADecompressor, b"\0"))
    return pa.CompressedInputStream(pa.PythonFile(file, mode="r"), packing)


def _streams(file: IO[bytes], decoder_of: Callable[[], Any], padding: bytes = b"") -> Iterator[bytes]:
    """What all streams of a file hold; the files of Python's own modules end before a later one that is damaged.

    Raises:
        EOFError: the file ends within a stream.
    """
    data = file.read(_COPY_BYTES)
    while data:
        decoder = decoder_of()
        while not decoder.eof:
            if decoder.needs_input and not data and not (data := file.read(_COPY_BYTES)):
                raise EOFError("it ends within a stream")
            yield decoder.decompress(data, _COPY_BYTES)
            data = b""
        data = decoder.unused_data.lstrip(padding)
        while not data and (more := file.read(_COPY_BYTES)):
            data = more.lstrip(padding)
