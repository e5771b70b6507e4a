"""Which node is which, so that nodes that want the same chunk at the same time never wait for each other.

For every chunk all nodes that forward rank each other alike. One may be held up only by a node that ranks lower, so
nobody waits in a circle, and the lowest of all reads the source, once for all.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from pathlib import Path

from storagering.errors import CacheError, StorageringError
from storagering.files import FileLock, link_file, read_file, remove_file, write_new
from storagering.types import sha256_hex

#: In every answer: the id of the node that gives it.
NODE_HEADER = "Storagering-Node"
NODE_ID = re.compile(r"[0-9a-f]{16}")
_NAME = "node"


def node_id(root: Path) -> str:
    """The id of the node with that cache; drawn once.

    Raises:
        CacheError: it cannot be written.
    """
    path = root / _NAME
    if not path.exists():
        drawn = path.with_name(f".{_NAME}.{secrets.token_hex(6)}")
        write_new(drawn, secrets.token_hex(8).encode())
        with suppress(CacheError):  # another process has drawn one
            link_file(drawn, path)
        remove_file(drawn)
    found = read_file(path, 100).decode("ascii", "replace")
    if not NODE_ID.fullmatch(found):
        raise CacheError(f"{path} is damaged; remove it")
    return found


def forwarding_lock(root: Path) -> FileLock:
    """Held by a process that gets chunks into the cache for other nodes."""
    return FileLock(_lock_path(root))


def rank_here(root: Path, name: str) -> str | None:
    """How this node ranks for a name; None if it forwards nothing: then nobody waits for it, whomever it waits for."""
    try:
        if not _lock_path(root).exists():
            return None
        lock = FileLock(_lock_path(root), shared=True)
        if lock.try_acquire():
            lock.release()
            return None
        return rank(node_id(root), name)
    except StorageringError:
        return None


def rank(node: str, name: str) -> str:
    """How a node ranks for a name, the same wherever it is asked."""
    return sha256_hex(f"{node} {name}".encode())


def _lock_path(root: Path) -> Path:
    return root / "locks" / ".forward.lock"  # no dataset can have that name
