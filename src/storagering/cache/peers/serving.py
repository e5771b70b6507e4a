"""Serving a cache to other nodes; needs the extra ``storagering[peers]``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from storagering.cache.layout import Cache
from storagering.cache.peers.address import DEFAULT_PORT, read_token
from storagering.cache.peers.identity import forwarding_lock, node_id
from storagering.cache.peers.library import CacheLibrary
from storagering.cache.peers.merging import Resolve
from storagering.errors import CacheError, ConfigError, MissingExtraError

_LOCK_SECONDS = 1.0
_EXTRA = ("uvicorn", "starlette", "h11")


@dataclass(frozen=True)
class ServeOptions:
    """Where a node answers, and whom.

    Attributes:
        port: 0 picks a free one.
        token_file: file with the token that everybody must show; the settings' or the environment's without it.
    """

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    token_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None


def serve_cache(
    cache: Cache,
    options: ServeOptions,
    *,
    resolve: Resolve | None = None,
    started: Callable[[str], None] = lambda _url: None,
    tell: Callable[[str], None] = lambda _message: None,
) -> None:
    """Answer other nodes until a signal ends it.

    Args:
        resolve: gets a chunk that is not here from elsewhere; only what is here is given without it.
        started: called with the URL once the node is reached there.
        tell: gets sentences for the operator.

    Raises:
        ConfigError: it would be open to other machines without a token and TLS, or one of them is not usable.
        MissingExtraError: uvicorn or starlette is not installed.
        PeerError: the port is taken.
    """
    try:
        from storagering.cache.peers.guard import Rules
        from storagering.cache.peers.listen import Door, bind, serve
        from storagering.cache.peers.server import make_app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise MissingExtraError(f"serving a cache needs {error.name}: pip install 'storagering[peers]'") from error
    if (options.tls_certificate is None) != (options.tls_key is None):
        raise ConfigError("TLS needs both: the certificate (--tls-cert) and its key (--tls-key)")
    certificate = None
    if options.tls_certificate is not None and options.tls_key is not None:
        certificate = options.tls_certificate, options.tls_key
    door = Door(options.host, options.port, read_token(cache.settings, options.token_file), certificate)
    seconds = cache.settings.peer_timeout_seconds
    rules = Rules(door.token, local_only=door.token is None)
    app = make_app(CacheLibrary(cache), rules, resolve=resolve, timeout_seconds=seconds, tell=tell)
    listening, url = bind(door)
    lock, node = forwarding_lock(cache.root), ""
    with suppress(CacheError):  # read-only, or another process forwards for the same cache
        node = node_id(cache.root)
        if resolve is not None:
            lock.acquire(_LOCK_SECONDS)
    try:
        started(url)
        serve(app, listening, door, seconds, node=node)
    finally:
        listening.close()
        lock.release()
