"""Saying once that a server is read without encryption."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

#: Scheme -> the same with TLS.
_WITH_TLS = {"http": "https", "dav": "davs", "root": "roots", "xroot": "xroots"}
_log = logging.getLogger("storagering.remote")
_told: set[str] = set()


def warn_if_plain(url: str) -> None:
    """Warn, once for each server, that others may read and change what it sends; not about this machine itself."""
    server = _plain_server(url)
    if not server or server in _told:
        return
    _told.add(server)
    _log.warning(
        "%s is read without encryption: others on the way can read and change what it sends, and see a token that the "
        "URL holds; no other token is sent there. Use %s:// if the server has it",
        server,
        _WITH_TLS[server.partition(":")[0]],
    )


def leave_untold(urls: Iterable[str]) -> None:
    """Warn of none of their servers: another process does."""
    _told.update(map(_plain_server, urls))


def _plain_server(url: str) -> str:
    """Scheme, host and port of a server that is far away and speaks without TLS; else ''."""
    try:
        parts = urlsplit(url)
        far = parts.scheme in _WITH_TLS and not _is_here(parts.hostname or "")
    except ValueError:  # no proper URL, which opening it will tell
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if far else ""


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
