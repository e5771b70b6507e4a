"""Looking at every byte of a published dataset; nothing is changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from storagering.cache.first_epoch import FIRST_EPOCH_NAME, read_first_epoch
from storagering.cache.layout import Cache
from storagering.cache.manifest import earlier_manifest_name
from storagering.cache.progress import BuildProgress
from storagering.cache.residency import is_partial, missing_chunks
from storagering.cache.store import digest_of
from storagering.errors import ChecksumError, CorruptDataError, NotFoundError, TruncatedError
from storagering.files import load_mapped, map_file, read_file
from storagering.types import Chunk, Manifest, sha256_hex

_STATISTICS_LIMIT_BYTES = 1 << 32


@dataclass(frozen=True)
class Fault:
    """A file of a dataset that is not what its manifest says.

    Attributes:
        chunk: its number, None if it is no chunk.
        start, stop: the entries in it.
    """

    file: str
    why: str
    chunk: int | None = None
    start: int = 0
    stop: int = 0


def verify_dataset(cache: Cache, name: str, progress: BuildProgress) -> tuple[Fault, ...]:
    """Compare every file of a dataset with its digest; chunks that were evicted are no files.

    Returns:
        The files that are damaged, cut or lost, in order.

    Raises:
        NotFoundError: there is no such dataset.
        ChecksumError, FormatError: its manifest is damaged, so nothing can be compared with it.
    """
    manifest, folder = cache.manifest(name), cache.path(name)
    progress.start(manifest.num_entries)
    faults = []
    absent = set(missing_chunks(folder, manifest)) if is_partial(folder) else set[int]()
    for number, chunk in enumerate(manifest.chunks):
        if number in absent:
            continue
        if (why := chunk_fault(folder, chunk)) and not _was_evicted(folder, chunk):
            faults.append(Fault(chunk.file, why, number, chunk.start, chunk.stop))
        progress.advance(chunk.stop - chunk.start, chunk.nbytes)
    if why := _statistics_fault(folder, manifest):
        faults.append(Fault(manifest.chunk_statistics[0], why))
    return tuple(faults + _faults_beside(cache, manifest, folder))


def _faults_beside(cache: Cache, manifest: Manifest, folder: Path) -> list[Fault]:
    """Damage to what tells of the past: earlier manifests, and the order of the first epoch."""
    faults = []
    for version in range(1, manifest.version):
        try:
            cache.manifest(manifest.name, version)
        except (CorruptDataError, NotFoundError):
            faults.append(Fault(earlier_manifest_name(version), "it is missing, or its bytes changed"))
    try:
        read_first_epoch(folder, manifest.digest)
    except ChecksumError:
        faults.append(Fault(FIRST_EPOCH_NAME, "its bytes changed"))
    return faults


def _was_evicted(folder: Path, chunk: Chunk) -> bool:
    """Whether it went on purpose while we looked."""
    return is_partial(folder) and not os.path.lexists(folder / chunk.file)


def chunk_fault(folder: Path, chunk: Chunk) -> str:
    """What is wrong with a chunk's file, '' if nothing."""
    path = folder / chunk.file
    if path.is_symlink():
        return "it is a link to another file"
    if not path.is_file():
        return "it is missing"
    try:
        found = digest_of(load_mapped(path, map_file(path, chunk.nbytes)))
    except TruncatedError:
        try:
            return f"it has {path.stat().st_size:,} bytes instead of {chunk.nbytes:,}"
        except FileNotFoundError:
            return "it is missing"
    except CorruptDataError:
        return "the disk cannot read it"
    return "" if found == chunk.digest else "its bytes changed"


def _statistics_fault(folder: Path, manifest: Manifest) -> str:
    file, digest = manifest.chunk_statistics
    try:
        found = sha256_hex(read_file(folder / file, _STATISTICS_LIMIT_BYTES))
    except NotFoundError:
        return "it is missing"
    except CorruptDataError:
        return "the disk cannot read it"
    return "" if found == digest else "its bytes changed"
