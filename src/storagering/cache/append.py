"""Appending sources to a published dataset: a new version that shares the chunks of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace

from storagering.cache.build import PROCESSES, Job, run_job
from storagering.cache.build_space import BuildSpace
from storagering.cache.layout import Cache
from storagering.cache.progress import BuildProgress
from storagering.cache.publish import extend_dataset, remove_strays
from storagering.cache.selection import is_labelled
from storagering.cache.source_state import check_unchanged
from storagering.config import Settings
from storagering.errors import CacheError, SpecError, StorageringError
from storagering.files import remove_directory
from storagering.formats.source import Location
from storagering.formats.sources import identify
from storagering.types import ConversionSpec, Manifest, OnBadSource

_Named = tuple[str, str | None]


@dataclass(frozen=True)
class Addition:
    """What is to be appended to a dataset.

    Attributes:
        sources: (URL without secrets, class name or None) and where that is.
    """

    name: str
    sources: Sequence[tuple[_Named, Location]] = field(repr=False)
    on_bad_source: OnBadSource = "fail"
    scheduler: str = PROCESSES


def append_sources(cache: Cache, addition: Addition, progress: BuildProgress) -> tuple[Manifest, bool]:
    """Convert those sources that the dataset does not have yet, in the way that it was made.

    Sources that were left out as bad before are tried again.

    Returns:
        The manifest, and whether this call made it a new version.

    Raises:
        NotFoundError: there is no such dataset.
        SpecError: a class name is missing, or not what it was.
        SchemaError: a column is missing or of another type, naming file and column.
        SourceChangedError: a source that is in the dataset has changed since.
        StorageringError: as `build_dataset`; the dataset is then as it was.
    """
    name = addition.name
    cache.manifest(name)
    with suppress(CacheError):
        cache.reclaim()
    lock = cache.build_lock(name)
    lock.acquire(cache.settings.lock_timeout_seconds, progress.tell)
    try:
        old = cache.manifest(name)
        new = _new_sources(old, addition, cache.settings)
        if not new:
            return old, False
        if known := len(addition.sources) - len(new):
            progress.tell(f"{known:,} of {len(addition.sources):,} sources are in the dataset already")
        spec = _spec_of(old, [source for source, _ in new])
        part = replace(
            spec,
            sources=tuple(source for source, _ in new),
            on_bad_column="fail",  # a dataset's columns are all there in all of its versions
            on_bad_source=addition.on_bad_source,
        )
        if addition.on_bad_source == "skip":
            spec = replace(spec, on_bad_source="skip")
        job = Job(name, part, [location for _, location in new], addition.scheduler, old)
        with cache.staging(name, job.key) as staging, closing(BuildSpace(cache, name, staging)) as space:
            outcome = run_job(cache, job, staging, space, progress)
            space.announce()
            try:
                manifest = extend_dataset(old, spec, outcome, cache.path(name))
            except StorageringError:
                with suppress(StorageringError):
                    remove_strays(cache.manifest(name), cache.path(name))
                raise
            space.publish(manifest)
            with suppress(CacheError):  # a later append removes what is left
                remove_directory(staging)
        return manifest, True
    finally:
        lock.release()


def _new_sources(old: Manifest, addition: Addition, settings: Settings) -> Sequence[tuple[_Named, Location]]:
    if any(":" in friend for friend in old.spec.friends):
        raise SpecError(f"dataset {old.name!r} has friends in files of their own: convert all of it again")
    labelled = is_labelled(old.spec)
    bad = {source.url for source in old.skipped_sources}
    present = {identify(url): label for url, label in old.spec.sources if url not in bad}
    for (url, label), _ in addition.sources:
        if labelled and label is None:
            classes = ", ".join(map(repr, old.spec.classes))
            raise SpecError(f"{url} needs a class: --label CLASS=SOURCE; dataset {old.name!r} has {classes}")
        if label is not None and not labelled:
            raise SpecError(f"dataset {old.name!r} has no classes: append {url} without --label")
        if present.get(identify(url), label) != label:
            raise SpecError(f"{url} is in dataset {old.name!r} already, as class {present[identify(url)]!r}")
    known = [location for (url, _), location in addition.sources if identify(url) in present]
    check_unchanged(old, known, settings)
    return [(source, location) for source, location in addition.sources if identify(source[0]) not in present]


def _spec_of(old: Manifest, new: Sequence[_Named]) -> ConversionSpec:
    """What the new version is made of; new classes are counted on."""
    urls = {identify(url) for url, _ in new}
    sources = (*(source for source in old.spec.sources if identify(source[0]) not in urls), *new)
    classes = dict.fromkeys((*old.spec.classes, *(label for _, label in new if label is not None)))
    return replace(old.spec, sources=sources, classes=tuple(classes))
