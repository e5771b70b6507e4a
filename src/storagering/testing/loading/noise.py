"""How well an epoch was mixed, by its order alone."""

from __future__ import annotations

import numpy as np

from storagering.testing.loading.case import Array


def class_noise(labels: Array, sizes: Array) -> float | None:
    """Spread of the last class's share from batch to batch, over that of the hypergeometric distribution.

    1 is a random order; sqrt(batch size) means batches of one class. The incomplete last batch is left out.

    Args:
        labels: (N,) in the order of delivery.
        sizes: entries of each batch, N in all.

    Returns:
        None where there is one class, or less than two full batches.
    """
    batch = int(sizes.max())
    full = sizes == batch
    total, mean = len(labels), float((labels == labels.max()).mean())
    if full.sum() < 2 or not 0 < mean < 1:
        return None
    counts = np.add.reduceat((labels == labels.max()).astype(np.int64), np.cumsum(sizes) - sizes)[full]
    expected = mean * (1 - mean) / batch * (total - batch) / (total - 1)
    return float(np.sqrt(np.mean((counts / batch - mean) ** 2) / expected))


def spread(places: Array, sizes: Array) -> float:
    """Mean over batches of the spread of the samples' places in the source: 1 is a random order, 0 the stored one."""
    starts = np.cumsum(sizes) - sizes
    kept = sizes > 1
    mean = np.add.reduceat(places, starts) / sizes
    variance = np.maximum(np.add.reduceat(places.astype(float) ** 2, starts) / sizes - mean**2, 0)[kept]
    correction = sizes[kept] / (sizes[kept] - 1)
    return float(np.mean(np.sqrt(variance * correction)) / (len(places) / np.sqrt(12)))


def find_places(source: Array, keys: Array) -> Array:
    """Where each key is in the source: (N,), -1 where it is not."""
    order = np.argsort(source)
    found = np.minimum(np.searchsorted(source, keys, sorter=order), len(order) - 1)
    return np.where(source[order[found]] == keys, order[found], -1)
