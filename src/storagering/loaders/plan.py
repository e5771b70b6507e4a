"""The order of an epoch: a pure function of (entries of the units, seed, epoch). No I/O, no state.

    units of each stratum, permuted --merged in proportion--> windows of so many batches
    window --cut into 64 streams, each permuted--> a part of each stream for every batch

A unit is a chunk, or what the data counts in; a stratum is what should come evenly: the files of one class. So every
window, and every stream of it, has the shares of the whole dataset, however the files are sorted.

A global batch takes fixed places from every stream, and rank r of w the r-th w-th of these places. So the set of
entries in a global batch is the same for every world size; a rank whose places are whole streams (any world size that
divides 64) reads only these; and any step is found at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Literal

import numpy as np
import numpy.typing as npt

from storagering.loaders.kernels import apportion, deal, permuted, shuffle_segments, write_ranges
from storagering.types import Array

Shuffle = Literal["block", "exact"] | None
Tail = Literal["short", "drop", "pad", "wrap"]

#: Parts of a window that are shuffled by themselves: world sizes that divide it share no chunk needlessly.
STREAMS = 64
#: Changes if the same seed gives another order than it did: states of the two do not mix.
ORDER_VERSION = 3
_UNIT_ORDER, _ROW_ORDER, _EXACT_ORDER, _SHIFT = range(4)


@dataclass(frozen=True, slots=True)
class Piece:
    """Entries ``start`` to ``stop`` of those of a unit that take part."""

    unit: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank takes from a window.

    Attributes:
        pieces: what to read: a *place* is a number in this sequence of entries.
        sources: the place of each row, batch after batch (int32, or int64 of very many); -1 is a row of padding.
        bounds: where each batch begins in ``sources``; last, its length.
    """

    pieces: tuple[Piece, ...]
    sources: Array
    bounds: tuple[int, ...]


