"""What the epochs of a loader read: a dataset that is there, or one that is made while its first epoch runs."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path

from storagering.cache.access import OnCorrupt
from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.filling import FillingDataset
from storagering.cache.first_epoch import read_first_epoch
from storagering.cache.layout import Cache
from storagering.cache.request import Request, open_filling
from storagering.cache.store import ChunkReader
from storagering.cache.unfinished import FirstEpoch
from storagering.errors import CorruptDataError, StorageringError
from storagering.loaders.supply import ChunkSupply, PublishedChunks
from storagering.types import Chunk, Manifest, Schema

_PREFIX = "fill:"
#: In the name of a source, but not of a dataset.
_SOURCE = re.compile(r"[/*?\[]|^@")


class GroupedChunks(PublishedChunks):
    """The chunks of a dataset that is there, counted in the units of its first epoch."""

    def __init__(self, dataset: Dataset, first: FirstEpoch, on_corrupt: OnCorrupt = "fail") -> None:
        super().__init__(dataset, on_corrupt)
        self._first = first
        self.entries, self.strata = first.entries, (first.order,)
        self._starts = list(accumulate(first.entries, initial=0))

    def chunks(self, unit: int) -> Sequence[Chunk]:
        """See `ChunkSupply.chunks`."""
        chunks = self._dataset.manifest.chunks
        first, last = (bisect_left(chunks, at, key=lambda c: c.start) for at in self._starts[unit : unit + 2])
        return chunks[first:last]

    def renewed(self) -> GroupedChunks:
        """See `ChunkSupply.renewed`."""
        return GroupedChunks(self._dataset, self._first, self._on_corrupt)


class FillingChunks:
    """The chunks of a first epoch, whose units are the tasks of the build; see `ChunkSupply`."""

    def __init__(self, filling: FillingDataset, schema: Schema, first: FirstEpoch) -> None:
        self._filling, self._first = filling, first
        self.schema = schema
        self.entries: Sequence[int] = first.entries
        self.strata: Sequence[Sequence[int]] = (first.order,)
        self.where = f"dataset {filling.name!r}, which is being made"
        self.fetched, self.tier = 0, "disk"
        self._starts = list(accumulate(first.entries, initial=0))

    @property
    def is_settled(self) -> bool:
        """See `ChunkSupply.is_settled`."""
        return False

    def is_ready(self, unit: int) -> bool:
        """See `ChunkSupply.is_ready`."""
        return self._filling.is_finished(unit)

    def chunks(self, unit: int) -> Sequence[Chunk]:
        """See `ChunkSupply.chunks`.

        Raises:
            CorruptDataError: they are not those that were planned.
        """
        built = self._filling.chunks(unit)
        if built is None:
            return GroupedChunks(self._filling.wait(), self._first).chunks(unit)
        start, stop = self._starts[unit : unit + 2]
        bounds = pairwise(accumulate((chunk.num_entries for chunk in built), initial=start))
        chunks = tuple(replace(chunk, start=a, stop=b) for chunk, (a, b) in zip(built, bounds, strict=True))
        if not chunks or chunks[-1].stop != stop:
            raise CorruptDataError(
                f"part {unit} of {self._filling.name!r} does not hold entries {start} to {stop}: remove it, begin anew"
            )
        return chunks

    def open(self, chunk: Chunk) -> ChunkReader:
        """See `ChunkSupply.open`."""
        return self._filling.open_chunk(chunk)

    def hold(self, windows: Iterable[Sequence[int]]) -> None:
        """See `ChunkSupply.hold`: what is being made is its builder's to keep."""

    def held(self, chunks: Sequence[Chunk]) -> AbstractContextManager[None]:
        """See `ChunkSupply.held`: all of them were just made."""
        self.fetched += len(chunks)
        return nullcontext()

    def mend(self, chunks: Sequence[Chunk]) -> bool:  # noqa: ARG002  (what was just made is not made again)
        """See `ChunkSupply.mend`."""
        return False

    def renewed(self) -> FillingChunks:
        """See `ChunkSupply.renewed`."""
        return FillingChunks(self._filling.renewed(), self.schema, self._first)

    def close(self) -> None:
        """See `ChunkSupply.close`."""


@dataclass(frozen=True)
class Reading:
    """What one epoch reads.

    Attributes:
        order: of the units, if it is given.
        unit_chunks: about how many chunks a unit has.
    """

    supply: ChunkSupply
    order: tuple[int, ...] | None = None
    unit_chunks: float = 1.0


