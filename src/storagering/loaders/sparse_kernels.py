"""Compiled: dense images of a batch out of what a sparse column keeps of them."""

from __future__ import annotations

import numpy as np

from storagering.loaders.kernels import compiled
from storagering.types import Array


def scatter_images(offsets: Array, places: Array, values: Array, rows: Array, out: Array) -> None:
    """Write the dense arrays of some entries of a sparse column, each zeroed first, without temporaries or the GIL.

    Values become the type of ``out``, or are copied bit for bit if they have it.

    Args:
        offsets: int64 (entries + 1), where each entry's values begin.
        places: uint16 or uint32 (values), below ``out.shape[1]``: `ChunkReader.read_column` has checked that.
        values: (values).
        rows: int64 (B), the entries wanted.
        out: (B, elements of an array), contiguous.

    Raises:
        IndexError: an entry that there is not.
    """
    if values.dtype == out.dtype:  # bits are moved, so that one kernel serves all types of a size
        bits = np.dtype(f"<u{out.dtype.itemsize}")
        values, out = values.view(bits), out.view(bits)
    _scatter(offsets, places, values, rows, out)


@compiled
def _scatter(offsets: Array, places: Array, values: Array, rows: Array, out: Array) -> None:
    for number in range(len(rows)):
        row = rows[number]
        if row < 0 or row >= len(offsets) - 1:
            raise IndexError("no such entry")
        image = out[number]
        image[:] = 0
        for at in range(offsets[row], offsets[row + 1]):
            image[places[at]] = values[at]
