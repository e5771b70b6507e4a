"""Which entries of a dataset take part in a training, whatever the epoch: those of a split and of a selection."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise

import numpy as np

from storagering.cache.dataset import Dataset
from storagering.cache.entry_keys import ENTRY_ID, split_ids
from storagering.cache.zones import judge_chunks, parse_selection
from storagering.formats.expressions import Expression, evaluate_mask
from storagering.loaders.plan import in_split, in_split_of
from storagering.loaders.scan import Columns, scan
from storagering.loaders.supply import ChunkSupply
from storagering.types import Array, Chunk, Manifest

Split = tuple[float, float]
_NONE = np.zeros(0, np.uint8)


class Taking:
    """All entries, or those of a split of them by their numbers; see `select` for what takes a look at the data.

    Args:
        bits: of chunks that were looked at, by where they start: one bit for each entry, or no bytes if none of them
            takes part.
    """

    def __init__(self, split: Split | None = None, bits: dict[int, Array] | None = None) -> None:
        self._split, self._bits = split, bits

    def rows(self, chunk: Chunk) -> Array | None:
        """The chunk's entries that take part, in order; None for all."""
        bits = None if self._bits is None else self._bits.get(chunk.start)
        if bits is not None:
            return np.flatnonzero(np.unpackbits(bits, count=chunk.num_entries if len(bits) else 0))
        return None if self._split is None else np.flatnonzero(in_split(chunk.start, chunk.stop, self._split))

    def count(self, supply: ChunkSupply) -> Sequence[int]:
        """How many entries of each unit take part."""
        if self._bits is not None:
            return [sum(self._count_of(chunk) for chunk in supply.chunks(unit)) for unit in range(len(supply.entries))]
        if self._split is None:
            return supply.entries
        bounds = pairwise(accumulate(supply.entries, initial=0))
        return [int(in_split(start, stop, self._split).sum()) for start, stop in bounds]

    def _count_of(self, chunk: Chunk) -> int:
        bits = (self._bits or {}).get(chunk.start)
        if bits is not None:
            return int(np.unpackbits(bits).sum())
        return chunk.num_entries if self._split is None else int(in_split(chunk.start, chunk.stop, self._split).sum())


def select(dataset: Dataset, supply: ChunkSupply, split: Split | None, where: str | None, threads: int) -> Taking:
    """The entries of a split for which a selection is true.

    Chunks of which statistics or bitmap indexes prove that the selection keeps all or nothing are not read; of the
    others only the columns of the expression are. A split of a mixed dataset goes by the numbers that its entries had
    before, which its column ``entry_id`` tells: so it holds the entries that it would hold had they not been mixed.

    Raises:
        SpecError: the selection is wrong.
        CorruptDataError: a chunk, or the table of statistics, is damaged.
    """
    manifest = dataset.manifest
    by_id = split is not None and manifest.spec.mix is not None
    if where is None and not by_id:
        return Taking(split)
    expression = None if where is None else parse_selection(where, manifest.schema)
    verdicts = [True] * len(manifest.chunks) if expression is None else judge_chunks(dataset, expression)
    needs = (expression.names or manifest.schema.names[:1]) if expression is not None else ()
    bits = {chunk.start: _NONE for chunk, holds in zip(manifest.chunks, verdicts, strict=True) if holds is False}
    wanted: dict[tuple[str, ...], list[Chunk]] = {}
    for chunk, holds in zip(manifest.chunks, verdicts, strict=True):
        names = tuple(dict.fromkeys((*(needs if holds is None else ()), *((ENTRY_ID,) * by_id))))
        if names and holds is not False:
            wanted.setdefault(names, []).append(chunk)
    for names, chunks in wanted.items():
        own = expression if names != (ENTRY_ID,) else None
        look = partial(_look, manifest, split, own)
        bits |= zip([chunk.start for chunk in chunks], scan(supply, names, chunks, threads, look), strict=True)
    return Taking(split, bits)


def _look(
    manifest: Manifest, split: Split | None, expression: Expression | None, chunk: Chunk, columns: Columns
) -> Array:
    """One bit for each entry of a chunk: whether it takes part; no bytes if none does."""
    mask = np.ones(chunk.num_entries, np.bool_) if expression is None else evaluate_mask(expression, columns)
    if split is not None and ENTRY_ID in columns:
        mask = mask & in_split_of(_numbers_before(manifest, np.asarray(columns[ENTRY_ID])), split)
    elif split is not None:
        mask = mask & in_split(chunk.start, chunk.stop, split)
    return np.packbits(mask) if mask.any() else _NONE


def _numbers_before(manifest: Manifest, ids: Array) -> Array:
    """The numbers that entries of a mixed dataset would have had, had they not been mixed."""
    starts = np.array(list(accumulate((source.entries for source in manifest.sources), initial=0)), np.uint64)
    sources, entries = split_ids(ids)
    numbers: Array = starts[sources] + entries.astype(np.uint64)
    return numbers
