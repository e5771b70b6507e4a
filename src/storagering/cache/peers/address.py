"""Addresses of other nodes, and the token that they want."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from storagering.config import PEER_TOKEN_VARIABLE, Settings
from storagering.errors import ConfigError, StorageringError
from storagering.files import read_file
from storagering.urls import redact_url

DEFAULT_PORT = 8760
#: Says how often a request was passed on already; see `MAX_HOPS`.
HOPS_HEADER = "Storagering-Hops"
#: A node asks others for what it was asked for itself, but these only look at home: no request goes in circles.
MAX_HOPS = 1

_TOKEN = re.compile(r"[!-~]{16,4096}")
_TOKEN_FILE_BYTES = 1 << 13


@dataclass(frozen=True)
class PeerAddress:
    """Where another node answers.

    Attributes:
        url: as it is shown; it holds no secret.
        prefix: path before ``/v1/``, without a slash at its end.
    """

    url: str
    host: str
    port: int
    secure: bool
    prefix: str = ""

    @property
    def local(self) -> bool:
        """Whether it is on this machine."""
        return is_loopback(self.host)


def parse_peers(text: str) -> tuple[PeerAddress, ...]:
    """The addresses in a list of URLs with commas between them, each one once.

    Raises:
        ConfigError: one is no ``http://`` or ``https://`` URL of a node.
    """
    return tuple(dict.fromkeys(_parse(url.strip()) for url in text.split(",") if url.strip()))


def _parse(url: str) -> PeerAddress:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        parts, host, port = urlsplit(""), "", None
    if parts.scheme not in ("http", "https") or not host or not parts.path.isprintable() or " " in parts.path:
        raise ConfigError(f"peer {redact_url(url)!r}: write http://HOST:PORT or https://HOST:PORT")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(f"peer {redact_url(url)!r}: a token is given by file or {PEER_TOKEN_VARIABLE}, not in a URL")
    prefix = parts.path.rstrip("/")
    shown = f"{parts.scheme}://{parts.netloc}{prefix}"
    return PeerAddress(shown, host, port or DEFAULT_PORT, parts.scheme == "https", prefix)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, whatever a name server says."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(settings: Settings, file: Path | None = None) -> str | None:
    """The token in the named file, else in that of the settings, else in the environment; None if there is none.

    Raises:
        ConfigError: the file cannot be read, others may read it, or it holds no token.
    """
    path = file or (Path(settings.peer_token_file).expanduser() if settings.peer_token_file else None)
    token = os.environ.get(PEER_TOKEN_VARIABLE, "") if path is None else _read(path)
    if path is None and not token:
        return None
    if not _TOKEN.fullmatch(token):
        where = PEER_TOKEN_VARIABLE if path is None else path
        raise ConfigError(f"{where} holds no token: one word of 16 or more letters, digits and signs")
    return token


def _read(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        data = read_file(path.resolve(), _TOKEN_FILE_BYTES)  # secrets are often mounted as links
    except (OSError, StorageringError) as error:
        raise ConfigError(f"cannot read the token file {path}") from error
    if stat.S_IMODE(mode) & 0o007:
        raise ConfigError(f"the token file {path} is open to all users of this machine; 'chmod 600 {path}' first")
    return data.decode("ascii", "replace").strip()
