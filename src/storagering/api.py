"""The Python API: convert, open_dataset, sql."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from storagering.cache.build import BuildProgress, build_dataset
from storagering.cache.dataset import Dataset
from storagering.cache.layout import Cache, check_name, open_cache
from storagering.config import Settings, load_settings
from storagering.errors import CacheError, SpecError
from storagering.files import redact_url
from storagering.formats.source import Location
from storagering.formats.sources import LabelledSources, Sources, resolve_sources
from storagering.types import ConversionSpec, Manifest, OnBadColumn, Profile, StoreFormat


def convert(
    sources: LabelledSources | None = None,
    *,
    name: str,
    tree: str | None = None,
    columns: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    where: str | None = None,
    define: Mapping[str, str] | None = None,
    labels: Mapping[str, Sources] | Sequence[str] | None = None,
    format: StoreFormat = "zarr",  # noqa: A002  (the name in the contract)
    profile: Profile = "small",
    chunk_bytes: int = 16 << 20,
    on_bad_column: OnBadColumn = "skip",
    workers: int | None = None,
    settings: Settings | None = None,
    progress: BuildProgress | None = None,
) -> Dataset:
    """Convert ROOT files into a dataset of the node-local cache.

    A dataset that is there already under the same specification is returned as it is.

    Args:
        sources: path, URL, pattern or ``@list.txt``; a list of them; or {class name: sources}, which
            makes an integer column ``label`` that counts the classes from 0 in the given order.
        name: what the dataset will be called.
        tree: name of the TTree or RNTuple; found by itself where there is only one.
        columns: patterns of columns to take (all without it); ``exclude`` to leave out.
        where: expression that is true for entries to keep, e.g. ``"any(Jet_pt > 30)"``.
        define: {name: expression} of columns to compute.
        labels: another way to give classes: {class name: sources}, or one class name for each source.
        chunk_bytes: decoded size aimed at for one chunk.
        on_bad_column: whether to skip columns that uproot cannot read (they are listed in the
            manifest with the reason) or to fail.
        workers: processes; as many as there are cores without it.

    Returns:
        The published dataset.

    Raises:
        SpecError: the name is taken by another dataset, or an expression is wrong.
        SchemaError: a column is missing or differs between files.
        NotFoundError, SourceError, CorruptDataError: a source cannot be read.
        CacheError: the cache cannot be written.
    """
    settings = settings or load_settings()
    if workers is not None:
        settings = replace(settings, workers=workers)
    if chunk_bytes < 1 << 12:
        raise SpecError(f"chunk_bytes={chunk_bytes} is too small; use at least 4096, better some MiB")
    resolved = resolve_sources(_with_labels(sources, labels), settings)
    spec = ConversionSpec(
        sources=tuple((redact_url(url), label) for url, label in resolved),
        tree=tree,
        columns=None if columns is None else tuple(columns),
        exclude=tuple(exclude),
        define=tuple((define or {}).items()),
        where=where,
        classes=tuple(dict.fromkeys(label for _, label in resolved if label is not None)),
        format=format,
        profile=profile,
        chunk_bytes=chunk_bytes,
        on_bad_column=on_bad_column,
    )
    cache = open_cache(settings)
    check_name(name)
    progress = progress or BuildProgress()
    manifest, built = build_dataset(cache, name, spec, [Location(url) for url, _ in resolved], progress)
    if built:
        _enter_into_catalog(cache, manifest, progress)
    return Dataset(cache.path(name), manifest)


def _enter_into_catalog(cache: Cache, manifest: Manifest, progress: BuildProgress) -> None:
    """The dataset is complete without; DuckDB is imported only here."""
    from storagering.catalog.index import index_dataset

    try:
        index_dataset(cache, manifest)
    except CacheError as error:
        progress.tell(f"dataset {manifest.name!r} is complete; a later query enters it into the catalog ({error})")


def _with_labels(
    sources: LabelledSources | None, labels: Mapping[str, Sources] | Sequence[str] | None
) -> LabelledSources:
    if not labels:
        return sources if sources is not None else []
    if isinstance(labels, Mapping):
        if sources:
            raise SpecError(
                "with labels, every source needs its class: give them as {class: sources}, or --label CLASS=SOURCE"
            )
        return labels
    if (
        sources is None
        or isinstance(sources, str | Mapping)
        or not isinstance(sources, Sequence)
        or len(sources) != len(labels)
    ):
        raise SpecError("labels as a list needs one class name for each source of a list")
    grouped: dict[str, Any] = {}
    for source, label in zip(sources, labels, strict=True):
        grouped.setdefault(label, []).append(source)
    return grouped
