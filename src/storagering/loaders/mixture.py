"""Several datasets in one sequence of batches, in fixed fractions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor, lcm
from typing import Any, Literal

import numpy as np

from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.filling import FillingDataset
from storagering.cache.view import View
from storagering.errors import ResumeMismatchError, SchemaError, SpecError
from storagering.loaders.batches import BatchArrays
from storagering.loaders.buffers import BufferPool
from storagering.loaders.cursor import Cursor
from storagering.loaders.engine import Finish
from storagering.loaders.feed import ColumnRequest, Group
from storagering.loaders.joining import cut_batch, join_batches
from storagering.loaders.kernels import apportion
from storagering.loaders.loader import Loader, chain
from storagering.loaders.options import Options
from storagering.loaders.scaling import Scaling
from storagering.loaders.threads import ThreadCrew
from storagering.types import Position

Data = Dataset | View | FillingDataset | str
#: Fractions are those with denominators up to this that are nearest to what is given.
_MAX_DENOMINATOR = 10_000
_CLOSE_SECONDS = 5.0


@dataclass(frozen=True)
class Mix:
    """Several datasets to train on together: ``DataLoader(Mix([("jets", 0.7), ("muons", 0.3)]), ...)``.

    Attributes:
        parts: datasets, their names or views of them, with their shares of every batch, which are taken in proportion.
            What is being made is waited for.
        until: whether an epoch ends when the first dataset has been seen whole (``"first"``), or the last
            (``"last"``); others begin again meanwhile, in another order.
    """

    parts: Sequence[tuple[Data, float]]
    until: Literal["first", "last"] = "last"

    def __post_init__(self) -> None:
        if not self.parts or not all(share > 0 for _, share in self.parts):
            raise SpecError("a mixture takes one dataset or more, each with a share above 0")
        if self.until not in ("first", "last"):
            raise SpecError(f"until={self.until!r}: 'first' or 'last'")

    @property
    def shares(self) -> tuple[int, ...]:
        """The shares as whole numbers in the same proportion."""
        found = [Fraction(share).limit_denominator(_MAX_DENOMINATOR) for _, share in self.parts]
        common = lcm(*(share.denominator for share in found))
        return tuple(max(1, int(share * common)) for share in found)


class Mixture:
    """Batches of several datasets; it is used as a `Loader` is.

    Every batch has as many entries of each dataset as its share says, rounded so that the shares are exact over time.
    Entries of the first dataset come first. Ranks never share an entry of the same epoch of a dataset; which ones meet
    in a global batch depends on the world size, except where shares make whole numbers of entries on each rank and no
    dataset has begun again. So a state is for one world size.

    Args:
        mix: what is mixed.
        batch_size: entries of one batch on this rank.
        columns: as for `Loader`; all datasets have them.
        options: as for `Loader`; ``tail`` is without meaning, because all batches are full.
        pool, finish: as for `Loader`.

    Raises:
        SchemaError: the datasets differ in a column.
        SpecError: a dataset has fewer entries than there are ranks.
        StorageringError: as `Loader`.
    """

    def __init__(
        self,
        mix: Mix,
        batch_size: int,
        columns: ColumnRequest,
        options: Options,
        *,
        pool: BufferPool | None = None,
        finish: Finish | None = None,
    ) -> None:
        if batch_size < 1:
            raise SpecError(f"batch_size={batch_size}: at least 1")
        if options.tail not in ("short", "drop"):
            raise SpecError(f"a mixture has no tail to {options.tail}: all its batches are full")
        self.options, self._mix, self._size = options, mix, batch_size
        self._shares = mix.shares
        self._finish, self._pool = chain(options.transform, finish), pool or BufferPool()
        own = replace(options, transform=None, num_epochs=None, tail="short")
        self._parts: list[_Part] = []
        try:
            for (data, _), share in zip(mix.parts, self._shares, strict=True):
                most = ceil(Fraction(share * batch_size, sum(self._shares)))
                self._parts.append(_Part(Loader(_open(data), most, columns, own), most))
            self._check()
        except BaseException:
            self.close()
            raise
        self._cursor = Cursor()
        self._running: Iterator[BatchArrays] | None = None

    def _check(self) -> None:
        _, world_size = self.options.place
        first = self.groups
        for part in self._parts:
            if [_form(g) for g in part.loader.groups] != [_form(g) for g in first]:
                raise SchemaError(
                    f"dataset {part.loader.dataset.name!r} has other columns than "
                    f"{self._parts[0].loader.dataset.name!r}, or of other types: name columns that are alike"
                )
            if part.loader.num_entries < world_size:
                raise SpecError(
                    f"dataset {part.loader.dataset.name!r} has {part.loader.num_entries} entries that take part: too "
                    f"few for {world_size} ranks"
                )

    @property
    def groups(self) -> tuple[Group, ...]:
        """What batches have, array by array."""
        return self._parts[0].loader.groups

    @property
    def dataset(self) -> Dataset:
        """The first dataset; waits until it is complete."""
        return self._parts[0].loader.dataset

    @property
    def scaling(self) -> dict[str, Scaling]:
        """Means and standard deviations of the first dataset; each has its own."""
        return self._parts[0].loader.scaling

    @property
    def epoch(self) -> int:
        """The epoch that is being iterated, or comes next."""
        return self._cursor.position.epoch

    @property
    def num_steps(self) -> int:
        """Batches of one epoch, the same on every rank."""
        _, world_size = self.options.place
        whole = [
            Fraction(part.loader.num_entries * sum(self._shares), share * self._size * world_size)
            for part, share in zip(self._parts, self._shares, strict=True)
        ]
        return ceil(max(whole)) if self._mix.until == "last" else max(1, floor(min(whole)))

    def __len__(self) -> int:
        """Batches of one iteration; raises TypeError if it goes on for ever."""
        if self.options.num_epochs is None:
            raise TypeError("an iteration with num_epochs=None has no length")
        return self.num_steps * self.options.num_epochs

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs; the restored one keeps its step."""
        self._cursor.set_epoch(epoch)

    @property
    def position(self) -> Position:
        """Where the mixture stands; behind the last batch of an epoch until the iteration goes on or ends."""
        return self._cursor.position

    def seek(self, position: Position, end: int | None = None) -> None:
        """Have the next iteration begin there, and end before an epoch if it is given."""
        self._cursor.seek(position, end)

    def __iter__(self) -> Iterator[BatchArrays]:
        return self.iterate()

    def iterate(self, offset: int = 0, stride: int = 1) -> Iterator[BatchArrays]:
        """The batches of one iteration from number ``offset`` on, or every so many of them."""
        self._end_iteration()
        self._cursor.begin(self.num_steps, self.options.num_epochs, offset)
        self._running = self._deliver(stride)
        return self._running

    def _deliver(self, stride: int) -> Iterator[BatchArrays]:
        steps, cursor = self.num_steps, self._cursor
        at = cursor.position.epoch * steps + cursor.position.step
        end = None if cursor.end is None else cursor.end * steps
        crew = ThreadCrew(1, "storagering-mix")
        coming: list[Future[BatchArrays]] = []
        begun = at
        try:
            while end is None or at < end:
                while len(coming) <= self.options.prefetch_batches and (end is None or begun < end):
                    coming.append(crew.submit(self._make, begun))
                    begun += stride
                batch = coming.pop(0).result()
                at += stride
                last = at - stride
                cursor.position = Position(last // steps, last % steps + stride)
                yield batch
            cursor.close(end // steps)
        finally:
            crew.close(_CLOSE_SECONDS)
            for part in self._parts:
                part.stop()

    def _make(self, step: int) -> BatchArrays:
        """The batch of a step, counted from the start of epoch 0."""
        before, after = (_apportion(self._shares, n * self._size) for n in (step, step + 1))
        pieces: list[BatchArrays] = []
        for part, start, stop in zip(self._parts, before, after, strict=True):
            pieces += part.take(start, stop)
        batch = join_batches(pieces, self.groups, self.options.jagged, self._pool)
        return batch if self._finish is None else self._finish(batch)

    def state_dict(self) -> dict[str, Any]:
        """Where the mixture stands, as JSON-able values; taken between batches it is exact."""
        position = self._cursor.next(self.num_steps)
        end = {"end": self._cursor.end} if self.options.num_epochs not in (None, 1) else {}
        return {"epoch": position.epoch, "step": position.step, **end, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state`` was taken.

        Raises:
            ResumeMismatchError: it belongs to other datasets, shares, orders or ranks (lists what differs).
        """
        wrong = [f"{k}: {state.get(k)!r} saved, {v!r} here" for k, v in self._identity().items() if state.get(k) != v]
        if wrong:
            raise ResumeMismatchError(f"the loader state does not fit this mixture: {'; '.join(wrong)}")
        self._end_iteration()
        position = Position(int(state["epoch"]), int(state["step"]))
        self.seek(position if position.step < self.num_steps else position.next_epoch(), state.get("end"))

    def _identity(self) -> dict[str, Any]:
        _, world_size = self.options.place
        states = [part.loader.state_dict() for part in self._parts]
        same = {k: v for k, v in states[0].items() if k not in ("epoch", "step", "end", "dataset", "global_batch_size")}
        return {
            "datasets": [part.loader.dataset.manifest.digest for part in self._parts],
            "shares": list(self._shares),
            "until": self._mix.until,
            "global_batch_size": self._size * world_size,
            "world_size": world_size,
            **same,
        }

    def close(self) -> None:
        """End the threads of a running iteration, and unpin the datasets."""
        self._end_iteration()
        for part in self._parts:
            part.loader.close()

    def _end_iteration(self) -> None:
        running, self._running = getattr(self, "_running", None), None
        if running is not None:
            running.close()


class _Part:
    """The entries of one dataset on this rank, one epoch after the other, taken in order."""

    def __init__(self, loader: Loader, size: int) -> None:
        self.loader, self._size = loader, size
        self._batches: Iterator[BatchArrays] | None = None
        self._next = 0  # the entry that comes next, counted from the start of epoch 0
        self._left: tuple[BatchArrays, int, int] | None = None  # a batch, and what is left of it

    def take(self, start: int, stop: int) -> list[BatchArrays]:
        """Entries ``start`` to ``stop`` in pieces, counted from the start of epoch 0."""
        if self._batches is None or start != self._next:
            self._seek(start)
        groups, jagged = self.loader.groups, self.loader.options.jagged
        pieces = []
        while start < stop:
            batch, low, high = self._left or self._read(0)
            used = min(high - low, stop - start)
            pieces.append(cut_batch(batch, groups, jagged, low, low + used))
            self._left = (batch, low + used, high) if low + used < high else None
            start += used
        self._next = stop
        return pieces

    def _seek(self, entry: int) -> None:
        epoch, row = divmod(entry, self.loader.rank_entries)
        step = row // self._size
        self.stop()
        self.loader.seek(Position(epoch, step))
        self._batches, self._next = iter(self.loader), entry
        self._left = self._read(row - step * self._size) if row > step * self._size else None

    def _read(self, skip: int) -> tuple[BatchArrays, int, int]:
        assert self._batches is not None  # noqa: S101  (whoever reads has sought)
        batch = next(self._batches)
        group = self.loader.groups[0]
        flat = group.jagged and self.loader.options.jagged != "padded"
        count = len(batch[f"{group.key}_offsets"]) - 1 if flat else len(batch[group.key])
        return (batch, skip, count) if count > skip else self._read(skip - count)

    def stop(self) -> None:
        """End the threads."""
        self.loader.stop()
        self._batches = self._left = None


def _apportion(shares: Sequence[int], entries: int) -> list[int]:
    """How many of so many entries are of each dataset: the shares, exactly, of any multiple of their sum."""
    rounds, rest = divmod(entries, sum(shares))
    counts = np.zeros((1, len(shares)), np.int64)
    apportion(np.array(shares, np.int64), np.array([rest], np.int64), counts)
    return [rounds * share + count for share, count in zip(shares, counts[0].tolist(), strict=True)]


def _open(data: Data) -> Dataset | View:
    if isinstance(data, str):
        return open_dataset(data)
    return data.wait() if isinstance(data, FillingDataset) else data


def _form(group: Group) -> tuple[Any, ...]:
    return group.key, group.jagged, group.dtype, group.row_shape
