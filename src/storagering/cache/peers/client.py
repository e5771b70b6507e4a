"""Asking other nodes: every byte of a chunk is compared with its digest before it is written anywhere."""

from __future__ import annotations

import hashlib
import re
import ssl
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from storagering.cache.layout import check_name
from storagering.cache.manifest import decode_manifest, spec_key
from storagering.cache.peers.address import HOPS_HEADER, MAX_HOPS, PeerAddress, parse_peers, read_token
from storagering.cache.peers.exchange import Answer, Clock, ask
from storagering.cache.peers.health import Health
from storagering.cache.peers.identity import NODE_ID, rank, rank_here
from storagering.config import Settings
from storagering.errors import ConfigError, CorruptDataError, PeerError
from storagering.files import write_new
from storagering.types import Chunk, Manifest

_DIGEST = re.compile(r"[0-9a-f]{64}")
#: Of no chunk.
_NO_DIGEST = "0" * 64
_MET_AT_ONCE = 16
_CHUNK_LIMIT_BYTES = 1 << 32
_STATISTICS_LIMIT_BYTES = 1 << 30


class _Hasher(Protocol):
    def update(self, data: memoryview, /) -> object: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True)
class Peer:
    """Another node, and how it did so far."""

    address: PeerAddress
    health: Health = field(default_factory=Health)


class Peers:
    """The other nodes; holds no open connection, and is safe to use from several threads and after a fork.

    What a node answers wrongly, too slowly or not at all is never an error: the next one is asked, and the one
    that failed is left alone for a while.
    """

    def __init__(self, peers: tuple[Peer, ...], token: str | None, settings: Settings) -> None:
        self._peers, self._token, self._settings = peers, token, settings
        secure = any(peer.address.secure for peer in peers)
        self._tls = ssl.create_default_context() if secure else None  # SSL_CERT_FILE adds to whom it trusts
        self._strangers = deque(peers if len(peers) > 1 else ())

    @classmethod
    def from_settings(cls, settings: Settings) -> Peers:
        """The nodes that the settings name, none if they name none.

        Raises:
            ConfigError: an address or the token's file is wrong.
        """
        addresses = parse_peers(settings.peers)
        for address in addresses:
            if not address.secure and not address.local:
                text = f"peer {address.url}: without TLS it gets no token, and only checked bytes are taken from it"
                warnings.warn(text, stacklevel=2)
        token = read_token(settings) if addresses else None
        return cls(tuple(Peer(address) for address in addresses), token, settings)

    def __bool__(self) -> bool:
        return bool(self._peers)

    def why(self) -> str:
        """What was wrong with the nodes that are left alone now, '' if none is."""
        return "; ".join(peer.health.reason for peer in self._peers if peer.health.reason)

    def fetch_chunk(self, digest: str, nbytes: int, target: Path, *, hops: int = 0) -> bool:
        """Write the chunk file of that digest to ``target``, which must not exist, from whichever node has it.

        Args:
            nbytes: its size, as the manifest says.
            hops: 1 if another node asked this one for it: only what nodes have at home is then taken.

        Returns:
            Whether a node had it. If not, nothing is written.

        Raises:
            CacheError: ``target`` cannot be written.
        """
        self._introduce()
        own = rank_here(self._settings.cache, digest)
        wanted = _Wanted(blake3, digest, nbytes, _CHUNK_LIMIT_BYTES)
        for peer in self._order(digest):
            may_wait = _may_wait(peer, digest, own)
            data = self._get(peer, f"/v1/chunks/{digest}", wanted, hops if may_wait else MAX_HOPS)
            if data is None and not may_wait and _may_wait(peer, digest, own) and peer.health.is_usable():
                data = self._get(peer, f"/v1/chunks/{digest}", wanted, hops)  # it has told only now who it is
            if data is not None:
                write_new(target, data)
                return True
        return False

    def bring(self, *, hops: int = 0) -> Callable[[Chunk, Path], bool]:
        """`fetch_chunk` as `storagering.cache.fetch.ChunkFetcher` wants it."""
        return lambda chunk, target: self.fetch_chunk(chunk.digest, chunk.nbytes, target, hops=hops)

    def fetch_statistics(self, digest: str, target: Path) -> bool:
        """Write the table of statistics with that sha256 to ``target``; returns and raises as `fetch_chunk`."""
        for peer in self._order(digest):
            wanted = _Wanted(hashlib.sha256, digest, None, _STATISTICS_LIMIT_BYTES)
            data = self._get(peer, f"/v1/statistics/{digest}", wanted)
            if data is not None:
                write_new(target, data)
                return True
        return False

    def find_manifest(self, key: str) -> Manifest | None:
        """The manifest of a dataset made to the specification with that key, from a node that is trusted."""
        return self._manifest(f"/v1/specs/{key}", lambda found: found.spec_key == key, None)

    def manifest(self, name: str, digest: str | None = None) -> Manifest | None:
        """The manifest of the dataset of that name.

        Args:
            digest: of the manifest, if it is known: any node may then give it. Without, only nodes that are
                trusted are asked: on this machine, or by TLS with a token.

        Raises:
            InputError: no dataset can have that name.
            ConfigError: a digest is not 64 hexadecimal digits, or there is no node that could be asked.
        """
        check_name(name)
        if digest is not None and not _DIGEST.fullmatch(digest):
            raise ConfigError(
                f"digest {digest!r}: write the 64 hexadecimal digits that 'storagering info --json' shows"
            )
        if digest is None and self._peers and not any(map(self._is_trusted, self._peers)):
            raise ConfigError(
                "a manifest is taken only from a node on this machine, by https:// with a token, or with its --digest"
            )
        return self._manifest(f"/v1/manifests/{name}", lambda found: found.name == name, digest)

    def _manifest(self, path: str, fits: Callable[[Manifest], bool], digest: str | None) -> Manifest | None:
        for peer in self._order(path):
            if digest is None and not self._is_trusted(peer):
                continue
            data = self._get(peer, path, _Wanted(hashlib.sha256, None, None, self._settings.max_manifest_bytes))
            if data is None:
                continue
            try:
                found = decode_manifest(bytes(data), f"the manifest from {peer.address.url}")
            except CorruptDataError as error:
                peer.health.fail(str(error))
                continue
            if not fits(found) or spec_key(found.spec) != found.spec_key:
                peer.health.fail(f"{peer.address.url} gives the manifest of another dataset")
            elif digest in (None, found.digest):
                return found
        return None

    def _is_trusted(self, peer: Peer) -> bool:
        return peer.address.local or (peer.address.secure and self._token is not None)

    def _introduce(self) -> None:
        """Ask all nodes once who they are: else each asker would rank those that it has not met in its own way."""
        strangers = []
        while self._strangers:
            with suppress(IndexError):  # another thread meets them
                strangers.append(self._strangers.popleft())
        if strangers:
            wanted = _Wanted(blake3, _NO_DIGEST, None, _CHUNK_LIMIT_BYTES)
            with ThreadPoolExecutor(min(len(strangers), _MET_AT_ONCE)) as pool:
                list(pool.map(lambda peer: self._get(peer, f"/v1/chunks/{_NO_DIGEST}", wanted, MAX_HOPS), strangers))

    def _order(self, name: str) -> Iterator[Peer]:
        """The nodes that may be asked; all nodes that look for a name begin with the same one, so it reads it once."""
        ranked = sorted(self._peers, key=lambda peer: rank(peer.health.node or peer.address.url, name))
        return (peer for peer in ranked if peer.health.is_usable())

    def _get(self, peer: Peer, path: str, wanted: _Wanted, hops: int = 0) -> memoryview | None:
        """What the node has under that path, checked; None if it has not, or did wrong, which is noted."""
        try:
            clock = Clock(self._settings.peer_timeout_seconds)
            headers = {HOPS_HEADER: str(hops)}
            with closing(ask(peer.address, path, headers, clock, self._tls, token=self._token)) as answer:
                if NODE_ID.fullmatch(answer.node):
                    peer.health.node = answer.node
                if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:  # busy, which is no fault
                    return None
                data = wanted.receive(peer.address, answer) if answer.status != HTTPStatus.NOT_FOUND else None
            peer.health.succeed()
        except PeerError as error:
            peer.health.fail(str(error))
            return None
        return data


