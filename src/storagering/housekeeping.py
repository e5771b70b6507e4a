"""What a node's cache holds, and what of it may go: usage, pins, eviction, sweeping up."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from storagering.cache.layout import Cache, open_cache
from storagering.cache.leases import holder_of, is_alive
from storagering.cache.ledger import Resident, forget_filled, note_filled
from storagering.cache.pins import pin_dataset, pin_of, unpin_dataset
from storagering.cache.residency import resident_files, why_it_must_stay
from storagering.cache.room import POLICIES
from storagering.cache.space import disk_ledger, disk_room, folder_bytes, sync_ledger, unfinished_bytes
from storagering.cache.sweep import Swept, sweep_cache
from storagering.config import Settings, load_settings, parse_quota
from storagering.errors import CacheError, CorruptDataError, ReadOnlyCacheError, SpecError, StorageringError
from storagering.files import free_bytes


@dataclass(frozen=True)
class DatasetUsage:
    """What one dataset takes.

    Attributes:
        chunks: number of its chunks on the disk, and of all.
        nbytes: the same in bytes.
        pins: who needs it now, or pinned it by hand.
        must_stay: why it cannot be evicted, '' if it can.
    """

    name: str
    chunks: tuple[int, int]
    nbytes: tuple[int, int]
    pins: tuple[str, ...]
    must_stay: str


@dataclass(frozen=True)
class Usage:
    """What the cache takes, in bytes.

    Attributes:
        used: what counts against the quota: chunks, what is being written, unfinished builds.
        quota: None without limit.
        free: on the disk.
    """

    root: str
    used: int
    quota: int | None
    free: int
    unfinished: int
    quarantine: int
    datasets: tuple[DatasetUsage, ...] = field(default=())


def du(*, settings: Settings | None = None) -> Usage:
    """What the cache holds, dataset by dataset."""
    cache = open_cache(settings or load_settings())
    datasets = tuple(_usage_of(cache, name) for name in cache.names())
    try:
        sync_ledger(cache)
        used = disk_room(cache).used_bytes()
    except ReadOnlyCacheError:  # somebody else's: what is written there just now is not seen
        used = sum(one.nbytes[0] for one in datasets) + unfinished_bytes(cache)
    return Usage(
        root=str(cache.root),
        used=used,
        quota=parse_quota(cache.settings.quota, cache.root),
        free=free_bytes(cache.root),
        unfinished=unfinished_bytes(cache),
        quarantine=folder_bytes(cache.root / "quarantine"),
        datasets=datasets,
    )


def evict(
    names: Sequence[str] = (), *, to: str | None = None, policy: str | None = None, settings: Settings | None = None
) -> list[Resident]:
    """Remove chunks that nobody needs and that can be had again, from peers or sources, when they are needed.

    Args:
        names: datasets; all without it.
        to: size that the cache shall come down to (``100GB``, ``20%`` of the disk); without it all chunks of the
            named datasets go.
        policy: what goes first: ``lru``, ``lfu``, ``greedy-dual``, ``popularity``; as in the settings without it.

    Returns:
        The chunks that went.

    Raises:
        NotFoundError: there is no such dataset.
        SpecError: neither names nor a size.
        CacheError: a named dataset is pinned, or could not be made again: which and why.
    """
    if not names and to is None:
        raise SpecError("evict what? name datasets, or give a size to come down to with --to")
    if policy is not None and policy not in POLICIES:
        raise SpecError(f"policy {policy!r}: choose one of {', '.join(POLICIES)}")
    cache = open_cache(settings or load_settings())
    for name in names:
        used = _usage_of(cache, name)
        if used.pins:
            raise CacheError(f"dataset {name!r} is needed: {used.pins[0]}")
        if used.must_stay:
            raise CacheError(f"dataset {name!r} stays, as it could not be made again: {used.must_stay}")
    sync_ledger(cache)
    goal = (parse_quota(to, cache.root) or 0) if to is not None else 0
    return disk_room(cache).evict(to_bytes=goal, of=names or None, policy=policy)


def pin(name: str, *, reason: str = "pinned by hand", settings: Settings | None = None) -> None:
    """Keep what is on the disk of a dataset, until `unpin`; loaders pin what they read by themselves.

    Raises:
        NotFoundError: there is no such dataset.
    """
    pin_dataset(open_cache(settings or load_settings()), name, reason)


def unpin(name: str, *, settings: Settings | None = None) -> None:
    """Let a dataset be evicted again.

    Raises:
        NotFoundError: it is not pinned.
    """
    unpin_dataset(open_cache(settings or load_settings()), name)


def gc(*, unfinished: bool = False, dry_run: bool = False, settings: Settings | None = None) -> tuple[Swept, ...]:
    """Remove what dead processes left, files in quarantine and indexes that were put aside.

    Args:
        unfinished: the finished part of interrupted builds, too, from which they could go on.
        dry_run: only tell.

    Returns:
        What went, or would go.
    """
    cache = open_cache(settings or load_settings())
    swept = sweep_cache(cache, unfinished=unfinished, dry_run=dry_run)
    if not dry_run:
        sync_ledger(cache)
    return swept


def remove(name: str, *, force: bool = False, settings: Settings | None = None) -> None:
    """Remove a dataset and unfinished work of that name.

    Args:
        force: also if a running loader or somebody's pin needs it.

    Raises:
        NotFoundError: there is neither.
        CacheError: it is needed, by whom.
    """
    cache = open_cache(settings or load_settings())
    pins = _pins_of(cache, name)
    if pins and not force:
        raise CacheError(f"dataset {name!r} is needed: {pins[0]}; --force removes it all the same")
    was_filled = False
    with suppress(CacheError), disk_ledger(cache).transaction() as database:
        was_filled = forget_filled(database)
    cache.remove(name)
    with suppress(StorageringError):
        if pin_of(cache, name) is not None:
            unpin_dataset(cache, name)
        with disk_ledger(cache).transaction() as database:
            database.execute("DELETE FROM chunks WHERE dataset = ?", (name,))
            if was_filled:
                note_filled(database)


def _usage_of(cache: Cache, name: str) -> DatasetUsage:
    try:
        manifest = cache.manifest(name)
    except CorruptDataError as error:
        return DatasetUsage(name, (0, 0), (0, 0), _pins_of(cache, name), f"it cannot be read: {error}")
    there = resident_files(cache.path(name), manifest)
    here = [chunk.nbytes for chunk in manifest.chunks if chunk.file in there]
    return DatasetUsage(
        name,
        (len(here), len(manifest.chunks)),
        (sum(here), sum(chunk.nbytes for chunk in manifest.chunks)),
        _pins_of(cache, name),
        why_it_must_stay(manifest, cache.settings),
    )


def _pins_of(cache: Cache, name: str) -> tuple[str, ...]:
    rows: list[tuple[str]] = []
    with suppress(ReadOnlyCacheError), disk_ledger(cache).transaction() as database:
        rows = database.execute("SELECT DISTINCT lease FROM pins WHERE dataset = ? ORDER BY lease", (name,)).fetchall()
    living = [holder_of(cache.root, lease) for (lease,) in rows if is_alive(cache.root, lease)]
    return tuple(str(holder) for holder in [pin_of(cache, name), *living] if holder is not None)
