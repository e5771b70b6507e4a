"""What the schemes of URLs need, and options under which file systems fail within seconds instead of minutes."""

from __future__ import annotations

from typing import Any

from fsspec.registry import get_filesystem_class

from storagering.config import Settings
from storagering.errors import ConfigError, MissingExtraError
from storagering.formats.remote.xrootd import SCHEMES as XROOTD_SCHEMES
from storagering.formats.remote.xrootd import load_client
from storagering.urls import redact_url

#: fsspec's views of other files; as sources they would only hide where bytes come from.
_VIEWS = {"reference", "simplecache", "filecache", "blockcache", "cached", "dir", "generic", "data", "dask"}
_EXTRAS = {"s3": "s3", "s3a": "s3"}


def scheme_of(url: str) -> str:
    """``root``, ``http``, ...; '' for a local path."""
    head, separator, _ = url.partition("://")
    return head.lower() if separator else ""


def storage_options(url: str, settings: Settings) -> dict[str, Any]:
    """Options for fsspec under which a dead server fails within seconds instead of minutes.

    Raises:
        ConfigError: no file system is known for the URL's scheme.
        MissingExtraError: what it needs is not installed.
    """
    scheme = scheme_of(url)
    if scheme in XROOTD_SCHEMES:
        load_client(settings)
        return {}
    if scheme in ("", "file"):
        return {}
    if scheme in _VIEWS:
        raise ConfigError(f"{redact_url(url)}: {scheme}:// is a view of other files; name these")
    try:
        get_filesystem_class(scheme)
    except ValueError as error:
        raise ConfigError(
            f"{redact_url(url)}: nothing reads {scheme}://; sources are local paths, root://, http(s)://, s3:// "
            "or of any other scheme that fsspec knows"
        ) from error
    except ImportError as error:
        hint = f"pip install 'storagering[{_EXTRAS[scheme]}]'" if scheme in _EXTRAS else str(error)
        raise MissingExtraError(f"{redact_url(url)}: {scheme}:// needs another package: {hint}") from error
    if scheme in ("s3", "s3a"):
        timeouts = {
            "connect_timeout": settings.connect_timeout_seconds,
            "read_timeout": settings.request_timeout_seconds,
            "retries": {"total_max_attempts": 1},
        }
        return {"config_kwargs": timeouts}
    return {}