@lru_cache(maxsize=8)
def known_peers(settings: Settings) -> Peers:
    """`Peers.from_settings`, one for all readers of this process: who failed one of them is left alone by all."""
    return Peers.from_settings(settings)


@dataclass(frozen=True)
class _Wanted:
    """What an answer must be.

    Attributes:
        digest: None where something else vouches for the bytes.
        nbytes: None if the size is not known.
    """

    hasher: Callable[[], _Hasher]
    digest: str | None
    nbytes: int | None
    limit_bytes: int

    def receive(self, peer: PeerAddress, answer: Answer) -> memoryview:
        """The bytes of the answer.

        Raises:
            PeerError: they are not what they must be.
        """
        if answer.status != HTTPStatus.OK:
            raise PeerError(f"{peer.url} {_meaning(answer.status)}")
        size = answer.nbytes
        if size is None or size > self.limit_bytes or (self.nbytes is not None and size != self.nbytes):
            offered = "endless" if size is None else f"{size:,}"
            wanted = f"{self.limit_bytes:,} or fewer" if self.nbytes is None else f"{self.nbytes:,}"
            raise PeerError(f"{peer.url} offers {offered} bytes; it should be {wanted}")
        hasher = self.hasher()
        data = answer.read(size, hasher.update)
        if self.digest is not None and hasher.hexdigest() != self.digest:
            raise PeerError(f"{peer.url} gave other bytes than it was asked for")
        return data


def _may_wait(peer: Peer, name: str, own: str | None) -> bool:
    """Whether to wait while the peer gets what it lacks: not if it may be waiting for this node."""
    return own is None or (bool(peer.health.node) and rank(peer.health.node, name) < own)


def _meaning(status: int) -> str:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return "refuses the token"
    if 300 <= status < 400:
        return "sends its askers elsewhere, where they do not go"
    return f"answers with status {status}"