@dataclass(frozen=True)
class EpochPlan:
    """One epoch's order.

    Attributes:
        entries: of each unit, those that take part.
        strata: units of each stratum in reading order.
        shifts: with which entry each stratum begins; it goes on to its end, and then from its start. So any entry may
            come in any window, also where these are smaller than a unit.
        batch_size: entries of a global batch.
        window_batches: full batches of a window.
        tail: what becomes of the entries after the last full global batch. ``short``: a smaller batch, split over the
            ranks as evenly as can be; ``drop``: left out; ``pad``: a full one with rows of zeros; ``wrap``: filled up
            with entries of the first. All ranks have equally many steps.
    """

    entries: tuple[int, ...]
    strata: tuple[tuple[int, ...], ...]
    shifts: tuple[int, ...]
    batch_size: int
    window_batches: int
    seed: int
    epoch: int
    shuffle: Shuffle
    tail: Tail

    @cached_property
    def num_entries(self) -> int:
        """Entries that take part, of all ranks together."""
        return sum(self.sizes)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each stratum."""
        return tuple(sum(self.entries[unit] for unit in stratum) for stratum in self.strata)

    @property
    def num_steps(self) -> int:
        """Batches of the epoch, on every rank."""
        return count_steps(self.num_entries, self.batch_size, self.tail)

    @property
    def num_windows(self) -> int:
        """Windows of the epoch."""
        return -(-self.num_steps // self.window_batches)

    def window_of(self, step: int) -> tuple[int, int]:
        """The window of a step, and the step's number in it."""
        return divmod(step, self.window_batches)

    def units(self, window: int) -> list[int]:
        """The units that a window needs, all ranks together."""
        if self.shuffle == "exact":
            return [unit for stratum in self.strata for unit in stratum]
        low, high = self._span(window)
        return [piece.unit for piece in self._pieces(*_apportion(self.sizes, (low, high)))]

    def share(self, window: int, rank: int, world_size: int) -> Share:
        """What a rank takes from a window."""
        low, high = self._span(window)
        cut = self._cut(window, rank, world_size)
        starts, stops = _apportion(self.sizes, (low, high))
        counts = _apportion(stops - starts, cut.edges)  # (streams + 1, strata)
        pieces = tuple(self._pieces(starts + counts[0], starts + counts[-1]))
        places = _merge(counts)
        if self.shuffle:
            edges = np.array(cut.edges) - cut.edges[0]
            shuffle_segments(places, edges, cut.first, _key(self.seed, self.epoch, _ROW_ORDER, window))
        sources, bounds = cut.deal(places)
        share = Share(pieces, sources, bounds)
        return self._complete(share, rank, world_size) if cut.rest and self.tail in ("pad", "wrap") else share

    def streams(self, window: int, rank: int, world_size: int) -> Array:
        """The stream of each row of a rank's share; of rows that complete the last batch there is none."""
        cut = self._cut(window, rank, world_size)
        streams, _ = cut.deal(np.repeat(np.arange(cut.first, cut.last), np.diff(cut.edges)))
        return streams

    def _cut(self, window: int, rank: int, world_size: int) -> _Cut:
        low, high = self._span(window)
        full, rest = divmod(high - low, self.batch_size)
        streams = STREAMS if self.shuffle and full else 1
        return _Cut(full, self.batch_size, rest, streams, rank, world_size)

    def exact(self, step: int, rank: int, world_size: int) -> Array:
        """The entries of a rank's batch under an exact shuffle, numbered as in ``entries``; -1 is padding."""
        begin, own = step * self.batch_size, self.batch_size // world_size
        size = min(self.batch_size, self.num_entries - begin)
        low, high = size * rank // world_size, size * (rank + 1) // world_size
        places = np.arange(begin + low, begin + high)
        if self.tail == "wrap":
            fill = np.arange(own * rank - low, own * (rank + 1) - high) % self.num_entries
            places = np.append(places, fill)
        found = np.full(own if self.tail == "pad" else len(places), -1)
        permuted(places, self.num_entries, _key(self.seed, self.epoch, _EXACT_ORDER, 0), found[: len(places)])
        return found

    def _span(self, window: int) -> tuple[int, int]:
        """The places of a window in the merged sequence of all strata."""
        size = self.window_batches * self.batch_size
        end = self.num_entries
        if self.tail == "drop":
            end -= end % self.batch_size
        return window * size, min(end, (window + 1) * size)

    def _pieces(self, starts: Array, stops: Array) -> Iterator[Piece]:
        for stratum, start, stop in zip(range(len(self.strata)), starts, stops, strict=True):
            size, shift = self.sizes[stratum], self.shifts[stratum]
            low, high = int(start) + shift, int(stop) + shift
            yield from self._cut_stratum(stratum, min(low, size), min(high, size))
            yield from self._cut_stratum(stratum, max(low, size) - size, max(high, size) - size)

    def _cut_stratum(self, stratum: int, start: int, stop: int) -> Iterator[Piece]:
        units, begins = self.strata[stratum], self._begins[stratum]
        at = int(np.searchsorted(begins, start, side="right")) - 1
        while start < stop:
            low, high = int(begins[at]), int(begins[at + 1])
            if high > start:
                yield Piece(units[at], start - low, min(stop, high) - low)
                start = high
            at += 1

    @cached_property
    def _begins(self) -> tuple[Array, ...]:
        """Where each unit of a stratum begins in it; last, the stratum's size."""
        return tuple(
            np.fromiter(accumulate((self.entries[u] for u in s), initial=0), np.int64, len(s) + 1) for s in self.strata
        )

    def _complete(self, share: Share, rank: int, world_size: int) -> Share:
        """The last batch of a rank made as long as the others: place n that is left over is place n of the first."""
        size = self.batch_size // world_size
        there = share.bounds[-1] - share.bounds[-2]
        bounds = (*share.bounds[:-1], share.bounds[-2] + size)
        if self.tail == "pad":
            return Share(share.pieces, np.append(share.sources, np.full(size - there, -1)), bounds)
        first = replace(self, tail="short").share(0, 0, 1)
        before = size * rank - self.num_entries % self.batch_size * rank // world_size
        places = np.arange(before, before + size - there) % first.bounds[1]
        ahead = sum(piece.stop - piece.start for piece in share.pieces)
        return Share(share.pieces + first.pieces, np.append(share.sources, first.sources[places] + ahead), bounds)