class LoaderData:
    """A dataset as a loader sees it: one that is there.

    Attributes:
        filled: whether epoch 0 counts in the units of one that ran while the dataset was made. It does wherever a
            loader was told to fill the cache, also when the dataset is complete: the same program then gives the same
            batches whether the cache was cold or warm, and so do ranks that come late.
    """

    def __init__(self, dataset: Dataset | None, on_corrupt: OnCorrupt = "fail") -> None:
        self._dataset, self.filled, self._on_corrupt = dataset, False, on_corrupt
        self._supplies: dict[bool, ChunkSupply] = {}

    def begin(self, seed: int | None, *, whole: bool) -> Schema:  # noqa: ARG002  (there is nothing to be made)
        """Have the dataset made if it is not there, and wait until its columns are known.

        Args:
            seed: of the order of the first epoch, None for the order of the dataset.
            whole: whether nothing can be read before all is there.
        """
        return self.dataset().schema

    def dataset(self) -> Dataset:
        """The dataset, when it is complete."""
        assert self._dataset is not None  # noqa: S101  (or else this method is overridden)
        return self._dataset

    def label(self) -> Manifest | str:
        """The manifest, or the name of what is not complete."""
        return self.dataset().manifest

    def reading(self, epoch: int) -> Reading:
        """What an epoch reads; waits for the whole dataset unless it is the first of one that is being made."""
        first = self._first_epoch() if self.filled and epoch == 0 else None
        if first is None:
            if False not in self._supplies:
                self._supplies[False] = PublishedChunks(self.dataset(), self._on_corrupt)
            return Reading(self._supplies[False])
        if True not in self._supplies or (self._is_there() and isinstance(self._supplies[True], FillingChunks)):
            self._supplies[True] = self._first_supply(first)
        return Reading(self._supplies[True], first.order, first.task_chunks)

    def identity(self, epoch: int) -> str:
        """What must be the same for the rest of an epoch to come out the same."""
        first = self._first_epoch() if (self.filled and epoch == 0) or not self._is_there() else None
        return self.dataset().manifest.digest if first is None else _PREFIX + first.fingerprint

    def counterpart(self, saved: object) -> str:
        """The identity to compare a saved one with; of the same kind, if this dataset has it."""
        first = self._first_epoch() if _is_filled(saved) else None
        return self.dataset().manifest.digest if first is None else _PREFIX + first.fingerprint

    def restore(self, saved: object) -> None:
        """Count as the loader did whose identity was saved."""
        self.filled = _is_filled(saved)

    def renew(self) -> None:
        """In a forked process: share nothing with the one that it was forked from."""
        self._supplies = {first: supply.renewed() for first, supply in self._supplies.items()}

    def close(self) -> None:
        """Unpin the dataset, and end the conversion, if it is this loader's own."""
        for supply in self._supplies.values():
            supply.close()

    def _is_there(self) -> bool:
        return True

    def _first_epoch(self) -> FirstEpoch | None:
        dataset = self.dataset()
        return read_first_epoch(dataset.path, dataset.manifest.digest)

    def _first_supply(self, first: FirstEpoch) -> ChunkSupply:
        return GroupedChunks(self.dataset(), first, self._on_corrupt)


def _is_filled(identity: object) -> bool:
    return isinstance(identity, str) and identity.startswith(_PREFIX)


class FillingData(LoaderData):
    """A dataset that may still be made.

    Args:
        owned: whether the conversion ends with the loader.
    """

    def __init__(self, filling: FillingDataset, on_corrupt: OnCorrupt, *, owned: bool) -> None:
        super().__init__(None, on_corrupt)
        self._filling, self._owned = filling, owned

    def begin(self, seed: int | None, *, whole: bool) -> Schema:
        self._filling.begin(seed)
        self._schema, self._first = self._filling.contents()
        self.filled = self._first is not None and not whole
        return self._schema if self.filled else self.dataset().schema

    def dataset(self) -> Dataset:
        return self._filling.wait()

    def label(self) -> Manifest | str:
        with suppress(StorageringError):
            if (dataset := self._filling.published()) is not None:
                return dataset.manifest
        return self._filling.name

    def close(self) -> None:
        super().close()
        if self._owned:
            self._filling.close()

    def _is_there(self) -> bool:
        return self._filling.published() is not None

    def _first_epoch(self) -> FirstEpoch | None:
        return self._first

    def _first_supply(self, first: FirstEpoch) -> ChunkSupply:
        if (dataset := self._filling.published()) is not None:
            return GroupedChunks(dataset, first, self._on_corrupt)
        return FillingChunks(self._filling, self._schema, first)

    def renew(self) -> None:
        self._filling = self._filling.renewed()
        super().renew()


def open_data(data: Dataset | FillingDataset | str, cache: Cache, world_size: int, on_corrupt: OnCorrupt) -> LoaderData:
    """What a loader was given: a dataset, the name of one, or sources to make one of.

    Raises:
        NotFoundError: there is no such dataset or source.
    """
    if isinstance(data, Dataset):
        return LoaderData(data, on_corrupt)
    if isinstance(data, FillingDataset):
        return FillingData(data, on_corrupt, owned=False)
    if _SOURCE.search(data) is None:
        if cache.contains(data):
            return LoaderData(open_dataset(data, cache=cache), on_corrupt)
        if cache.is_being_built(data):
            filling = FillingDataset(cache, data, None)
            # Ranks that open it when it is complete would read epoch 0 in another order.
            if world_size > 1:
                return LoaderData(filling.wait(), on_corrupt)
            return FillingData(filling, on_corrupt, owned=True)
        if not Path(data).exists():
            return LoaderData(open_dataset(data, cache=cache), on_corrupt)  # tells which names there are
    return FillingData(open_filling(cache, Request(sources=data)), on_corrupt, owned=True)
