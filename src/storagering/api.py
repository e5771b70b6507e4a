"""The Python API: convert, fill, append, pull and verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from storagering.cache.append import Addition, append_sources
from storagering.cache.build import PROCESSES, build_dataset, check_scheduler
from storagering.cache.dataset import Dataset
from storagering.cache.filling import FillingDataset
from storagering.cache.layout import Cache, open_cache
from storagering.cache.manifest import spec_key
from storagering.cache.peers.client import Peers
from storagering.cache.peers.pull import adopt_dataset, pull_dataset
from storagering.cache.progress import BuildProgress
from storagering.cache.repair import repair_dataset
from storagering.cache.request import Request, open_filling
from storagering.cache.verify import Fault, verify_dataset
from storagering.config import Settings, load_settings
from storagering.errors import CacheError, SpecError
from storagering.formats.locations import with_checksums, with_replicas
from storagering.formats.readers.friends import with_friends
from storagering.formats.source import Location
from storagering.formats.sources import LabelledSources, Sources, resolve_sources
from storagering.formats.weaver import WeaverConfig
from storagering.types import Layout, Manifest, OnBadColumn, OnBadSource, Profile, StoreFormat
from storagering.urls import redact_url


def convert(
    sources: LabelledSources | None = None,
    *,
    name: str,
    tree: str | None = None,
    columns: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    where: str | None = None,
    define: Mapping[str, str] | None = None,
    friends: Sequence[str] = (),
    precision: Mapping[str, int] | None = None,
    sparse: Sequence[str] = (),
    weaver: str | Path | WeaverConfig | None = None,
    mix: int | None = None,
    labels: Mapping[str, Sources] | Sequence[str] | None = None,
    replicas: Sequence[str] = (),
    checksums: Sequence[str] = (),
    format: StoreFormat = "zarr",  # noqa: A002  (the name in the contract)
    profile: Profile = "small",
    chunk_bytes: int = 16 << 20,
    on_bad_column: OnBadColumn = "skip",
    on_bad_source: OnBadSource = "fail",
    layout: Layout = "columns",
    scheduler: str = PROCESSES,
    workers: int | None = None,
    settings: Settings | None = None,
    progress: BuildProgress | None = None,
) -> Dataset:
    """Convert ROOT files, or others, into a dataset of the node-local cache.

    A dataset that is there already under the same specification is returned as it is; one that a trusted peer has
    is taken over, and its chunks come from there when they are needed.

    Args:
        sources: path, URL, pattern or ``@list.txt``; a list of them; or {class name: sources}, which
            makes an integer column ``label`` that counts the classes from 0 in the given order.
        name: what the dataset will be called.
        tree: name of the TTree or RNTuple; found by itself where there is only one.
        columns: patterns of columns to take (all without it); ``exclude`` to leave out.
        where: expression that is true for entries to keep, e.g. ``"any(Jet_pt > 30)"``.
        define: {name: expression} of columns to compute.
        friends: further tables with the same entries, whose columns are added: ``"TREE"`` of the same
            files, or ``"SOURCES:TREE"`` of as many others, in order. A name that is taken becomes ``TREE.name``.
        precision: {pattern: mantissa bits to keep} of columns of floats; relative errors are at most
            2^-(bits + 1). The first pattern that matches counts.
        sparse: patterns of columns of fixed shape that are mostly zeros, such as images: only what is not zero is
            stored, and read. Wherever they are seen they are dense, bit for bit.
        weaver: data configuration of weaver-core's (a YAML file), for what to select, define and keep, labels
            and weights; or what `storagering.formats.weaver.read_weaver` made of one.
        mix: seed of a uniform random permutation in which the entries of all sources are stored, so that a few
            chunks hold what all of them do; the column ``entry_id`` tells where each comes from (see
            `storagering.cache.entries`). Chunks of such a dataset are not evicted, and made again only all together.
        labels: another way to give classes: {class name: sources}, or one class name for each source.
        replicas: where copies of the sources are, tried in order when reading fails: a server
            (``root://other.site/``) with the same paths, ``OLD=NEW`` for the beginnings of URLs, or a
            whole URL if there is one source. They do not change what the dataset is.
        checksums: what whole files must add up to: ``ALGORITHM:HEX`` if there is one source,
            ``SOURCE=ALGORITHM:HEX``, or ``@FILE`` with lines of ``ALGORITHM:HEX SOURCE`` (adler32, crc32c,
            crc32, md5, sha256, xxh3). Without it, the server of a file that is read whole is asked.
        chunk_bytes: decoded size aimed at for one chunk.
        on_bad_column: whether to skip columns that uproot cannot read (they are listed in the
            manifest with the reason) or to fail.
        on_bad_source: whether to fail over a source that cannot be opened or read, or differs from the
            others, or to leave it out whole (it is listed in the manifest with the reason).
        layout: ``rows`` packs the flat columns of each entry into a few words (Zarr only), so that a loader reads any
            entry alone: for exact shuffling of what does not fit into memory.
        scheduler: ``processes`` of this machine, or the address of a dask.distributed scheduler
            (``tcp://host:port``), whose workers must reach the sources by the same names.
        workers: processes; as many as there are cores without it.

    Returns:
        The published dataset.

    Raises:
        SpecError: the name is taken by another dataset, or an expression is wrong.
        SchemaError: a column is missing or differs between files.
        NotFoundError, SourceError, CorruptDataError: a source cannot be read.
        ChecksumError: a source is not what its checksum says.
        CacheError: the cache cannot be written.
    """
    settings = _settings(settings, workers)
    request = Request(
        sources=_with_labels(sources, labels),
        tree=tree,
        columns=columns,
        exclude=exclude,
        where=where,
        define=define,
        friends=friends,
        precision=precision,
        sparse=sparse,
        weaver=weaver,
        mix=mix,
        replicas=replicas,
        checksums=checksums,
        format=format,
        profile=profile,
        chunk_bytes=chunk_bytes,
        on_bad_column=on_bad_column,
        on_bad_source=on_bad_source,
        layout=layout,
    )
    job = request.job(name, settings, scheduler)
    cache, progress = open_cache(settings), progress or BuildProgress()
    adopt_dataset(cache, name, spec_key(job.spec), progress)
    manifest, built = build_dataset(cache, job, progress)
    if built:
        _enter_into_catalog(cache, manifest, progress)
    return Dataset(cache, manifest)


def fill(
    sources: LabelledSources,
    *,
    name: str | None = None,
    tree: str | None = None,
    columns: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    where: str | None = None,
    define: Mapping[str, str] | None = None,
    precision: Mapping[str, int] | None = None,
    sparse: Sequence[str] = (),
    mix: int | None = None,
    replicas: Sequence[str] = (),
    on_bad_column: OnBadColumn = "skip",
    format: StoreFormat = "zarr",  # noqa: A002  (the name in the contract)
    profile: Profile = "small",
    chunk_bytes: int = 16 << 20,
    layout: Layout = "columns",
    workers: int | None = None,
    settings: Settings | None = None,
    progress: BuildProgress | None = None,
) -> FillingDataset:
    """A dataset to train on while it is made: ``DataLoader(fill("root://..."), ...)``.

    Nothing is read before a loader takes it. Its first epoch reads the sources and commits chunks as it goes, in
    processes of their own; what is committed stays, whatever becomes of the training. Any number of ranks may do the
    same: the sources are read once. From the second epoch on, and in later trainings, nothing remote is touched. The
    dataset is the one that `convert` makes.

    With a selection (``where``), or mixed entries (``mix``), it is known only at the end which entries come where: the
    loader waits for it.

    Args:
        name: what the dataset will be called; without it, after the sources, and 8 digits of a hash of all that
            decides what is in it.
        sources, tree, columns, exclude, where, define, precision, sparse, mix, replicas, on_bad_column, format,
            profile, chunk_bytes, layout, workers: as for `convert`. A pattern on a server is looked up as long as
            the dataset is not complete, and not again.
        progress: told how the conversion goes, from another thread.

    Returns:
        What a loader takes in place of a dataset; ``wait()`` gives the dataset, when it is complete. Close it, or
        use it in a ``with`` block, to end the conversion early.

    Raises:
        SpecError: an option that cannot be carried out.
        NotFoundError, SourceError: a source is not there.
        CacheError: the cache cannot be written.
    """
    request = Request(
        sources=sources,
        tree=tree,
        columns=columns,
        exclude=exclude,
        where=where,
        define=define,
        precision=precision,
        sparse=sparse,
        mix=mix,
        replicas=replicas,
        on_bad_column=on_bad_column,
        format=format,
        profile=profile,
        chunk_bytes=chunk_bytes,
        layout=layout,
    )
    return open_filling(open_cache(_settings(settings, workers)), request, name, progress)


def append(
    name: str,
    sources: LabelledSources | None = None,
    *,
    labels: Mapping[str, Sources] | Sequence[str] | None = None,
    replicas: Sequence[str] = (),
    checksums: Sequence[str] = (),
    on_bad_source: OnBadSource = "fail",
    scheduler: str = PROCESSES,
    workers: int | None = None,
    settings: Settings | None = None,
    progress: BuildProgress | None = None,
) -> Dataset:
    """Convert further sources in the way that a dataset was made, as its next version.

    Its chunks are not written again; whoever reads the version before goes on, and can open it with
    ``open_dataset(name, version=...)``. Sources that the dataset has already are left out, so a pattern may name
    old files and new ones.

    Args:
        sources, labels, replicas, checksums, on_bad_source, scheduler, workers: as for `convert`.

    Raises:
        NotFoundError: there is no such dataset.
        SpecError: a class name is missing, or a source has another one than before.
        SchemaError: a column of the dataset is missing or of another type, naming file and column.
        StorageringError: as `convert`; the dataset is then as it was.
    """
    settings = _settings(settings, workers)
    cache = open_cache(settings)
    friends = cache.manifest(name).spec.friends
    resolved = resolve_sources(_with_labels(sources, labels), settings)
    places = with_checksums(with_replicas([Location(url) for url, _ in resolved], replicas), checksums)
    locations, _ = with_friends(places, [friend for friend in friends if ":" not in friend], settings)
    shown = [(redact_url(url), label) for url, label in resolved]
    addition = Addition(name, list(zip(shown, locations, strict=True)), on_bad_source, check_scheduler(scheduler))
    progress = progress or BuildProgress()
    manifest, built = append_sources(cache, addition, progress)
    if built:
        _enter_into_catalog(cache, manifest, progress)
    return Dataset(cache, manifest)


def pull(
    name: str,
    *,
    peer: str | None = None,
    digest: str | None = None,
    lazy: bool = False,
    settings: Settings | None = None,
    progress: BuildProgress | None = None,
) -> Dataset:
    """Take a dataset over from other nodes, which ``storagering serve`` their caches.

    What the dataset is, is taken from a node that is trusted: on this machine, or reached by ``https://`` with a
    token. Every chunk is compared with that, whoever gave it. What is here already is not fetched again.

    Args:
        peer: URL of the node; those of the setting ``peers`` without it.
        digest: digest of the dataset's manifest: then any node may give it.
        lazy: leave the chunks where they are until they are needed.

    Raises:
        NotFoundError: no node has it.
        ConfigError: no nodes are named, or none that may say what the dataset is.
        SpecError: another dataset has that name here.
        PeerError: chunks could not be had; what came is kept, and the same call goes on.
        CacheError: the cache cannot be written.
    """
    settings = settings or load_settings()
    cache, progress = open_cache(settings), progress or BuildProgress()
    peers = Peers.from_settings(settings if peer is None else replace(settings, peers=peer))
    manifest, new = pull_dataset(cache, peers, name, digest=digest, lazy=lazy, progress=progress)
    if new:
        _enter_into_catalog(cache, manifest, progress)
    return Dataset(cache, manifest)


def verify(
    name: str,
    *,
    repair: bool = False,
    replicas: Sequence[str] = (),
    settings: Settings | None = None,
    progress: BuildProgress | None = None,
) -> tuple[Fault, ...]:
    """Compare every byte of a dataset with what its manifest says; changes nothing unless told.

    Args:
        repair: make damaged chunks again from the sources, byte for byte; the damaged files are put into the
            cache's folder ``quarantine``.
        replicas: where else the sources are, as for `convert`.

    Returns:
        The files that are damaged, cut or lost; with ``repair`` those that still are.

    Raises:
        NotFoundError: there is no such dataset, or a source is gone.
        ChecksumError, FormatError: the manifest itself is damaged.
        SourceChangedError: a source is not what the dataset was made from.
    """
    cache, progress = open_cache(settings or load_settings()), progress or BuildProgress()
    if not repair:
        return verify_dataset(cache, name, progress)
    _, left = repair_dataset(cache, name, replicas, progress)
    return left


def _settings(settings: Settings | None, workers: int | None) -> Settings:
    settings = settings or load_settings()
    if workers is None:
        return settings
    if workers < 1:
        raise SpecError(f"workers={workers}: workers is a number of processes, at least 1")
    return replace(settings, workers=workers)


def _enter_into_catalog(cache: Cache, manifest: Manifest, progress: BuildProgress) -> None:
    """The dataset is complete without; DuckDB is imported only here."""
    from storagering.catalog.index import index_dataset

    try:
        index_dataset(cache, manifest.name)
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
