"""Which chunks of a dataset lie on the disk, and whether those that do not can come back.

A folder with the file `partial` in it belongs to a dataset of which chunks were evicted, or not fetched yet: a
chunk that is absent there is fetched when it is needed. In any other folder an absent chunk is damage.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from storagering.cache.layout import PARTIAL_NAME
from storagering.cache.manifest import software
from storagering.cache.source_state import unsafe_source
from storagering.config import Settings
from storagering.errors import CacheError, NotFoundError
from storagering.files import sync_directory, write_new
from storagering.types import Manifest


def is_partial(folder: Path) -> bool:
    """Whether chunks of the dataset in that folder may be absent."""
    return (folder / PARTIAL_NAME).exists()


def mark_partial(folder: Path) -> None:
    """Allow chunks to be absent; durable before the first one goes."""
    if not is_partial(folder):
        try:
            write_new(folder / PARTIAL_NAME)
        except CacheError:
            if not is_partial(folder):  # else somebody else was faster
                raise
        sync_directory(folder)


def resident_files(folder: Path, manifest: Manifest) -> set[str]:
    """The chunk files that are there."""
    try:
        with os.scandir(folder) as entries:
            there = {entry.name for entry in entries}
    except FileNotFoundError as error:
        raise NotFoundError(f"dataset {manifest.name!r} was removed from {folder.parent.parent}") from error
    return there & {chunk.file for chunk in manifest.chunks}


def missing_chunks(folder: Path, manifest: Manifest, numbers: Collection[int] | None = None) -> list[int]:
    """Numbers of the chunks that are not there, of those named or of all."""
    there = resident_files(folder, manifest)
    wanted = range(len(manifest.chunks)) if numbers is None else sorted(numbers)
    return [number for number in wanted if manifest.chunks[number].file not in there]


def why_it_must_stay(manifest: Manifest, settings: Settings) -> str:
    """Why chunks of a dataset could not be made again, digest for digest; '' if they could.

    Servers are not asked: what a dataset was made from there is taken to be there still.
    """
    if manifest.software != software():
        return f"it was made by {manifest.software}, and this is {software()}"
    if manifest.spec.mix is not None:
        return "its entries are mixed: each chunk is made of all sources"
    if any(":" in friend for friend in manifest.spec.friends):
        return "it has friends in files of their own"
    unsafe = unsafe_source(manifest, settings)
    return f"its source {unsafe}" if unsafe else ""
