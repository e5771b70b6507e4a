"""The loader that all frameworks share: batches as dicts of arrays, in an order that can be resumed at any step."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from storagering.cache.dataset import Dataset
from storagering.cache.filling import FillingDataset
from storagering.cache.layout import open_cache
from storagering.cache.view import View
from storagering.config import load_settings
from storagering.errors import ResumeMismatchError, SpecError
from storagering.loaders.adjusting import AdjustedWindows
from storagering.loaders.batches import BatchArrays, BatchMaker
from storagering.loaders.buffers import BufferPool
from storagering.loaders.cursor import Cursor
from storagering.loaders.diary import Diary, EpochSize
from storagering.loaders.engine import Batches, Epoch, Feeding, Finish, run_epoch
from storagering.loaders.exact import RandomRows
from storagering.loaders.feed import ColumnRequest, Group, column_names, lead_columns, make_groups
from storagering.loaders.filling import Reading, open_data
from storagering.loaders.opening import RandomAccess
from storagering.loaders.options import Options, unfold
from storagering.loaders.plan import ORDER_VERSION, EpochPlan, count_steps, plan_epoch
from storagering.loaders.preparing import Prepared, prepare, prepare_unseen
from storagering.loaders.resampling import DrawnRows, WindowDraw, draw_all
from storagering.loaders.scaling import Scaling
from storagering.loaders.sources import BlockWindows, ExactWindows, WindowSource
from storagering.loaders.threads import ThreadCrew
from storagering.loaders.windows import WindowMaker
from storagering.types import Position

#: Chunks that are mixed at a time under ``shuffle="block"``: of a mixed dataset, in which any chunk is a fair sample;
#: of one with lists, of which more in a window are no faster, one.
MIX_CHUNKS, MIX_CHUNKS_OF_MIXED = 4, 2
#: What is gathered at a time under ``"exact"``, counting lists as so many items.
_EXACT_BYTES, _LIST_ITEMS = 8 << 20, 64
#: Steps before its end at which the epoch that follows is begun.
_STEPS_BEFORE = 16


class Loader:
    """Batches of a dataset as dicts of arrays; see `storagering.loaders.torch.DataLoader`, which is this with tensors.

    Args:
        dataset: a dataset, its name or a view of it; or what `storagering.fill` gives, or a path, pattern or URL of
            sources.
        batch_size: entries of one batch on this rank.
        columns: names, or {key: names}; see `make_groups`.
        options: all else.
        agree: told what the order depends on when it may differ between ranks; raises if it does.
        pool: of the memory of batches.
        finish: done with every batch, in a thread, after the transform; what it gives is delivered.

    Attributes:
        num_entries: that take part, of all ranks.

    Raises:
        NotFoundError: no such dataset or source.
        SchemaError: a column is unknown (lists the nearest names) or cannot become a tensor.
        SpecError: an argument is out of range, or too much for an exact shuffle in memory.
    """

    def __init__(
        self,
        dataset: Dataset | View | FillingDataset | str,
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
        data, self.options = unfold(dataset, options)
        options = self.options
        self._settings = load_settings(threads=options.threads)
        self._rank, self._world_size = options.place
        self._batch_size = batch_size * self._world_size
        self._cursor = Cursor()
        self._running: Batches | None = None
        self._next: Epoch | None = None
        self._owner = os.getpid()
        self._pool, self._finish = pool or BufferPool(), chain(options.transform, finish)
        self._access: RandomAccess | None = None
        self._entries: dict[bool, Sequence[int]] = {}
        shuffle = options.shuffle
        cache = open_cache(self._settings)
        self._data = open_data(data, cache, self._world_size, options.on_corrupt)
        try:
            schema = self._data.begin(options.seed if shuffle == "block" else None, whole=options.looks_ahead)
            self._prepared = self._prepare(make_groups(schema, columns))
            self._lead = lead_columns(self.groups, options.lead)
            if shuffle == "exact":
                self._access = self._prepare_access()
            self.num_entries = sum(self._count(self._data.reading(epoch=0)))
            if self._data.filled:
                agree(self._data.identity(0))
            self._diary = Diary(cache, self._data, column_names(self._prepared.groups), self._size(), self._cursor)
        except BaseException:
            self._data.close()
            raise

    def _size(self) -> EpochSize:
        own, ends_short = self._batch_size // self._world_size, self.options.tail in ("short", "pad")
        missing = max(0, self.num_steps * own - self.rank_entries) if ends_short else 0
        return EpochSize(self.num_steps, own, missing)

    def _prepare(self, asked: tuple[Group, ...]) -> Prepared:
        if self._data.filled:
            return prepare_unseen(asked, self.options)
        supply = self._data.reading(epoch=0).supply
        return prepare(self.dataset, supply, asked, self.options, self._settings.threads)

    def _prepare_access(self) -> RandomAccess:
        settings, prepared = self._settings, self._prepared
        manifest, limit = self.dataset.manifest, settings.exact_shuffle_bytes
        return RandomAccess(manifest, prepared.groups, prepared.taking, self._pool, settings.threads, limit)

    @property
    def dataset(self) -> Dataset:
        """The dataset; waits until it is complete."""
        return self._data.dataset()

    @property
    def groups(self) -> tuple[Group, ...]:
        """What batches have, array by array."""
        return self._prepared.delivered

    @property
    def scaling(self) -> dict[str, Scaling]:
        """Means and standard deviations of the groups that are standardised, by their keys."""
        return dict(self._prepared.scaling)

    @property
    def num_steps(self) -> int:
        """Batches of one epoch, the same on every rank."""
        return count_steps(self.num_entries, self._batch_size, self.options.tail)

    @property
    def rank_entries(self) -> int:
        """Entries of one epoch on this rank, under ``tail="short"``."""
        full, rest = divmod(self.num_entries, self._batch_size)
        own = rest * (self._rank + 1) // self._world_size - rest * self._rank // self._world_size
        return full * (self._batch_size // self._world_size) + own

    def __len__(self) -> int:
        """Batches of one iteration, the same on every rank.

        Raises:
            TypeError: it goes on for ever.
        """
        if self.options.num_epochs is None:
            raise TypeError("an iteration with num_epochs=None has no length")
        return self.num_steps * self.options.num_epochs

    @property
    def epoch(self) -> int:
        """The epoch that is being iterated, or comes next."""
        return self._cursor.position.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs.

        After `load_state_dict`, choosing the restored epoch keeps its step.
        """
        self._cursor.set_epoch(epoch)

    @property
    def position(self) -> Position:
        """Where the loader stands; behind the last batch of an epoch until the iteration goes on or ends."""
        return self._cursor.position

    def seek(self, position: Position, end: int | None = None) -> None:
        """Have the next iteration begin there, and end before an epoch if it is given."""
        self._cursor.seek(position, end)

    def __iter__(self) -> Iterator[BatchArrays]:
        return self.iterate()

    def iterate(self, offset: int = 0, stride: int = 1) -> Iterator[BatchArrays]:
        """The batches of one iteration from number ``offset`` on, or every so many of them."""
        self.stop()
        if self._owner != os.getpid():  # forked: a lock in it may be held by a thread that is not here
            self._owner, self._pool = os.getpid(), BufferPool()
            self._data.renew()
            if self._access is not None:
                self._access.renew(self._pool)
        self._cursor.begin(self.num_steps, self.options.num_epochs, offset)
        self._running = self._run(stride)
        return self._deliver(self._running, stride)

    def _run(self, stride: int) -> Batches:
        """The batches from where the loader stands to the end of the epoch."""
        at = self._cursor.position
        self._diary.begin(stride)
        reading, plan = self._data.reading(at.epoch), self.plan(at.epoch)
        reading.supply.hold(plan.units(number) for number in range(plan.num_windows))
        ready, self._next = self._next, None
        if ready is not None and ready.plan == plan:
            return run_epoch(lambda: ready, at.step, stride)
        return run_epoch(partial(self._begin, reading, plan), at.step, stride)

    def _begin_next(self, epoch: int) -> None:
        """Begin the first windows of the next epoch while the last batches of this one are used, if it follows."""
        if self._next is not None or epoch + 1 == self._cursor.end:
            return
        if self._data.reading(epoch + 1).supply.is_settled:
            self._next = self._begin(self._data.reading(epoch + 1), self.plan(epoch + 1))
            self._next.begin()

    def _deliver(self, batches: Batches, stride: int) -> Iterator[BatchArrays]:
        cursor, num_steps = self._cursor, self.num_steps
        epoch, step = cursor.position.epoch, cursor.position.step
        try:
            while True:
                for batch in batches:
                    step += stride
                    # Before the yield: a state taken now includes this batch.
                    cursor.position = cursor.reached = Position(epoch, step)
                    if step + _STEPS_BEFORE >= num_steps:
                        self._begin_next(epoch)
                    yield batch
                if self._running is not batches:
                    return
                self._data.dataset()  # it is complete, or all but
                self._diary.end()
                epoch, step = epoch + 1, max(0, step - num_steps)
                if epoch == cursor.end or not num_steps:
                    cursor.close(epoch)
                    return
                cursor.position = Position(epoch, step)
                batches = self._running = self._run(stride)
        finally:
            batches.close()
            if self._running is batches:
                self._drop_next()
                self._diary.end()

    def _begin(self, reading: Reading, plan: EpochPlan) -> Epoch:
        options, supply = self.options, self._diary.count(reading.supply, plan.epoch)
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
            found: WindowSource
            if self._access is not None:
                found = ExactWindows(plan, place, supply, self._random_rows(reading, plan), self._settings.threads)
            else:
                maker = WindowMaker(supply, self._prepared.groups, self._prepared.taking, crew, self._pool)
                found = BlockWindows(plan, place, supply, maker)
            return AdjustedWindows(found, self._prepared.adjusting, self._draw(plan))

        return Epoch(feeding, plan, maker, source, supply.where)

    def _draw(self, plan: EpochPlan) -> WindowDraw | None:
        """How the entries of windows are drawn, if they are."""
        if self.options.resample is None or self._access is not None:
            return None
        return WindowDraw(plan, self._rank, self._world_size, self._pool)

    def _random_rows(self, reading: Reading, plan: EpochPlan) -> Callable[[bool], RandomRows]:
        """Where an exact shuffle takes its entries from; opened when a window is made."""
        access, weights = self._access, self._prepared.entry_weights
        assert access is not None  # noqa: S101  (whoever asks has looked)
        drawn = None if weights is None else draw_all(weights, plan.seed, plan.epoch)

        def open_rows(anew: bool) -> RandomRows:
            rows = access.open(reading.supply, anew)
            return rows if drawn is None else DrawnRows(rows, drawn)

        return open_rows

    def plan(self, epoch: int) -> EpochPlan:
        """The order of an epoch."""
        reading, options = self._data.reading(epoch), self.options
        entries = self._count(reading)
        mean = sum(entries) / max(1, sum(map(bool, entries))) / reading.unit_chunks
        chunks = MIX_CHUNKS if options.shuffle else 1
        if options.shuffle and reading.order is None and self.dataset.manifest.spec.mix is not None:
            chunks = 1 if any(group.jagged for group in self.groups) else MIX_CHUNKS_OF_MIXED
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
            self._entries[filled] = self._prepared.taking.count(reading.supply)
        return self._entries[filled]

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, as a few JSON-able values; taken between batches it is exact."""
        position = self._cursor.next(self.num_steps)
        end = {"end": self._cursor.end} if self.options.num_epochs not in (None, 1) else {}
        dataset = self._data.identity(position.epoch)
        return {"epoch": position.epoch, "step": position.step, **end, "dataset": dataset, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken, also with another world size if the global batch is the same.

        Raises:
            ResumeMismatchError: it belongs to another dataset, order or batch size (lists what differs).
        """
        identity = {"dataset": self._data.counterpart(state.get("dataset")), **self._identity()}
        wrong = [f"{k}: {state.get(k)!r} saved, {v!r} here" for k, v in identity.items() if state.get(k) != v]
        if wrong:
            raise ResumeMismatchError(f"the loader state does not fit this loader: {'; '.join(wrong)}")
        self.stop()
        self._data.restore(state["dataset"])
        position = Position(int(state["epoch"]), int(state["step"]))
        self.seek(position if position.step < self.num_steps else position.next_epoch(), state.get("end"))

    def _identity(self) -> dict[str, Any]:
        """Everything else that batches depend on."""
        return {**self.options.identity, "global_batch_size": self._batch_size, "order": ORDER_VERSION}

    def close(self) -> None:
        """End the threads of a running iteration, unpin the dataset, and end a conversion that is this loader's own.

        What is converted stays, and the loader can be iterated again.
        """
        self.stop()
        self._data.close()

    def stop(self) -> None:
        """End a running iteration and its threads."""
        if self._running is not None:
            running, self._running = self._running, None
            running.close()
            self._diary.end()
        self._drop_next()

    def _drop_next(self) -> None:
        unused, self._next = self._next, None
        if unused is not None and self._owner == os.getpid():  # a forked child has none of its threads
            unused.close()


def _row_bytes(group: Group) -> int:
    """About how much a group takes for each entry."""
    numbers = 1 if group.sparse else math.prod(group.row_shape)
    return numbers * group.dtype.itemsize * (_LIST_ITEMS if group.jagged or group.sparse else 1)


def chain(transform: Finish | None, finish: Finish | None) -> Finish | None:
    """One after the other, if there are any."""
    if transform is None or finish is None:
        return transform or finish
    return lambda batch: finish(transform(batch))
