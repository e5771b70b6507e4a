"""What can be chosen about a loader: the same for every framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict

from storagering.cache.access import OnCorrupt
from storagering.cache.dataset import Dataset
from storagering.cache.filling import FillingDataset
from storagering.cache.view import View
from storagering.errors import SpecError, nearest_names
from storagering.loaders.batches import BatchArrays, Jagged
from storagering.loaders.plan import Shuffle, Tail
from storagering.loaders.weights import Weights


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
    where: str | None
    weights: Weights | None
    resample: Weights | None
    standardise: Sequence[str] | bool
    num_epochs: int | None
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
        split: (low, high) keeps the entries whose hash lies in [low, high) of [0, 1): the same ones in every epoch,
            for every seed; e.g. (0, 0.8) to train and (0.8, 1) to test. The hash is of the entry's number among those
            of all source files in their order, whether the dataset is mixed or not, and keeps its value when others
            are appended. (Of a dataset made with a selection that is not mixed, it is the number in the dataset.)
        where: an expression as that of ``convert --where``, over columns of the dataset, that is true for the entries
            to keep. Chunks of which the statistics prove that all or none are kept are not read to find out, and those
            without any not at all.
        weights: how entries are weighted: batches have ``weight``, float32 (batch).
        resample: weights in proportion to which the entries of each window (under ``"exact"``: all entries) are drawn,
            as many as there are: several times or not at all.
        standardise: keys of groups of floats, or True for all, whose columns become (value - mean) / std by the
            statistics of the whole dataset; see `Loader.scaling`. What is padded stays 0.
        num_epochs: that one iteration runs through; None goes on for ever.
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
    where: str | None = None
    weights: Weights | None = None
    resample: Weights | None = None
    standardise: Sequence[str] | bool = False
    num_epochs: int | None = 1
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
            f"weights={self.weights!r}: made with Weights(...)": isinstance(self.weights, Weights | None),
            f"resample={self.resample!r}: made with Weights(...)": isinstance(self.resample, Weights | None),
            "resample needs shuffle='block' or 'exact'": self.resample is None or self.shuffle is not None,
            "resample does not go with tail='wrap'": self.resample is None or self.tail != "wrap",
            f"standardise={self.standardise!r}: a list of keys, or True": not isinstance(self.standardise, str),
            f"num_epochs={self.num_epochs}: at least 1, or None": self.num_epochs is None or self.num_epochs >= 1,
        }
        for message, fine in checks.items():
            if not fine:
                raise SpecError(message)

    @property
    def looks_ahead(self) -> bool:
        """Whether the whole dataset has to be there before the first batch."""
        return self.shuffle == "exact" or any((self.where, self.weights, self.resample, self.standardise))

    @property
    def identity(self) -> dict[str, Any]:
        """What batches depend on, the same for all ranks, as JSON types."""
        standardise = self.standardise if isinstance(self.standardise, bool) else list(self.standardise)
        return {
            "seed": self.seed,
            "shuffle": self.shuffle,
            "tail": self.tail,
            "split": list(self.split) if self.split else None,
            "where": self.where,
            "weights": self.weights.fingerprint if self.weights else None,
            "resample": self.resample.fingerprint if self.resample else None,
            "standardise": standardise,
        }

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


def unfold(
    data: Dataset | View | FillingDataset | str, options: Options
) -> tuple[Dataset | FillingDataset | str, Options]:
    """The dataset of a view, and the options with its selection; anything else as it is."""
    if not isinstance(data, View):
        return data, options
    view = data if options.where is None else data.where(options.where)
    return view.dataset, replace(options, where=view.selection)
