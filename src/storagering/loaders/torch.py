"""The PyTorch adapter: ``from storagering.loaders.torch import DataLoader``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from storagering.cache.access import OnCorrupt
from storagering.cache.dataset import Dataset
from storagering.cache.filling import FillingDataset
from storagering.cache.layout import open_cache
from storagering.config import load_settings
from storagering.errors import MissingExtraError, ResumeMismatchError, SpecError
from storagering.loaders.buffers import BufferPool
from storagering.loaders.engine import BatchArrays, Batches, Feeding, count_entries, iterate_epoch
from storagering.loaders.feed import ColumnRequest, Group, make_groups
from storagering.loaders.filling import Reading, open_data
from storagering.loaders.gather import Jagged
from storagering.loaders.plan import BatchCut, EpochPlan, Shuffle, order_fingerprint, plan_epoch
from storagering.types import Position

try:
    import torch
except ImportError as error:
    raise MissingExtraError("the torch loader needs PyTorch: pip install 'storagering[torch]'") from error

#: Chunks that are mixed at a time under ``shuffle="block"``.
MIX_CHUNKS = 16


class DataLoader:
    """Batches of a dataset as dicts of tensors, in an order that depends on the seed and the epoch alone.

    Args:
        dataset: a dataset or its name; or what `storagering.fill` gives, or a path, pattern or URL of sources, which is
            the same with all its defaults: the first epoch reads them and fills the cache, the others read that.
        batch_size: entries of one batch on this rank.
        columns: names, each of which becomes a key; or {key: [names]}, where a group of flat columns is one
            (batch, features) tensor and a group of jagged columns one of items x features, while
            {key: name} is that column alone; all numeric columns without it.
        shuffle: ``"block"`` permutes the chunks and mixes 16 of them at a time, ``"exact"`` is a uniform
            permutation of all entries (held decoded in memory), None keeps the stored order.
        drop_last: leave out the entries after the last full global batch.
        rank, world_size: taken from ``torch.distributed`` where it is initialised, else 0 of 1.
        jagged: ``"flat"`` gives items (items, ...) and ``KEY_offsets`` (batch + 1); ``"padded"`` gives
            (batch, P, ...) with zeros and ``KEY_mask`` (batch, P); ``"nested"`` a nested tensor.
        pad_to: P, cutting longer entries; without it the longest entry of each batch.
        prefetch_batches: batches gathered ahead; 0 gathers when asked.
        threads: decoding threads.
        split: (low, high) keeps the entries whose hash lies in [low, high) of [0, 1): the same ones in
            every epoch, for every seed; e.g. (0, 0.8) to train and (0.8, 1) to test.
        on_corrupt: whether to end with an error over a damaged chunk, or to have it made again from its source
            (``"rebuild"``); the order stays what it is.

    While it iterates, the dataset is pinned in the cache; one that is larger than the cache's quota is fetched
    window by window. `close` lets go of it.

    Each complete iteration moves to the next epoch; `set_epoch` chooses one.

    Epoch 0 of a dataset that is filled counts in larger parts than chunks, which are permuted as they are made and
    mixed as many at a time as 16 chunks are; their order is recorded with the dataset. Other epochs, and ``"exact"``,
    wait until it is complete.

    Raises:
        NotFoundError: no such dataset or source.
        SchemaError: a column is unknown (lists the nearest names) or cannot become a tensor.
        SpecError: an argument is out of range, or too much for an exact shuffle in memory.
    """

    def __init__(
        self,
        dataset: Dataset | FillingDataset | str,
        batch_size: int = 1024,
        columns: ColumnRequest = None,
        *,
        shuffle: Shuffle = "block",
        seed: int = 0,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        jagged: Jagged = "padded",
        pad_to: int | None = None,
        prefetch_batches: int = 2,
        threads: int | None = None,
        split: tuple[float, float] | None = None,
        on_corrupt: OnCorrupt = "fail",
    ) -> None:
        settings = load_settings(threads=threads)
        rank, world_size = _find_rank(rank, world_size)
        _check_arguments(
            batch_size, seed, rank, world_size, shuffle, jagged, pad_to, prefetch_batches, split, on_corrupt
        )
        self._seed, self._shuffle = seed, shuffle
        self._position = Position()
        self._resuming = False
        self._running: Batches | None = None
        self._owner = os.getpid()
        self._data = open_data(dataset, open_cache(settings), world_size, on_corrupt)
        try:
            schema = self._data.begin(seed if shuffle == "block" else None, whole=shuffle == "exact")
            groups = make_groups(schema, columns)
            if shuffle == "exact":
                _check_fits(self.dataset, groups, settings.exact_shuffle_bytes)
            supply = self._data.reading(epoch=0).supply
            self._feeding = Feeding(
                supply, groups, split, jagged, pad_to, settings.threads, prefetch_batches, BufferPool()
            )
            self._entries: dict[bool, Sequence[int]] = {}
            self._cut = BatchCut(sum(count_entries(supply, split)), batch_size, rank, world_size, drop_last)
            if self._data.filled:
                _check_ranks_agree(self._data.identity(0))
        except BaseException:
            self._data.close()
            raise

    @property
    def dataset(self) -> Dataset:
        """The dataset; waits until it is complete."""
        return self._data.dataset()

    def __len__(self) -> int:
        """Batches of one epoch, the same on every rank."""
        return len(self._cut)

    @property
    def epoch(self) -> int:
        """The epoch that is being iterated, or comes next."""
        return self._position.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs.

        After `load_state_dict`, choosing the restored epoch keeps its step.
        """
        if not (self._resuming and epoch == self._position.epoch):
            self._position, self._resuming = Position(epoch), False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._end_iteration()
        if self._owner != os.getpid():  # forked: a lock in it may be held by a thread that is not here
            self._owner, self._feeding = os.getpid(), replace(self._feeding, pool=BufferPool())
            self._data.renew()
        first_step = self._position.step if self._resuming else 0
        if self._resuming and first_step >= len(self):
            self._position, first_step = self._position.next_epoch(), 0
        self._resuming = False
        epoch = self._position.epoch
        self._position = Position(epoch, first_step)
        reading = self._data.reading(epoch)
        plan = self._plan(reading, epoch)
        reading.supply.hold(plan.windows)
        self._running = iterate_epoch(replace(self._feeding, supply=reading.supply), plan, self._cut, first_step)
        return self._count(self._running, epoch, first_step)

    def _plan(self, reading: Reading, epoch: int) -> EpochPlan:
        filled = reading.order is not None
        if filled not in self._entries:
            self._entries[filled] = count_entries(reading.supply, self._feeding.split)
        return plan_epoch(
            self._entries[filled],
            seed=self._seed,
            epoch=epoch,
            shuffle=self._shuffle,
            mix_chunks=max(1, round(MIX_CHUNKS / reading.unit_chunks)),
            order=reading.order,
        )

    def _count(self, batches: Batches, epoch: int, step: int) -> Iterator[dict[str, Any]]:
        try:
            for batch in batches:
                step += 1
                self._position = Position(epoch, step)  # before the yield: a state taken now includes this batch
                yield self._to_tensors(batch)
            if self._running is batches:
                self._data.dataset()  # it is complete, or all but
                self._position = Position(epoch + 1)
        finally:
            batches.close()

    def _to_tensors(self, batch: BatchArrays) -> dict[str, Any]:
        tensors = {key: torch.from_numpy(array) for key, array in batch.items()}
        if self._feeding.jagged == "nested":
            for group in self._feeding.groups:
                if group.jagged:
                    offsets = tensors.pop(f"{group.key}_offsets")
                    tensors[group.key] = torch.nested.nested_tensor_from_jagged(tensors[group.key], offsets)
        return tensors

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, as a few JSON-able values; taken between batches it is exact."""
        position = self._position
        if position.step >= len(self) > 0:
            position = position.next_epoch()
        if self._resuming:
            position = self._position
        dataset = self._data.identity(position.epoch)
        return {"epoch": position.epoch, "step": position.step, "dataset": dataset, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken, also with another world size if the global batch is the same.

        Raises:
            ResumeMismatchError: it belongs to another dataset, order or batch size (lists what differs).
        """
        identity = {"dataset": self._data.counterpart(state.get("dataset")), **self._identity()}
        wrong = [f"{k}: {state.get(k)!r} saved, {v!r} here" for k, v in identity.items() if state.get(k) != v]
        if wrong:
            raise ResumeMismatchError(f"the loader state does not fit this loader: {'; '.join(wrong)}")
        self._end_iteration()
        self._data.restore(state["dataset"])
        self._position = Position(int(state["epoch"]), int(state["step"]))
        self._resuming = True

    def _identity(self) -> dict[str, Any]:
        """Everything else that the order of batches depends on."""
        return {
            "seed": self._seed,
            "shuffle": self._shuffle,
            "mix_chunks": MIX_CHUNKS,
            "global_batch_size": self._cut.global_batch_size,
            "drop_last": self._cut.drop_last,
            "split": list(self._feeding.split) if self._feeding.split else None,
            "order": order_fingerprint(),
        }

    def close(self) -> None:
        """End the threads of a running iteration, unpin the dataset, and end a conversion that is this loader's own.

        What is converted stays, and the loader can be iterated again.
        """
        self._end_iteration()
        self._data.close()

    def _end_iteration(self) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            running.close()

    def __enter__(self) -> DataLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _find_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise SpecError("give rank and world_size together, or neither")
    if rank is not None and world_size is not None:
        return rank, world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _check_ranks_agree(identity: str) -> None:
    """Caches of several nodes may have recorded different first epochs: no entry must come twice, or not at all."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, identity)
    if len(set(found)) > 1:
        raise ResumeMismatchError(
            "the caches of the ranks' nodes hold this dataset with different orders of the first epoch; open it by its "
            "name, with storagering.open_dataset, on all of them"
        )


def _check_arguments(
    batch_size: int,
    seed: int,
    rank: int,
    world_size: int,
    shuffle: Shuffle,
    jagged: Jagged,
    pad_to: int | None,
    prefetch_batches: int,
    split: tuple[float, float] | None,
    on_corrupt: OnCorrupt,
) -> None:
    checks = {
        f"batch_size={batch_size}: at least 1": batch_size >= 1,
        f"seed={seed}: at least 0": seed >= 0,
        f"rank={rank} of world_size={world_size}: 0 <= rank < world_size": 0 <= rank < world_size,
        f"shuffle={shuffle!r}: 'block', 'exact' or None": shuffle in ("block", "exact", None),
        f"jagged={jagged!r}: 'flat', 'padded' or 'nested'": jagged in ("flat", "padded", "nested"),
        f"pad_to={pad_to}: at least 1": pad_to is None or pad_to >= 1,
        f"prefetch_batches={prefetch_batches}: at least 0": prefetch_batches >= 0,
        f"on_corrupt={on_corrupt!r}: 'fail' or 'rebuild'": on_corrupt in ("fail", "rebuild"),
        f"split={split}: 0 <= low < high <= 1": split is None or 0 <= split[0] < split[1] <= 1,
    }
    for message, fine in checks.items():
        if not fine:
            raise SpecError(message)


def _check_fits(dataset: Dataset, groups: tuple[Group, ...], limit: int) -> None:
    counts = dict(zip(dataset.schema.names, dataset.manifest.statistics, strict=True))
    needed = 0
    for group in groups:
        for column in group.columns:
            found = counts[column.name]
            needed += (found.count if found else 0) * group.dtype.itemsize
    if needed > limit:
        raise SpecError(
            f"shuffle='exact' holds {needed:,} bytes in memory, the limit is {limit:,}; use shuffle='block', "
            "fewer columns, or set STORAGERING_EXACT_SHUFFLE_BYTES"
        )
