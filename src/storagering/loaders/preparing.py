"""What a loader finds out before its first epoch: which entries take part, their weights, how values are scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from storagering.cache.dataset import Dataset
from storagering.errors import SchemaError
from storagering.loaders.adjusting import WEIGHT, WEIGHT_GROUP, Adjusting
from storagering.loaders.feed import Group, make_groups
from storagering.loaders.options import Options
from storagering.loaders.resampling import check_weights
from storagering.loaders.scaling import Scaling, find_scaling
from storagering.loaders.scan import Columns, scan
from storagering.loaders.supply import ChunkSupply
from storagering.loaders.taking import Taking, select
from storagering.loaders.weighing import find_weigher
from storagering.loaders.weights import Weigher, Weights
from storagering.types import Array, Chunk


@dataclass(frozen=True)
class Prepared:
    """What is read, and what is made of it.

    Attributes:
        groups: that are read.
        delivered: that batches have.
        scaling: by the key of the group.
        entry_weights: (entries) by which an exact shuffle draws, if it does.
    """

    groups: tuple[Group, ...]
    delivered: tuple[Group, ...]
    taking: Taking
    scaling: dict[str, Scaling]
    adjusting: Adjusting
    entry_weights: Array | None = None


def prepare_unseen(asked: tuple[Group, ...], options: Options) -> Prepared:
    """For a dataset that is still being made, of options that do not look at it."""
    adjusting = Adjusting(len(asked), (), [None] * len(asked), None, None)
    return Prepared(asked, asked, Taking(options.split), {}, adjusting)


def prepare(
    dataset: Dataset, supply: ChunkSupply, asked: tuple[Group, ...], options: Options, threads: int
) -> Prepared:
    """Look at a dataset that is there.

    Raises:
        SpecError: a selection, weights or scaling that cannot be had.
        SchemaError: a column that these need is missing.
        CorruptDataError: a chunk is damaged.
    """
    taking = select(dataset, supply, options.split, options.where, threads)
    scaling = find_scaling(asked, options.standardise, dataset.manifest)
    found = _Weighers(dataset, supply, taking, threads)
    drawn, weigher = found.find(options.resample), found.find(options.weights)
    names = tuple(dict.fromkeys(name for w in (drawn, weigher) if w is not None for name in w.names))
    further = make_groups(supply.schema, {f"{WEIGHT} by {name}": name for name in names})
    if weigher is not None and WEIGHT in [group.key for group in asked]:
        raise SchemaError(f"columns: the key {WEIGHT!r} is that of weights=...; ask for the column under another one")
    by_entry = drawn if options.shuffle == "exact" else None
    return Prepared(
        groups=(*asked, *further),
        delivered=(*asked, *((WEIGHT_GROUP,) if weigher is not None else ())),
        taking=taking,
        scaling=scaling,
        adjusting=Adjusting(len(asked), names, [scaling.get(group.key) for group in asked], drawn, weigher),
        entry_weights=None if by_entry is None else found.weigh_all(by_entry),
    )


@dataclass(frozen=True)
class _Weighers:
    """Finds what gives the entries of a dataset that take part their weights."""

    dataset: Dataset
    supply: ChunkSupply
    taking: Taking
    threads: int

    def find(self, weights: Weights | None) -> Weigher | None:
        if weights is None:
            return None
        return find_weigher(weights, self.dataset.manifest.spec.classes, self.supply, self.taking, self.threads)

    def weigh_all(self, weigher: Weigher) -> Array:
        """The weights of all entries that take part."""

        def visit(chunk: Chunk, columns: Columns) -> Array:
            own = {name: np.asarray(columns[name]) for name in weigher.names}
            weights = weigher.weigh(own, chunk.num_entries)
            rows = self.taking.rows(chunk)
            return weights if rows is None else weights[rows]

        chunks: Sequence[Chunk] = self.dataset.manifest.chunks
        parts = scan(self.supply, weigher.names, chunks, self.threads, visit)
        return check_weights(np.concatenate([np.zeros(0), *parts]))
