"""The second pass of a mixed build, as one worker does it: gather some piles, put them in order, write their chunks."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from storagering.cache.chunks import BuiltChunk, chunk_size_of, with_sketches, write_chunk
from storagering.cache.deals import read_piles
from storagering.cache.entry_keys import ENTRY_BITS, ENTRY_ID, mixing_keys, source_keys, split_ids
from storagering.cache.messages import BuildContext, Mixing, Share, Task
from storagering.cache.sketches import SketchSum
from storagering.errors import ChecksumError
from storagering.formats.batches import join_batches, take_batch
from storagering.types import Array, Batch


def mix_share(context: BuildContext, task: Task, report: Callable[[int, int], None]) -> tuple[BuiltChunk, ...]:
    """Write the chunks of a task's share into the staging folder: its entries in the order of their keys.

    Args:
        report: called with the entries and decoded bytes of each chunk.

    Raises:
        CorruptDataError: what was dealt has changed on the disk.
        CacheError: a chunk cannot be written.
    """
    assert context.mixing is not None  # noqa: S101  (it is what the share is of)
    assert task.share is not None  # noqa: S101  (whoever calls has looked)
    parts = list(_gather(context, context.mixing, task.share))
    entries = sum(map(len, parts))
    if entries != task.share.entries and task.share.part == (0, 1):
        raise ChecksumError(
            f"{context.staging}: of {task.share.entries:,} entries that were dealt to piles {task.share.piles} "
            f"{entries:,} are there; run the same command again"
        )
    if not parts:
        return ()
    batch = join_batches(context.schema, parts)
    del parts
    order = np.argsort(mixing_keys(batch.arrays[ENTRY_ID][0], _source_keys(context, context.mixing)), kind="stable")
    chunks = min(entries, max(1, round(chunk_size_of(batch) / context.spec.chunk_bytes)))
    cuts = np.linspace(0, entries, chunks + 1).astype(int).tolist()
    prefix, built = f"task-{task.key}-{secrets.token_hex(4)}", list[BuiltChunk]()
    sketches = SketchSum()
    for number, (start, stop) in enumerate(pairwise(cuts)):
        chunk = take_batch(batch, order[start:stop])
        made, own = write_chunk(chunk, (), context.spec, Path(context.staging), f"{prefix}-{number:04d}")
        built.append(made)
        sketches.add(own)
        report(stop - start, made.chunk.raw_bytes)
    return with_sketches(built, sketches)


def _gather(context: BuildContext, mixing: Mixing, share: Share) -> Iterator[Batch]:
    """What all files have dealt to the share, with the ids that the dataset has."""
    _, parts = share.part
    of_sources = _source_keys(context, mixing)
    for deal in mixing.deals:
        numbers = np.array(deal.sources, np.uint64) << np.uint64(ENTRY_BITS)
        for batch in read_piles(Path(context.staging), deal, mixing.bits, *share.piles, context.schema):
            sources, entries = split_ids(batch.arrays[ENTRY_ID][0])
            ids = numbers[sources] | entries.astype(np.uint64)
            found = Batch(batch.schema, batch.num_entries, {**batch.arrays, ENTRY_ID: (ids,)})
            if parts > 1:
                found = take_batch(found, _rows_of_part(mixing_keys(ids, of_sources), mixing.bits, share))
            if found.num_entries:
                yield found


def _rows_of_part(keys: Array, bits: int, share: Share) -> Array:
    """Which of a pile's entries belong to a part of it."""
    part, parts = share.part
    width, (pile, _) = 1 << (64 - bits), share.piles
    first, after = (pile * width + width * number // parts for number in (part, part + 1))
    return np.flatnonzero((keys >= np.uint64(first)) & (keys <= np.uint64(after - 1)))


def _source_keys(context: BuildContext, mixing: Mixing) -> Array:
    """By number in the manifest."""
    assert context.spec.mix is not None  # noqa: S101  (or else there is no mixing)
    keys = source_keys(context.spec.mix, [source.url for source in context.sources])
    return np.concatenate([np.zeros(mixing.first_source, np.uint64), keys])
