"""Opening URLs through fsspec with timeouts of ours, and other libraries' failures as our errors."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from storagering.config import Settings
from storagering.errors import (
    AuthError,
    ConfigError,
    CorruptDataError,
    FormatError,
    MissingExtraError,
    NotFoundError,
    SourceError,
    SourceTimeoutError,
    StorageringError,
    TruncatedError,
    UnreachableError,
)
from storagering.files import redact_text, redact_url

_XROOTD_CODE = re.compile(r"\[(30\d\d)\]")
_TIMEOUT_TEXT = re.compile(r"operation expired|timed? ?out", re.I)
_UNREACHABLE_TEXT = re.compile(
    r"connection (error|refused|reset|closed)|socket (error|timeout)|invalid address|cannot connect|name or service"
    r"|server disconnected|stream disconnect|fatal\]",
    re.I,
)
_TRUNCATED_TEXT = re.compile(r"expected Chunk of length|end of file|unexpected EOF", re.I)


def scheme_of(url: str) -> str:
    """``root``, ``http``, ...; '' for a local path."""
    head, separator, _ = url.partition("://")
    return head.lower() if separator else ""


def storage_options(url: str, settings: Settings) -> dict[str, Any]:
    """Options for fsspec under which a dead server fails within seconds instead of minutes.

    For XRootD they are environment variables that the client reads when it is first imported
    (values found by experiment: the defaults hang for longer than 45 s).

    Raises:
        ConfigError: no fsspec file system for the URL's scheme.
        MissingExtraError: XRootD support is not installed.
    """
    scheme = scheme_of(url)
    if scheme in ("root", "roots", "xroot"):
        _set_xrootd_timeouts(settings)
        return {}
    if scheme in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(
            total=None, connect=settings.connect_timeout_seconds, sock_read=settings.request_timeout_seconds
        )
        return {"client_kwargs": {"timeout": timeout}}
    if scheme and scheme != "file":
        raise ConfigError(f"{redact_url(url)}: sources are local paths, root://, http:// or https://")
    return {}


def _set_xrootd_timeouts(settings: Settings) -> None:
    seconds = {
        "XRD_CONNECTIONWINDOW": settings.connect_timeout_seconds,
        "XRD_CONNECTIONRETRY": 1,
        "XRD_REQUESTTIMEOUT": settings.request_timeout_seconds,
        "XRD_STREAMTIMEOUT": max(1, settings.request_timeout_seconds - 1),
        "XRD_STREAMERRORWINDOW": settings.connect_timeout_seconds,
        "XRD_TIMEOUTRESOLUTION": 1,
    }
    for name, value in seconds.items():
        os.environ.setdefault(name, str(value))
    try:
        import fsspec_xrootd  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("root:// needs XRootD: pip install 'storagering[xrootd]'") from error


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
    return isinstance(error, OSError | asyncio.TimeoutError) or type(error).__module__.startswith("aiohttp")


def map_source_error(error: BaseException, url: str) -> StorageringError:
    """The StorageringError for an exception of uproot, fsspec, aiohttp, XRootD or the system.

    XRootD errors are told apart by their [30xx] code, because its classes are not reliable.
    """
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None and is_far_end(error.__cause__):
        error = error.__cause__  # fsspec calls every failure of a first HTTP request that
    shown = redact_url(url)
    text = redact_text(" ".join(str(error).split()), url)[:500] or type(error).__name__
    code = _XROOTD_CODE.search(text)
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status == 404 or (code and code.group(1) == "3011"):
        return NotFoundError(f"{shown}: no such file")
    if isinstance(error, PermissionError) or status in (401, 403) or (code and code.group(1) in ("3010", "3028")):
        return AuthError(f"{shown}: access denied; check your token or proxy ({text})")
    if isinstance(error, IsADirectoryError) or (code and code.group(1) == "3016"):
        return NotFoundError(f"{shown} is a folder; name its files, e.g. '{shown.rstrip('/')}/*.root'")
    if isinstance(error, TimeoutError | asyncio.TimeoutError) or _TIMEOUT_TEXT.search(text):
        return SourceTimeoutError(f"{shown}: the server did not answer in time ({text}); try again")
    if isinstance(error, ConnectionError) or _UNREACHABLE_TEXT.search(text):
        return UnreachableError(f"{shown}: cannot reach the server ({text}); is it up?")
    if _TRUNCATED_TEXT.search(text):
        return TruncatedError(f"{shown} ends too early ({text}); fetch it again")
    if is_far_end(error):
        return SourceError(f"{shown}: {text}")
    if isinstance(error, MemoryError):
        return CorruptDataError(f"{shown}: it asks for more memory than there is ({text})")
    return FormatError(f"{shown}: not readable as ROOT ({type(error).__name__}: {text})")