@dataclass(frozen=True)
class _Cut:
    """A window of full batches and a short one, cut into streams, of which a rank takes some.

    Stream s has the places [size*s//streams, size*(s+1)//streams) of a batch, and rank r of w the places
    [size*r//w, size*(r+1)//w).
    """

    full: int
    batch_size: int
    rest: int
    streams: int
    rank: int
    world_size: int

    @property
    def first(self) -> int:
        """The first stream that has a place of this rank's."""
        return self.rank * self.streams // self.world_size

    @property
    def last(self) -> int:
        """The one behind the last."""
        return -(-(self.rank + 1) * self.streams // self.world_size)

    @cached_property
    def edges(self) -> list[int]:
        """Where the rank's streams begin in the window, and where the last of them ends."""
        return [
            self.full * (self.batch_size * s // self.streams) + self.rest * s // self.streams
            for s in range(self.first, self.last + 1)
        ]

    def deal(self, places: Array) -> tuple[Array, tuple[int, ...]]:
        """The rank's batches from the places of its streams: (sources, bounds) of a `Share`."""
        own, own_rest = self._of_rank(self.batch_size), self._of_rank(self.rest)
        width = int(own[1] - own[0])
        bounds = [number * width for number in range(self.full + 1)]
        if self.rest:
            bounds.append(bounds[-1] + int(own_rest[1] - own_rest[0]))
        sources = np.empty(bounds[-1], places.dtype)
        edges = np.array(self.edges) - self.edges[0]
        deal(places, edges, self.first, self.streams, self.batch_size, self.rest, own, own_rest, sources)
        return sources, tuple(bounds)

    def _of_rank(self, size: int) -> Array:
        """The rank's places in a batch of that size: from and up to."""
        return np.array([size * self.rank // self.world_size, size * (self.rank + 1) // self.world_size])


def _merge(counts: Array) -> Array:
    """Places of the entries stream by stream, where the pieces lie stratum by stratum.

    Args:
        counts: (streams + 1, strata): how many entries of each stratum lie before each stream.
    """
    total = int((counts[-1] - counts[0]).sum())
    dtype = np.int32 if total < 1 << 31 else np.int64
    if counts.shape[1] == 1:
        return np.arange(total, dtype=dtype)
    own = counts - counts[0]
    begins = (own[:-1] + np.concatenate([[0], np.cumsum(own[-1])[:-1]])).reshape(-1)  # (streams * strata)
    found = np.empty(total, dtype)
    write_ranges(begins, np.diff(own, axis=0).reshape(-1), found)
    return found


def _apportion(sizes: Sequence[int] | Array, totals: Sequence[int]) -> Array:
    """See `apportion`: (totals, parts)."""
    counts = np.zeros((len(totals), len(sizes)), np.int64)
    apportion(np.array(sizes, np.int64), np.array(totals, np.int64), counts)
    return counts


def plan_epoch(
    entries: Sequence[int],
    *,
    batch_size: int,
    window_entries: int,
    seed: int,
    epoch: int,
    shuffle: Shuffle = "block",
    tail: Tail = "short",
    strata: Sequence[Sequence[int]] | None = None,
    order: Sequence[int] | None = None,
) -> EpochPlan:
    """The order of one epoch.

    Args:
        entries: of each unit, those that take part.
        batch_size: entries of a global batch.
        window_entries: about how many are mixed at a time under ``"block"``.
        seed: of all epochs.
        epoch: which one.
        shuffle: ``"block"`` permutes units and mixes windows of them; ``"exact"`` is a uniform permutation of all
            entries; None keeps the stored order.
        tail: see `EpochPlan`.
        strata: units that come in proportion, all in one without it.
        order: of the units under ``"block"``, if they come in a given one; there are no strata then.
    """
    parts: list[Sequence[int]] = [range(len(entries))]
    if shuffle == "block":
        parts = [order] if order is not None else [s for s in strata or parts if any(entries[u] for u in s)] or parts
        if order is None:
            parts = [_shuffled(part, _key(seed, epoch, _UNIT_ORDER, number)) for number, part in enumerate(parts)]
    shifts = [0] * len(parts)
    if shuffle == "block" and order is None:
        shifts = [_below(sum(entries[u] for u in part), seed, epoch, number) for number, part in enumerate(parts)]
    batches = max(1, round(window_entries / batch_size))
    units = tuple(map(tuple, parts))
    return EpochPlan(tuple(entries), units, tuple(shifts), batch_size, batches, seed, epoch, shuffle, tail)


def _below(size: int, seed: int, epoch: int, stratum: int) -> int:
    """A number below ``size``, or 0."""
    return int(_key(seed, epoch, _SHIFT, stratum)) * size >> 64


def _shuffled(units: Sequence[int], key: np.uint64) -> list[int]:
    found = np.array(units, np.int64)
    shuffle_segments(found, np.array([0, len(found)]), 0, key)
    return [int(unit) for unit in found]


def _key(seed: int, epoch: int, purpose: int, number: int) -> np.uint64:
    """64 bits of NumPy's seed sequence, whose results never change."""
    return np.uint64(np.random.SeedSequence([seed, epoch, purpose, number]).generate_state(1, np.uint64)[0])


def count_steps(num_entries: int, batch_size: int, tail: Tail) -> int:
    """Batches of an epoch."""
    return num_entries // batch_size if tail == "drop" else -(-num_entries // batch_size)


def in_split(start: int, stop: int, split: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """Which of the entries ``start`` to ``stop`` belong to a split: see `in_split_of`."""
    return in_split_of(np.arange(start, stop, dtype=np.uint64), split)


def in_split_of(numbers: Array, split: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """Which of those entries belong to a split.

    An entry's place in [0, 1) is a hash of its number (SplitMix64, Steele et al. 2014), so it is the same
    for every seed, epoch and machine.
    """
    with np.errstate(over="ignore"):
        z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        place = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    low, high = (round(edge * (1 << 53)) for edge in split)
    return (place >= np.uint64(low)) & (place < np.uint64(high))
