"""The loader that all frameworks share: batches as dicts of arrays, in an order that can be resumed at any step."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from storagering.cache.dataset import Dataset
from storagering.cache.filling import FillingDataset
from storagering.cache.layout import open_cache
from storagering.config import load_settings
from storagering.errors import ResumeMismatchError, SpecError
from storagering.loaders.batches import BatchArrays, BatchMaker
from storagering.loaders.buffers import BufferPool
from storagering.loaders.engine import Batches, Epoch, Feeding, Finish, run_epoch
from storagering.loaders.exact import PackedEntries, RandomRows, SideBySide, Table, is_packed_group
from storagering.loaders.feed import ColumnRequest, Group, lead_columns, make_groups
from storagering.loaders.filling import Reading, open_data
from storagering.loaders.options import Options
from storagering.loaders.plan import ORDER_VERSION, EpochPlan, count_steps, plan_epoch
from storagering.loaders.sources import BlockWindows, ExactWindows, WindowSource
from storagering.loaders.taking import Taking
from storagering.loaders.threads import ThreadCrew
from storagering.loaders.windows import Window, WindowMaker
from storagering.types import Position

#: Chunks that are mixed at a time under ``shuffle="block"``; of a mixed dataset, in which any chunk is a fair sample.
MIX_CHUNKS, MIX_CHUNKS_OF_MIXED = 4, 1
#: What is gathered at a time under ``"exact"``, counting lists as so many items.
_EXACT_BYTES, _LIST_ITEMS = 8 << 20, 64
_CLOSE_SECONDS = 5.0


class Loader:
    """Batches of a dataset as dicts of arrays; see `storagering.loaders.torch.DataLoader`, which is this with tensors.

    Args:
        dataset: a dataset or its name; or what `storagering.fill` gives, or a path, pattern or URL of sources.
        batch_size: entries of one batch on this rank.
        columns: names, or {key: names}; see `make_groups`.
        options: all else.
        agree: told what the order depends on when it may differ between ranks; raises if it does.
        pool: of the memory of batches.
        finish: done with every batch, in a thread, after the transform; what it gives is delivered.

    Raises:
        NotFoundError: no such dataset or source.
        SchemaError: a column is unknown (lists the nearest names) or cannot become a tensor.
        SpecError: an argument is out of range, or too much for an exact shuffle in memory.
    """

    def __init__(
        self,
        dataset: Dataset | FillingDataset | str,
        batch_size: int,
        columns: ColumnRequest,
        options: Options,
        *,
        agree: Callable[[str], None] = lambda _identity: None,
        pool: BufferPool | None = None,
        finish: Finish | None = None,
    ) -> None:
        if batch_size < 1:
            raise SpecError(f"batch_size={batch_size}: at least 1")
        self.options = options
        self._settings = load_settings(threads=options.threads)
        self._rank, self._world_size = options.place
        self._batch_size = batch_size * self._world_size
        self._position, self._resuming = Position(), False
        self._running: Batches | None = None
        self._owner = os.getpid()
        self._pool, self._finish = pool or BufferPool(), _chain(options.transform, finish)
        self._rows: RandomRows | None = None
        self._opening = threading.Lock()
        self._taking = Taking(options.split)
        self._entries: dict[bool, Sequence[int]] = {}
        shuffle = options.shuffle
        self._data = open_data(dataset, open_cache(self._settings), self._world_size, options.on_corrupt)
        try:
            schema = self._data.begin(options.seed if shuffle == "block" else None, whole=shuffle == "exact")
            self.groups = make_groups(schema, columns)
            self._lead = lead_columns(self.groups, options.lead)
            if shuffle == "exact":
                packed = self._packed()
                held = [group for number, group in enumerate(self.groups) if number not in packed]
                _check_fits(self.dataset, held, self._settings.exact_shuffle_bytes)
            self._num_entries = sum(self._count(self._data.reading(epoch=0)))
            if self._data.filled:
                agree(self._data.identity(0))
        except BaseException:
            self._data.close()
            raise

    @property
    def dataset(self) -> Dataset:
        """The dataset; waits until it is complete."""
        return self._data.dataset()

    def __len__(self) -> int:
        """Batches of one epoch, the same on every rank."""
        return count_steps(self._num_entries, self._batch_size, self.options.tail)

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

    def __iter__(self) -> Iterator[BatchArrays]:
        self._end_iteration()
        if self._owner != os.getpid():  # forked: a lock in it may be held by a thread that is not here
            self._owner, self._pool, self._rows = os.getpid(), BufferPool(), None
            self._opening = threading.Lock()
            self._data.renew()
        first_step = self._position.step if self._resuming else 0
        if self._resuming and first_step >= len(self):
            self._position, first_step = self._position.next_epoch(), 0
        self._resuming = False
        epoch = self._position.epoch
        self._position = Position(epoch, first_step)
        reading = self._data.reading(epoch)
        plan = self.plan(epoch)
        reading.supply.hold(plan.units(number) for number in range(plan.num_windows))
        self._running = run_epoch(partial(self._begin, reading, plan), first_step)
        return self._deliver(self._running, epoch, first_step)

    def _begin(self, reading: Reading, plan: EpochPlan) -> Epoch:
        options, supply = self.options, reading.supply
        feeding = Feeding(
            self._rank,
            self._world_size,
            self._settings.threads,
            options.prefetch_batches,
            options.stall_seconds,
            self._finish,
        )
        maker = BatchMaker(
            self.groups, options.jagged, options.pad_to, self._lead, self._pool, masked=options.tail == "pad"
        )
        place = self._rank, self._world_size

        def source(crew: ThreadCrew) -> WindowSource:
            if options.shuffle == "exact":
                rows = partial(self._random_rows, reading)
                return ExactWindows(plan, place, supply, rows, self._settings.threads)
            return BlockWindows(plan, place, supply, self._windows(reading, self.groups, crew))

        return Epoch(feeding, plan, maker, source, supply.where)

    def _windows(self, reading: Reading, groups: Sequence[Group], crew: ThreadCrew) -> WindowMaker:
        return WindowMaker(reading.supply, groups, self._taking, crew, self._pool)

    def _random_rows(self, reading: Reading, anew: bool) -> RandomRows:
        """Where an exact shuffle takes its entries from: the file, group by group, or memory."""
        with self._opening:
            if self._rows is None or anew:
                self._rows = self._open_rows(reading)
            return self._rows

    def _open_rows(self, reading: Reading) -> RandomRows:
        parts: list[tuple[list[int], RandomRows]] = []
        packed = self._packed()
        if packed:
            groups = [self.groups[number] for number in packed]
            parts.append((packed, PackedEntries(groups, reading.supply, self._taking, self._pool)))
        others = [number for number in range(len(self.groups)) if number not in packed]
        if others:
            groups = [self.groups[number] for number in others]
            parts.append((others, Table(groups, self._read_all(reading, groups), self._pool)))
        return SideBySide(parts)

    def _packed(self) -> list[int]:
        """The groups whose entries can be read alone."""
        return [n for n, group in enumerate(self.groups) if is_packed_group(group, self.dataset.manifest)]

    def _read_all(self, reading: Reading, groups: Sequence[Group]) -> Window:
        """All entries that take part, decoded, in the stored order."""
        supply, entries = reading.supply, self._count(reading)
        whole = plan_epoch(
            entries, batch_size=max(1, sum(entries)), window_entries=1, seed=0, epoch=0, shuffle=None, tail="short"
        )
        crew = ThreadCrew(self._settings.threads, "storagering-decode")
        chunks = [chunk for unit in range(len(entries)) for chunk in supply.chunks(unit)]
        try:
            with supply.held(chunks):
                return self._windows(reading, groups, crew).make(whole.share(0, 0, 1))
        finally:
            crew.close(_CLOSE_SECONDS)

    def plan(self, epoch: int) -> EpochPlan:
        """The order of an epoch."""
        reading, options = self._data.reading(epoch), self.options
        entries = self._count(reading)
        mean = sum(reading.supply.entries) / max(1, len(entries)) / reading.unit_chunks
        chunks = MIX_CHUNKS if options.shuffle else 1
        if options.shuffle and reading.order is None and self.dataset.manifest.spec.mix is not None:
            chunks = MIX_CHUNKS_OF_MIXED
        window = round(mean * chunks)
        if options.shuffle == "exact":
            window = _EXACT_BYTES * self._world_size // max(1, sum(map(_row_bytes, self.groups)))
        return plan_epoch(
            entries,
            batch_size=self._batch_size,
            window_entries=window,
            seed=options.seed,
            epoch=epoch,
            shuffle=options.shuffle,
            tail=options.tail,
            strata=reading.supply.strata,
            order=reading.order,
        )

    def _count(self, reading: Reading) -> Sequence[int]:
        """Entries of each unit that take part."""
        filled = reading.order is not None
        if filled not in self._entries:
            self._entries[filled] = self._taking.count(reading.supply)
        return self._entries[filled]

    def _deliver(self, batches: Batches, epoch: int, step: int) -> Iterator[BatchArrays]:
        try:
            for batch in batches:
                step += 1
                self._position = Position(epoch, step)  # before the yield: a state taken now includes this batch
                yield batch
            if self._running is batches:
                self._data.dataset()  # it is complete, or all but
                self._position = Position(epoch + 1)
        finally:
            batches.close()

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
            "seed": self.options.seed,
            "shuffle": self.options.shuffle,
            "global_batch_size": self._batch_size,
            "tail": self.options.tail,
            "split": list(self.options.split) if self.options.split else None,
            "order": ORDER_VERSION,
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


def _row_bytes(group: Group) -> int:
    """About how much a group takes for each entry."""
    return math.prod(group.item_shape) * group.item_dtype.itemsize * (_LIST_ITEMS if group.listed else 1)


def _chain(transform: Finish | None, finish: Finish | None) -> Finish | None:
    if transform is None or finish is None:
        return transform or finish
    return lambda batch: finish(transform(batch))


def _check_fits(dataset: Dataset, groups: Sequence[Group], limit: int) -> None:
    counts = dict(zip(dataset.schema.names, dataset.manifest.statistics, strict=True))
    needed = 0
    for group in groups:
        for column in group.columns:
            found = counts[column.name]
            needed += (found.count if found else 0) * group.dtype.itemsize
    if needed > limit:
        raise SpecError(
            f"shuffle='exact' holds {needed:,} bytes in memory, the limit is {limit:,}; convert with --layout rows, "
            "use shuffle='block', fewer columns, or set STORAGERING_EXACT_SHUFFLE_BYTES"
        )
