"""Batches out of windows: one gather for each group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from storagering.loaders.feed import Group
from storagering.loaders.windows import Window
from storagering.types import Array

Jagged = Literal["flat", "padded", "nested"]
Piece = tuple[Window, Array]
"""A window and the numbers of its entries that the batch takes from it."""


def _take(values: Array, rows: Array) -> Array:
    """Rows of an array, without the GIL; ``clip`` because the rows are ours and a bounds check costs a copy."""
    return values.take(rows, axis=0, mode="clip")


def gather_batch(
    groups: Sequence[Group], pieces: Sequence[Piece], jagged: Jagged, pad_to: int | None
) -> dict[str, Array]:
    """One batch: per group ``key``; padded also ``key_mask``, flat and nested also ``key_offsets``.

    Shapes, for B entries and F columns of a stack: flat groups (B, F) or (B, ...); padded (B, P, F) with
    mask (B, P), P = ``pad_to`` or the longest entry of the batch; flat and nested (items, F) with
    offsets (B + 1).
    """
    batch: dict[str, Array] = {}
    for number, group in enumerate(groups):
        if not group.jagged:
            batch[group.key] = _joined([_take(w.values[number], rows) for w, rows in pieces])
            continue
        bounds = [_bounds(w.offsets[number], rows) for w, rows in pieces]
        if jagged == "padded":
            longest = max((int(c.max(initial=0)) for _, c in bounds), default=0)
            width = longest if pad_to is None else pad_to
            parts = [_pad(w.values[number], *b, width) for (w, _), b in zip(pieces, bounds, strict=True)]
            batch[group.key] = _joined([p for p, _ in parts])
            batch[f"{group.key}_mask"] = _joined([m for _, m in parts])
        else:
            batch[group.key] = _joined([_flat(w.values[number], *b) for (w, _), b in zip(pieces, bounds, strict=True)])
            counts = _joined([c for _, c in bounds])
            batch[f"{group.key}_offsets"] = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return batch


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _bounds(offsets: Array | None, rows: Array) -> tuple[Array, Array]:
    """Where the entries' items begin, and how many they are."""
    assert offsets is not None  # noqa: S101  (jagged groups have them)
    starts = offsets[rows]
    return starts, offsets[rows + 1] - starts


def _pad(values: Array, starts: Array, counts: Array, width: int) -> tuple[Array, Array]:
    """The first ``width`` items of each entry; the rest of a row points to the zeros behind the values."""
    item = np.arange(width)
    mask = item < counts[:, None]  # (B, P)
    index = np.where(mask, starts[:, None] + item, len(values) - 1)
    return _take(values, index.reshape(-1)).reshape(len(starts), width, *values.shape[1:]), mask


def _flat(values: Array, starts: Array, counts: Array) -> Array:
    """The items of all entries, one entry after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return _take(values, np.repeat(starts - (ends - counts), counts) + np.arange(total))
