"""Entries from anywhere in a dataset, for an exact shuffle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from storagering.loaders.buffers import BufferPool
from storagering.loaders.feed import Group
from storagering.loaders.kernels import take_lists, take_rows
from storagering.loaders.windows import Rows, Window, as_matrix, make_lists
from storagering.types import Array


class RandomRows(Protocol):
    """Any entries of those that take part, in any order; safe to use from several threads."""

    def take(self, numbers: Array) -> Window:
        """A window of one batch of these entries; -1 is padding."""


class Table:
    """All entries that take part, decoded in memory."""

    def __init__(self, groups: Sequence[Group], everything: Window, pool: BufferPool) -> None:
        self._groups, self._everything, self._pool = groups, everything, pool

    def take(self, numbers: Array) -> Window:
        """See `RandomRows.take`."""
        rows = tuple(
            self._take(group, whole, numbers) for group, whole in zip(self._groups, self._everything.rows, strict=True)
        )
        return Window(rows, (0, len(numbers)), int((numbers < 0).sum()))

    def _take(self, group: Group, whole: Rows, numbers: Array) -> Rows:
        source = as_matrix(whole.values)
        if whole.offsets is None:
            out = self._pool.array((len(numbers), *group.row_shape), group.dtype)
            take_rows(source, numbers, as_matrix(out))
            return Rows(out)
        counts = np.where(numbers >= 0, whole.offsets[numbers + 1] - whole.offsets[numbers], 0)
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        taken = make_lists(group, ends, self._pool)
        take_lists(source, whole.offsets, numbers, ends, as_matrix(taken.values))
        if whole.places is not None and taken.places is not None:
            take_lists(as_matrix(whole.places), whole.offsets, numbers, ends, as_matrix(taken.places))
        return taken
