"""Putting good chunks in the place of damaged ones, digest for digest; the damaged files go into quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress

from storagering.cache.fetch import ChunkFetcher
from storagering.cache.layout import Cache
from storagering.cache.progress import BuildProgress
from storagering.cache.verify import Fault, verify_dataset
from storagering.errors import CacheError


def repair_dataset(
    cache: Cache, name: str, replicas: Sequence[str], progress: BuildProgress
) -> tuple[tuple[Fault, ...], tuple[Fault, ...]]:
    """Find the damaged chunks of a dataset, and fetch them again. Whoever reads the others is not disturbed.

    Args:
        replicas: where else the sources are, as for a conversion.

    Returns:
        What was damaged, and what of it still is: the statistics, which only a conversion makes.

    Raises:
        NotFoundError: there is no such dataset, or a source is gone.
        SourceChangedError: a source is not what the dataset was made from, so the chunk cannot come back.
        StorageringError: as a conversion; chunks that were mended before stay so.
    """
    with suppress(CacheError):
        cache.reclaim()
    lock = cache.build_lock(name)
    lock.acquire(cache.settings.lock_timeout_seconds, progress.tell)
    try:
        faults = verify_dataset(cache, name, progress)
        bad = [fault.chunk for fault in faults if fault.chunk is not None]
        if bad:
            manifest = cache.manifest(name)
            with closing(ChunkFetcher(cache, manifest, replicas=replicas)) as fetcher:
                fetcher.renew(bad)
            progress.tell(f"{', '.join(manifest.chunks[number].file for number in bad)}: made again")
        return faults, tuple(fault for fault in faults if fault.chunk is None)
    finally:
        lock.release()
