"""Options under which file systems fail within seconds instead of minutes."""

from __future__ import annotations

import os
from typing import Any

from storagering.config import Settings
from storagering.errors import ConfigError, MissingExtraError
from storagering.files import redact_url


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
