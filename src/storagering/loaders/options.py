"""What can be chosen about a loader: the same for every framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypedDict

from storagering.cache.access import OnCorrupt
from storagering.errors import SpecError, nearest_names
from storagering.loaders.batches import BatchArrays, Jagged
from storagering.loaders.plan import Shuffle, Tail


class LoaderOptions(TypedDict, total=False):
    """Options of a loader, all by name; see `Options` for what they mean and their defaults."""

    shuffle: Shuffle
    seed: int
    tail: Tail
    rank: int | None
    world_size: int | None
    jagged: Jagged
    pad_to: int | None
    lead: str | None
    split: tuple[float, float] | None
    transform: Callable[[BatchArrays], BatchArrays] | None
    prefetch_batches: int
    threads: int | None
    stall_seconds: float
    on_corrupt: OnCorrupt


@dataclass(frozen=True)
class Options:
    """Options of a loader.

    Attributes:
        shuffle: ``"block"`` permutes the chunks of every class (or source file) and mixes some of each at a time;
            ``"exact"`` is a uniform permutation of all entries, read row by row from a dataset of ``--layout rows``, or
            held decoded in memory; None keeps the stored order.
        seed: of the order of all epochs.
        tail: what becomes of the entries after the last full global batch: ``"short"`` makes a smaller batch of them,
            ``"drop"`` leaves them out, ``"pad"`` fills it with rows of zeros, and every batch gets a ``mask`` (batch)
            of what is an entry, ``"wrap"`` with entries of the first batch. All ranks have equally many steps.
        rank, world_size: which part of every global batch; given together, or found where the framework knows them.
        jagged: ``"flat"`` gives items (items, ...) and ``KEY_offsets`` (batch + 1); ``"padded"`` gives
            (batch, P, ...) with zeros and ``KEY_mask`` (batch, P); ``"nested"`` a nested tensor.
        pad_to: P, cutting longer entries; without it the longest entry of each batch.
        lead: column by which longer entries are cut: its P highest stay, in falling order; without it the first P.
        split: (low, high) keeps the entries whose hash lies in [low, high) of [0, 1): the same ones in
            every epoch, for every seed; e.g. (0, 0.8) to train and (0.8, 1) to test.
        transform: done with every batch, a dict of arrays, ahead of time in a thread; gives the dict to deliver.
        prefetch_batches: batches made ahead where that takes work; 0 makes them when asked.
        threads: decoding threads; from the settings without it.
        stall_seconds: time without any progress after which a loader gives up.
        on_corrupt: whether to end with an error over a damaged chunk, or to have it made again from its source
            (``"rebuild"``); the order stays what it is.
    """

    shuffle: Shuffle = "block"
    seed: int = 0
    tail: Tail = "short"
    rank: int | None = None
    world_size: int | None = None
    jagged: Jagged = "padded"
    pad_to: int | None = None
    lead: str | None = None
    split: tuple[float, float] | None = None
    transform: Callable[[BatchArrays], BatchArrays] | None = None
    prefetch_batches: int = 2
    threads: int | None = None
    stall_seconds: float = 300.0
    on_corrupt: OnCorrupt = "fail"

    def __post_init__(self) -> None:
        rank, world_size = self.place
        checks = {
            f"seed={self.seed}: at least 0": self.seed >= 0,
            f"rank={rank} of world_size={world_size}: 0 <= rank < world_size": 0 <= rank < world_size,
            "give rank and world_size together, or neither": (self.rank is None) == (self.world_size is None),
            f"shuffle={self.shuffle!r}: 'block', 'exact' or None": self.shuffle in ("block", "exact", None),
            f"tail={self.tail!r}: 'short', 'drop', 'pad' or 'wrap'": self.tail in ("short", "drop", "pad", "wrap"),
            f"jagged={self.jagged!r}: 'flat', 'padded' or 'nested'": self.jagged in ("flat", "padded", "nested"),
            f"pad_to={self.pad_to}: at least 1": self.pad_to is None or self.pad_to >= 1,
            f"lead={self.lead!r} needs jagged='padded' and pad_to": self.lead is None
            or (self.jagged == "padded" and self.pad_to is not None),
            f"prefetch_batches={self.prefetch_batches}: at least 0": self.prefetch_batches >= 0,
            f"threads={self.threads}: at least 1": self.threads is None or self.threads >= 1,
            f"stall_seconds={self.stall_seconds}: more than 0": self.stall_seconds > 0,
            f"on_corrupt={self.on_corrupt!r}: 'fail' or 'rebuild'": self.on_corrupt in ("fail", "rebuild"),
            f"split={self.split}: 0 <= low < high <= 1": self.split is None or 0 <= self.split[0] < self.split[1] <= 1,
        }
        for message, fine in checks.items():
            if not fine:
                raise SpecError(message)

    @property
    def place(self) -> tuple[int, int]:
        """(rank, world size), by themselves if not given."""
        return self.rank or 0, 1 if self.world_size is None else self.world_size


def make_options(given: Any) -> Options:
    """Options of the names and values given.

    Raises:
        SpecError: there is no option of that name (lists the nearest), or it can't have that value.
    """
    known = [field.name for field in fields(Options)]
    for name in given:
        if name not in known:
            raise SpecError(f"a loader has no option {name!r}{nearest_names(name, known)}")
    return Options(**given)
