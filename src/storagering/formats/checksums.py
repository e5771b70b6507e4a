"""Whole-file checksums as storage sites, web servers and users state them: ``algorithm:hex``."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable
from typing import Protocol

import google_crc32c
import xxhash

from storagering.errors import ChecksumError, SpecError

_Bytes = bytes | memoryview


class _Hash(Protocol):
    def update(self, data: _Bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Zlib:
    """Adler-32 or CRC-32 in the manner of hashlib."""

    def __init__(self, function: Callable[[_Bytes, int], int], value: int) -> None:
        self._function, self._value = function, value

    def update(self, data: _Bytes, /) -> None:
        self._value = self._function(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class _Crc32c:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: _Bytes, /) -> None:
        self._value = google_crc32c.extend(self._value, bytes(data))

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def _sha256() -> _Hash:
    return hashlib.sha256()


def _md5() -> _Hash:
    return hashlib.md5(usedforsecurity=False)


_ALGORITHMS: dict[str, tuple[int, Callable[[], _Hash]]] = {
    "adler32": (8, lambda: _Zlib(zlib.adler32, 1)),
    "crc32c": (8, _Crc32c),
    "crc32": (8, lambda: _Zlib(zlib.crc32, 0)),
    "md5": (32, _md5),
    "sha256": (64, _sha256),
    "xxh3": (16, xxhash.xxh3_64),
}
ALGORITHMS = tuple(_ALGORITHMS)

_HTTP_NAMES = {"adler32": "adler32", "crc32c": "crc32c", "md5": "md5", "sha-256": "sha256", "sha256": "sha256"}
_HTTP_PART = re.compile(r"\s*([\w-]+)=:?([^,:]+):?\s*(?:,|$)")


def parse_checksum(text: str) -> str:
    """``algorithm:hex`` in lower case and full length.

    Raises:
        SpecError: an algorithm that is not known (lists those that are), or digits that do not fit it.
    """
    name, _, digits = text.strip().lower().partition(":")
    if name not in _ALGORITHMS:
        raise SpecError(f"checksum {text[:80]!r}: write ALGORITHM:HEX, with one of {', '.join(ALGORITHMS)}")
    length = _ALGORITHMS[name][0]
    if not re.fullmatch(r"[0-9a-f]+", digits) or len(digits) > length:
        raise SpecError(f"checksum {text[:80]!r}: {name} has {length} hex digits")
    return f"{name}:{digits.zfill(length)}"


def known_checksum(text: str) -> str:
    """What a server states, normalised; '' if it is of an algorithm that is not known here."""
    try:
        return parse_checksum(text)
    except SpecError:
        return ""


def http_digest(header: str) -> str:
    """The first known checksum of a ``Digest`` (RFC 3230) or ``Repr-Digest`` (RFC 9530) header, else ''."""
    for name, value in _HTTP_PART.findall(header):
        algorithm = _HTTP_NAMES.get(name.lower(), "")
        digits = _hex_of_base64(value, _ALGORITHMS[algorithm][0]) if algorithm in ("md5", "sha256") else value
        if found := known_checksum(f"{algorithm}:{digits}"):
            return found
    return ""


def _hex_of_base64(text: str, length: int) -> str:
    try:
        digits = base64.b64decode(text, validate=True).hex()
    except ValueError:  # binascii.Error is one
        return ""
    return digits if len(digits) == length else ""


class Checksummer:
    """Adds a file up, block by block."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._hash = _ALGORITHMS[algorithm][1]()

    def update(self, data: _Bytes) -> None:
        """The next bytes."""
        self._hash.update(data)

    def compare(self, wanted: str, shown: str) -> None:
        """Check that the bytes so far are those that ``wanted`` stands for.

        Raises:
            ChecksumError: they are not; names ``shown`` and both checksums.
        """
        found = f"{self._algorithm}:{self._hash.hexdigest()}"
        if found != wanted:
            raise ChecksumError(
                f"{shown}: its bytes give {found}, they should give {wanted}; the copy is damaged: fetch another"
            )
