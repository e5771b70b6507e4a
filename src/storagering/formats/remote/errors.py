"""Other libraries' failures as our errors, without secrets."""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from storagering.errors import (
    AuthError,
    CorruptDataError,
    FormatError,
    NotFoundError,
    RefusedError,
    ResourceError,
    SourceError,
    SourceTimeoutError,
    StorageringError,
    TruncatedError,
    UnreachableError,
)
from storagering.urls import redact_text, redact_url, redact_urls_in

#: Modules whose exceptions are about servers, though they are no OSErrors.
_CLIENTS = ("aiohttp", "botocore", "aiobotocore")
_AUTH_CODES = ("3010", "3028", "3030")
_TIMEOUT_CODES = ("3034", "3035")
_XROOTD_CODE = re.compile(r"\[(30\d\d)\]")
_TIMEOUT_TEXT = re.compile(r"operation expired|timed? ?out", re.I)
_UNREACHABLE_TEXT = re.compile(
    r"connection (error|refused|reset|closed)|invalid (session|address)|socket (error|timeout)|c(an|ould) ?not connect"
    r"|name or service|server disconnected|stream disconnect|fatal\]",
    re.I,
)
_ABSENT_TEXT = re.compile(r"NoSuch(Bucket|Key)")
_AUTH_TEXT = re.compile(r"auth(entication)? failed|unable to locate credentials", re.I)
_REFUSED_TEXT = re.compile(r"certificate verify failed|certificate has expired|redirect limit", re.I)
#: What this machine has too little of; a source is not bad for it.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_TRUNCATED_TEXT = re.compile(r"expected Chunk of length|end of file|unexpected EOF", re.I)


@contextmanager
def source_errors(url: str) -> Iterator[None]:
    """Turn whatever reading ``url`` raises into the matching StorageringError, without secrets."""
    try:
        yield
    except StorageringError:
        raise
    except Exception as error:
        raise map_source_error(error, url) from error


def is_far_end(error: BaseException) -> bool:
    """Whether a server or the operating system failed, rather than the contents of a file."""
    return isinstance(error, OSError | asyncio.TimeoutError) or type(error).__module__.startswith(_CLIENTS)


def map_source_error(error: BaseException, url: str) -> StorageringError:
    """The StorageringError for an exception of uproot, fsspec, aiohttp, XRootD or the system.

    XRootD errors are told apart by their [30xx] code, because its classes are not reliable.
    """
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None and is_far_end(error.__cause__):
        error = error.__cause__  # fsspec calls every failure of a first HTTP request that
    shown = redact_url(url)
    if isinstance(error, OSError) and error.errno in _EXHAUSTED:
        return ResourceError(f"{shown}: {error.strerror}; allow more open files ('ulimit -n'), or take fewer workers")
    text = redact_urls_in(redact_text(" ".join(str(error).split()), url))[:500] or type(error).__name__
    code = _XROOTD_CODE.search(text)
    status = getattr(error, "status", None)
    absent = isinstance(error, FileNotFoundError) or _ABSENT_TEXT.search(text)
    if absent or status == 404 or (code and code.group(1) == "3011"):
        return NotFoundError(f"{shown}: no such file")
    if (
        isinstance(error, PermissionError)
        or _AUTH_TEXT.search(text)
        or status in (401, 403)
        or (code and code.group(1) in _AUTH_CODES)
    ):
        return AuthError(f"{shown}: access denied; check your token or proxy ({text})")
    if isinstance(error, IsADirectoryError) or (code and code.group(1) == "3016"):
        return NotFoundError(f"{shown} is a folder; name its files, e.g. '{shown.rstrip('/')}/*.root'")
    if _REFUSED_TEXT.search(text) or type(error).__name__ == "TooManyRedirects":
        return RefusedError(f"{shown}: the way to the server is not usable ({text or 'too many redirects'})")
    late = isinstance(error, TimeoutError | asyncio.TimeoutError) or _TIMEOUT_TEXT.search(text)
    if late or (code and code.group(1) in _TIMEOUT_CODES):
        return SourceTimeoutError(f"{shown}: the server did not answer in time ({text}); try again")
    if isinstance(error, ConnectionError) or _UNREACHABLE_TEXT.search(text):
        return UnreachableError(f"{shown}: cannot reach the server ({text}); is it up?")
    if _TRUNCATED_TEXT.search(text):
        return TruncatedError(f"{shown} ends too early ({text}); fetch it again")
    if is_far_end(error):
        return SourceError(f"{shown}: {text}")
    if isinstance(error, MemoryError):
        return CorruptDataError(f"{shown}: it asks for more memory than there is ({text})")
    return FormatError(f"{shown}: not readable ({type(error).__name__}: {text})")
