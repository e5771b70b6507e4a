"""What a careful user writes around a reader: a shuffle buffer over blocks, or a gather of random entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from storagering.testing.loading.case import Array, Batch, Block, Case, Epoch, Jagged, cut, join, pad, take

Place = TypeVar("Place")


def to_tensors(case: Case, block: Block) -> Batch:
    """A batch of it: jagged parts padded, or as values and offsets."""
    tensors: list[Any] = []
    for part in block:
        if not isinstance(part, Jagged):
            tensors.append(torch.from_numpy(part))
        elif case.workload == "w2":
            tensors.append(torch.from_numpy(pad(part)))
        else:
            tensors += [torch.from_numpy(part.values), torch.from_numpy(part.offsets)]
    return tuple(tensors)


def buffered(
    case: Case, places: Sequence[Place], per_place: int, ask: Callable[[Sequence[Place]], Callable[[], list[Block]]]
) -> Epoch:
    """Blocks in random order into a buffer that is permuted and cut in batches.

    Args:
        places: what to ask for, each of about ``per_place`` entries.
        ask: begins to read several places and returns what waits for them; the next buffer is asked for before
            this one is handed out.
    """
    group = -(-case.buffer // per_place)

    def epoch(number: int) -> Iterator[Batch]:
        rng = np.random.default_rng(number)
        order = rng.permutation(len(places))
        groups = [[places[k] for k in order[a : a + group]] for a in range(0, len(order), group)]
        ahead, left = ask(groups[0]), list[Block]()
        for index in range(len(groups)):
            now = ahead
            if index + 1 < len(groups):
                ahead = ask(groups[index + 1])
            entries = join([*left, *now()])
            rows = rng.permutation(len(entries[-1]))
            whole = len(rows) if index + 1 == len(groups) else len(rows) - len(rows) % case.batch_size
            for start in range(0, whole, case.batch_size):
                yield to_tensors(case, take(entries, rows[start : min(start + case.batch_size, whole)]))
            left = [take(entries, rows[whole:])] if whole < len(rows) else []

    return epoch


def read_later(read: Callable[[Place], Block]) -> Callable[[Sequence[Place]], Callable[[], list[Block]]]:
    """For `buffered`, a reader that reads one place when it is waited for."""
    return lambda places: lambda: [read(place) for place in places]


def random_rows(case: Case, count: int, get: Callable[[Array], Batch]) -> Epoch:
    """A uniform permutation of all entries; ``get`` gathers the rows of one batch."""

    def epoch(number: int) -> Iterator[Batch]:
        order = np.random.default_rng(number).permutation(count)
        return (get(order[a : a + case.batch_size]) for a in range(0, count, case.batch_size))

    return epoch


def spans(count: int, step: int) -> list[tuple[int, int]]:
    """[start, stop) of blocks of ``step`` entries."""
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def cut_rows(case: Case) -> Callable[[Array], Batch]:
    """Gathers rows of the arrays in memory or mapped."""
    block = case.arrays()
    return lambda rows: to_tensors(case, take(block, rows))


def collate(case: Case, samples: Sequence[tuple[Any, ...]]) -> Batch:
    """A batch of samples (particles or features, further parts, label) that come one by one."""
    first, *parts = zip(*samples, strict=True)
    head: Array | Jagged = (
        Jagged(np.concatenate(first), np.concatenate([[0], np.cumsum([len(item) for item in first])]))
        if case.data == "w2"
        else np.stack(first)
    )
    return to_tensors(case, (head, *(np.asarray(part) for part in parts)))


def samples_of(case: Case) -> Iterator[tuple[Any, ...]]:
    """Each entry alone, for formats that are written so: (features, label), (particles, jet, label) ..."""
    block = case.arrays()
    for start, stop in spans(len(block[-1]), 1_000):
        entries = cut(block, start, stop)
        columns = [
            np.split(part.values, part.offsets[1:-1]) if isinstance(part, Jagged) else np.array(part)
            for part in entries
        ]
        yield from zip(*columns, strict=True)
