"""Pins by hand: datasets that stay until they are unpinned, whoever needs room.

A pin of this kind outlives its process; those that a running loader takes are in the ledger, under its lease.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import msgspec

from storagering.cache.layout import Cache, check_name
from storagering.cache.leases import Holder, this_process
from storagering.errors import NotFoundError, StorageringError
from storagering.files import make_directory, read_file, remove_file, replace_file, safe_join

_LIMIT_BYTES = 1 << 16


def pin_dataset(cache: Cache, name: str, reason: str) -> None:
    """Keep all chunks of a dataset that are on the disk.

    Raises:
        NotFoundError: there is no such dataset.
    """
    cache.manifest(name)
    make_directory(cache.root / "pins")
    replace_file(_path(cache, name), msgspec.json.encode(this_process(reason)))


def unpin_dataset(cache: Cache, name: str) -> None:
    """Let a dataset be evicted again.

    Raises:
        NotFoundError: it is not pinned.
    """
    if not _path(cache, name).exists():
        raise NotFoundError(f"dataset {name!r} is not pinned; 'storagering du' lists the pins")
    remove_file(_path(cache, name))


def pin_of(cache: Cache, name: str) -> Holder | None:
    """Who pinned a dataset by hand, None if nobody did."""
    path = _path(cache, name)
    if not path.exists():
        return None
    with suppress(StorageringError, msgspec.MsgspecError):
        return msgspec.json.decode(read_file(path, _LIMIT_BYTES), type=Holder)
    return Holder("?", 0, "?", "?", "somebody")  # a damaged pin is a pin


def _path(cache: Cache, name: str) -> Path:
    return safe_join(cache.root, "pins", f"{check_name(name)}.json")
