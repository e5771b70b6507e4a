"""Batches cut and put together, whatever of flat, padded and list-like arrays they hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from storagering.loaders.batches import BatchArrays, Jagged
from storagering.loaders.buffers import BufferPool
from storagering.loaders.feed import Group
from storagering.types import Array


def cut_batch(batch: BatchArrays, groups: Sequence[Group], jagged: Jagged, start: int, stop: int) -> BatchArrays:
    """Entries ``start`` to ``stop`` of a batch, as views."""
    found: BatchArrays = {}
    for group in groups:
        if group.jagged and jagged != "padded":
            offsets = batch[f"{group.key}_offsets"]
            found[group.key] = batch[group.key][offsets[start] : offsets[stop]]
            found[f"{group.key}_offsets"] = offsets[start : stop + 1] - offsets[start]
            continue
        for key in (group.key, f"{group.key}_mask")[: 1 + group.jagged]:
            found[key] = batch[key][start:stop]
    return found


def join_batches(
    parts: Sequence[BatchArrays], groups: Sequence[Group], jagged: Jagged, pool: BufferPool
) -> BatchArrays:
    """The entries of all parts, one after the other; padded to the longest of them."""
    if len(parts) == 1:
        return parts[0]
    joined: BatchArrays = {}
    for group in groups:
        if group.jagged and jagged != "padded":
            counts = np.concatenate([np.diff(part[f"{group.key}_offsets"]) for part in parts])
            joined[group.key] = _join([part[group.key] for part in parts], pool)
            joined[f"{group.key}_offsets"] = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
            continue
        for key in (group.key, f"{group.key}_mask")[: 1 + group.jagged]:
            arrays = [part[key] for part in parts]
            joined[key] = _pad_and_join(arrays, pool) if group.jagged else _join(arrays, pool)
    return joined


def _join(arrays: Sequence[Array], pool: BufferPool) -> Array:
    first = arrays[0]
    return np.concatenate(arrays, out=pool.array((sum(map(len, arrays)), *first.shape[1:]), first.dtype))


def _pad_and_join(arrays: Sequence[Array], pool: BufferPool) -> Array:
    """Arrays (B, P, ...) of several P, with zeros where they are shorter than the longest."""
    width = max(array.shape[1] for array in arrays)
    joined = pool.array((sum(map(len, arrays)), width, *arrays[0].shape[2:]), arrays[0].dtype)
    at = 0
    for array in arrays:
        joined[at : at + len(array), : array.shape[1]] = array
        joined[at : at + len(array), array.shape[1] :] = 0
        at += len(array)
    return joined
