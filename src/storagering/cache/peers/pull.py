"""Taking a dataset over from another node: what it is first, its chunks now or when they are needed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

from storagering.cache.layout import PARTIAL_NAME, Cache
from storagering.cache.manifest import MANIFEST_NAME, encode_manifest
from storagering.cache.peers.client import Peers, known_peers
from storagering.cache.peers.forward import FetcherPool
from storagering.cache.progress import BuildProgress
from storagering.cache.residency import is_partial, missing_chunks
from storagering.errors import CacheError, ConfigError, NotFoundError, PeerError, SpecError
from storagering.files import make_directory, publish_directory, safe_join, write_new
from storagering.types import Chunk, Manifest

_AT_ONCE = 4


def pull_dataset(
    cache: Cache, peers: Peers, name: str, *, digest: str | None = None, lazy: bool = False, progress: BuildProgress
) -> tuple[Manifest, bool]:
    """The dataset of that name, from other nodes; one that is here already is completed.

    Args:
        digest: of its manifest: then any node may give it, not only those that are trusted.
        lazy: leave the chunks where they are until they are needed.

    Returns:
        The manifest, and whether this call brought the dataset.

    Raises:
        ConfigError: no nodes are named, or none that may say what the dataset is.
        NotFoundError: no node has it.
        SpecError: another dataset has that name here.
        PeerError: chunks could not be had; what came is kept, and the same call goes on.
        CacheError: the cache cannot be written.
    """
    if not peers:
        raise ConfigError("no other nodes are known: name one with --from URL, or STORAGERING_PEERS")
    with suppress(CacheError):
        cache.reclaim()
    lock = cache.build_lock(name)
    lock.acquire(cache.settings.lock_timeout_seconds, progress.tell)
    try:
        new = not cache.contains(name)
        if new:
            found = peers.manifest(name, digest)
            if found is None:
                raise NotFoundError(f"no node gives dataset {name!r}{_because(peers)}")
            new = _publish(cache, peers, found, progress)
        manifest = cache.manifest(name)
        if digest not in (None, manifest.digest):
            raise SpecError(
                f"dataset {name!r} is there already, with digest {manifest.digest}; 'storagering remove {name}' first"
            )
    finally:
        lock.release()
    if not lazy:
        _fetch_chunks(cache, peers, manifest, progress)
    return manifest, new


def adopt_dataset(cache: Cache, name: str, key: str, progress: BuildProgress) -> None:
    """Take over what a dataset of that name and specification is, if a node that is trusted has it; else nothing.

    Its chunks come when they are needed.
    """
    peers = known_peers(cache.settings)
    if not peers or cache.contains(name):
        return
    lock = cache.build_lock(name)
    if not lock.try_acquire():  # somebody is at it
        return
    try:
        manifest = peers.find_manifest(key)
        if manifest is None or manifest.name != name or cache.contains(name):
            return
        with suppress(PeerError):
            if _publish(cache, peers, manifest, progress):
                progress.tell(f"dataset {name!r} is on another node: its chunks come from there when they are needed")
    finally:
        lock.release()


def _publish(cache: Cache, peers: Peers, manifest: Manifest, progress: BuildProgress) -> bool:
    """Make the dataset's folder, without chunks; False if somebody else was faster."""
    name = manifest.name
    folder = cache.path(name)
    if folder.is_dir() and any(folder.iterdir()) and not cache.contains(name):
        progress.tell(f"{folder} is no dataset: it is moved to {cache.put_aside(name)}")
    with cache.staging(name, "pull", keep_others=True) as staging:
        folder = staging / "dataset"
        make_directory(folder)
        file, table = manifest.chunk_statistics
        if not peers.fetch_statistics(table, safe_join(folder, file)):
            raise PeerError(f"no node gives {file} of dataset {name!r}{_because(peers)}")
        write_new(folder / PARTIAL_NAME)
        write_new(folder / MANIFEST_NAME, encode_manifest(manifest))
        return publish_directory(folder, cache.path(name))


def _fetch_chunks(cache: Cache, peers: Peers, manifest: Manifest, progress: BuildProgress) -> None:
    folder = cache.path(manifest.name)
    missing = missing_chunks(folder, manifest)
    if not missing or not is_partial(folder):  # elsewhere an absent chunk is damage, to be repaired
        return
    progress.start(sum(manifest.chunks[number].num_entries for number in missing))

    def fetch(number: int) -> bool:
        try:
            with fetchers.fetcher(manifest) as fetcher:
                fetcher.ensure([number])
        except PeerError:
            return False
        return True

    def from_peers(chunk: Chunk, target: Path) -> bool:
        if not peers.fetch_chunk(chunk.digest, chunk.nbytes, target):
            raise PeerError(chunk.file)  # the sources are not read by somebody who asked for other nodes
        return True

    lacking = 0
    pool = ThreadPoolExecutor(_AT_ONCE)
    with closing(FetcherPool(cache, from_peers)) as fetchers:
        try:
            for number, there in zip(missing, pool.map(fetch, missing), strict=True):
                lacking += not there
                chunk = manifest.chunks[number]
                progress.advance(chunk.num_entries * there, chunk.raw_bytes * there)
        finally:
            pool.shutdown(cancel_futures=True)
    if lacking:
        raise PeerError(
            f"{lacking:,} of {len(manifest.chunks):,} chunks of dataset {manifest.name!r} could not be had"
            f"{_because(peers)}; the same command goes on"
        )


def _because(peers: Peers) -> str:
    return f": {why}" if (why := peers.why()) else ""
