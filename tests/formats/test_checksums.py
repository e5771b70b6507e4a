"""Checksums of whole files: how they are written, stated by servers, and compared."""

import base64
import hashlib

import pytest
import xxhash

from storagering.errors import ChecksumError, SpecError
from storagering.formats.checksums import ALGORITHMS, Checksummer, http_digest, known_checksum, parse_checksum

DIGITS = b"123456789"
KNOWN = {
    "adler32": "091e01de",
    "crc32": "cbf43926",
    "crc32c": "e3069283",
    "md5": hashlib.md5(DIGITS).hexdigest(),
    "sha256": hashlib.sha256(DIGITS).hexdigest(),
    "xxh3": xxhash.xxh3_64_hexdigest(DIGITS),
}


def test_every_algorithm_is_tested() -> None:
    assert set(KNOWN) == set(ALGORITHMS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", [bytes, memoryview])
def test_known_values_block_by_block(algorithm: str, kind: type[bytes] | type[memoryview]) -> None:
    summer = Checksummer(algorithm)
    for start in range(0, 9, 2):
        summer.update(kind(DIGITS[start : start + 2]))
    summer.compare(f"{algorithm}:{KNOWN[algorithm]}", "here")
    summer.update(kind(b"0"))
    with pytest.raises(ChecksumError, match=rf"here: its bytes give {algorithm}:.*should give {algorithm}:"):
        summer.compare(f"{algorithm}:{KNOWN[algorithm]}", "here")


def test_sites_leave_out_zeros_and_write_in_capitals() -> None:
    assert parse_checksum(" ADLER32:91E01DE ") == "adler32:091e01de"
    assert known_checksum("adler32:91e01de") == "adler32:091e01de"
    assert known_checksum("whirlpool:00") == ""


@pytest.mark.parametrize("text", ["", "adler32", "adler32:", "adler32:xyz", "adler32:123456789", "sha1:00", "0a1b2c3d"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="checksum"):
        parse_checksum(text)


@pytest.mark.parametrize(
    ("header", "checksum"),
    [
        ("adler32=91e01de", "adler32:091e01de"),
        (f"sha-256=:{base64.b64encode(hashlib.sha256(DIGITS).digest()).decode()}:", f"sha256:{KNOWN['sha256']}"),
        (f"md5={base64.b64encode(hashlib.md5(DIGITS).digest()).decode()}", f"md5:{KNOWN['md5']}"),
        ("unixsum=30637, crc32c=e3069283", "crc32c:e3069283"),
        ("md5=not base64!, adler32=091e01de", "adler32:091e01de"),
        ("md5=AAAA", ""),
        ("sha-512=:AAAA:", ""),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_headers_of_web_servers(header: str, checksum: str) -> None:
    assert http_digest(header) == checksum
