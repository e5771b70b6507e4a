"""Bounds on the memory that reading may take: some files unpack to far more than they are, or say so."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storagering.config import Settings
from storagering.errors import LimitExceededError

#: A misread list length has been seen to allocate 13 GB for a file of 2 MB.
_EXTRA_BYTES = 2 << 30
_lock = threading.Lock()


def check_unpacking(what: str, packed_bytes: int, unpacked_bytes: int, settings: Settings) -> None:
    """Refuse what is no honest block of data.

    Raises:
        LimitExceededError: it is larger than any sensible block, and was packed more densely than honest data are,
            unless they are almost all zeros.
    """
    limit = max(settings.max_block_bytes, settings.max_unpack_ratio * packed_bytes)
    if unpacked_bytes > limit:
        raise LimitExceededError(
            f"{what} claims to unpack from {packed_bytes:,} to {unpacked_bytes:,} bytes; if that is right, "
            "set STORAGERING_MAX_BLOCK_BYTES to more"
        )


@contextmanager
def bounded_memory(extra_bytes: int = _EXTRA_BYTES) -> Iterator[None]:
    """Let the process grow by so much and no more; beyond that, allocations raise MemoryError.

    The limit is the kernel's, for the whole process (RLIMIT_AS), so it is kept for single columns only.
    Where it cannot be set, there is none.
    """
    with _lock:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            wanted = pages * resource.getpagesize() + extra_bytes
            bounded = soft == resource.RLIM_INFINITY or wanted < soft
            if bounded:
                resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
        except (OSError, ValueError):
            bounded = False
        try:
            yield
        finally:
            if bounded:
                resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
