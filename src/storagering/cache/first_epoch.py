"""The order of an epoch that runs while its dataset is made, and the record of it that stays with the dataset.

Such an epoch counts in tasks of the build: how many entries each has is known before anything is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from storagering.cache.messages import Task
from storagering.cache.unfinished import FirstEpoch, seal, unseal
from storagering.errors import ChecksumError, NotFoundError
from storagering.files import read_file, write_new
from storagering.types import sha256_hex

FIRST_EPOCH_NAME = "first-epoch.json"
#: Sources among whose tasks the order is drawn, and that a worker therefore keeps open: opening a remote one can
#: take as long as a task, and one that is fetched whole is on the disk until its last task is done.
MIXED_SOURCES = 4
_LIMIT_BYTES = 1 << 30


@dataclass(frozen=True)
class _Record:
    dataset: str
    first_epoch: FirstEpoch


def plan_first_epoch(
    tasks: Sequence[Task], seed: int | None, chunk_entries: int, before: FirstEpoch | None
) -> FirstEpoch:
    """The first epoch over those tasks, which leave out no entry.

    Args:
        chunk_entries: expected of one chunk.
        seed: of the order; None for that of the dataset.
        before: what an interrupted build planned: its order is kept if it is of the same tasks, as somebody may
            have read a part of the epoch.
    """
    entries = tuple(sum(piece.stop - piece.start for piece in task.pieces) for task in tasks)
    task_chunks = max(1.0, round(sum(entries) / (len(tasks) * chunk_entries), 2))
    orders = [before.order] if before is not None else []
    orders.append(tuple(range(len(tasks))) if seed is None else _shuffled(tasks, seed))
    planned = [_first_epoch(tasks, entries, order, task_chunks) for order in orders]
    return planned[0] if planned[0] == before else planned[-1]


def _first_epoch(
    tasks: Sequence[Task], entries: tuple[int, ...], order: tuple[int, ...], task_chunks: float
) -> FirstEpoch:
    what = [task.key for task in tasks], entries, order, task_chunks
    return FirstEpoch(entries, order, task_chunks, sha256_hex(msgspec.json.encode(what)))


def _shuffled(tasks: Sequence[Task], seed: int) -> tuple[int, ...]:
    """A permutation; of the tasks of some sources after the other, where there are many sources.

    With few sources it is the one that `storagering.loaders.plan` draws for epoch 0.
    """
    sources = list(dict.fromkeys(task.sources[0] for task in tasks))
    parts = -(-len(sources) // MIXED_SOURCES)
    rank = dict(zip(sources, _generator(seed, 1).permutation(len(sources)).tolist(), strict=True))
    cuts = np.linspace(0, len(sources), parts + 1).astype(int).tolist()
    draw = _generator(seed, 0)
    order: list[int] = []
    for low, high in pairwise(cuts):
        part = [n for n, task in enumerate(tasks) if low <= rank[task.sources[0]] < high]
        order += [part[n] for n in draw.permutation(len(part)).tolist()]
    return tuple(order)


def _generator(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0, 0, number])))


def write_first_epoch(folder: Path, digest: str, first_epoch: FirstEpoch) -> None:
    """Put the record into the folder of the dataset with that digest, before it is published."""
    write_new(folder / FIRST_EPOCH_NAME, seal(msgspec.json.encode(_Record(digest, first_epoch))))


def read_first_epoch(folder: Path, digest: str) -> FirstEpoch | None:
    """The record of a published dataset, None if it has none or it is of another version.

    Raises:
        ChecksumError: it is damaged.
    """
    path = folder / FIRST_EPOCH_NAME
    try:
        record = msgspec.json.decode(unseal(read_file(path, _LIMIT_BYTES)), type=_Record)
    except NotFoundError:
        return None
    except (ValueError, msgspec.MsgspecError) as error:
        raise ChecksumError(
            f"{path} is damaged: the order of the first epoch is lost; 'storagering remove {folder.name}' and "
            "convert again, or open the dataset by its name to read it in another order"
        ) from error
    return record.first_epoch if record.dataset == digest else None
