"""Batches out of windows: views of them, or arrays made from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from storagering.loaders.buffers import BufferPool
from storagering.loaders.feed import Group
from storagering.loaders.kernels import pad_lists, sort_lists
from storagering.loaders.sparse_kernels import Images
from storagering.loaders.windows import Rows, Window
from storagering.types import Array

Jagged = Literal["flat", "padded", "nested"]
BatchArrays = dict[str, Array]


class BatchMaker:
    """Makes the batches of windows; safe to use from several threads.

    A batch has per group ``key``; padded also ``key_mask``, flat and nested also ``key_offsets``. Shapes, for B entries
    and F columns of a stack: flat groups (B, F) or (B, ...); padded (B, P, F) with mask (B, P), P = ``pad_to`` or the
    longest entry of the batch; flat and nested (items, F) with offsets (B + 1).

    Args:
        lead: per group the number of the column by which longer entries are cut, highest first; None keeps the order.
        masked: whether batches tell with ``mask`` (B) which of their rows are entries.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        jagged: Jagged,
        pad_to: int | None,
        lead: Sequence[int | None],
        pool: BufferPool,
        *,
        masked: bool,
    ) -> None:
        self._groups, self._jagged, self._pad_to, self._lead = groups, jagged, pad_to, lead
        self._pool, self._masked = pool, masked
        #: Whether batches are no more than views, for which no thread is worth while.
        self.is_cheap = not any(group.sparse or (group.jagged and jagged == "padded") for group in groups)

    def make(self, window: Window, number: int) -> BatchArrays:
        """A batch of a window."""
        start, stop = window.bounds[number : number + 2]
        batch: BatchArrays = {}
        for position, (group, rows) in enumerate(zip(self._groups, window.rows, strict=True)):
            if rows.images is not None:
                batch[group.key] = self._densify(group, rows.images, rows.values[start:stop])
            elif rows.offsets is None:
                batch[group.key] = rows.values[start:stop]
            else:
                self._add_lists(batch, group, rows, self._lead[position], start, stop)
        if self._masked:
            batch["mask"] = np.arange(start, stop) < window.bounds[-1] - window.padding
        return batch

    def _densify(self, group: Group, images: Images, rows: Array) -> Array:
        dense = self._pool.array((len(rows), *group.row_shape), group.dtype)
        images.scatter(rows, dense.reshape(len(rows), math.prod(group.row_shape)))
        return dense

    def _add_lists(self, batch: BatchArrays, group: Group, rows: Rows, lead: int | None, start: int, stop: int) -> None:
        assert rows.offsets is not None  # noqa: S101  (jagged groups have them)
        first, last = rows.offsets[start], rows.offsets[stop]
        items, offsets = rows.values[first:last], rows.offsets[start : stop + 1] - first
        if self._jagged != "padded":
            batch[group.key], batch[f"{group.key}_offsets"] = items, offsets
            return
        width = self._pad_to if self._pad_to is not None else int(np.diff(offsets).max(initial=0))
        matrix = items.reshape(len(items), math.prod(group.row_shape))
        if lead is not None:
            sort_lists(matrix, offsets, lead, width)
        padded = self._pool.array((stop - start, width, *group.row_shape), group.dtype)  # (B, P, ...)
        mask = self._pool.array((stop - start, width), np.dtype(np.bool_))
        pad_lists(matrix, offsets, padded.reshape(stop - start, width, matrix.shape[1]), mask)
        batch[group.key], batch[f"{group.key}_mask"] = padded, mask
