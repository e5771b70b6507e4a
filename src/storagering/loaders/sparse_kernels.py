"""Compiled: dense images of a batch out of what sparse columns keep of them."""

from __future__ import annotations

import numpy as np

from storagering.compiling import compiled
from storagering.loaders.kernels import load
from storagering.types import Array

#: Of which chunk an image is, counted from 1, and its number there; (0, 0) is one of zeros.
IMAGE_ROW = 2


@compiled
def number_images(chunk: int, start: int, targets: Array, rows: Array) -> None:
    """Note for the images of a chunk from ``start`` on where they lie, in ``rows[targets[n]]``; nowhere if that is < 0.

    Args:
        rows: int32 (m, IMAGE_ROW).
    """
    for number in range(len(targets)):
        if targets[number] >= 0:
            rows[targets[number], 0] = chunk
            rows[targets[number], 1] = start + number


class Images:
    """A sparse column's arrays of several chunks, as they were decoded: none of them is copied.

    Args:
        count: of chunks.
        places: their type, uint16 or uint32.
        values: theirs.
    """

    def __init__(self, count: int, places: np.dtype[np.generic], values: np.dtype[np.generic]) -> None:
        self._parts: list[tuple[Array, ...]] = [()] * count
        self._where = np.zeros((count, 4), np.uint64)
        self._places, self._values = np.empty(0, places), np.empty(0, values)

    def put(self, chunk: int, offsets: Array, places: Array, values: Array) -> None:
        """Add what was decoded of the chunk of that number, from 0 on.

        Args:
            offsets: int64 (entries + 1), where each entry's values begin.
            places: (values), below the elements of an image: `ChunkReader.read_column` has checked that.
        """
        self._parts[chunk] = offsets, places, values
        self._where[chunk] = [*(array.ctypes.data for array in self._parts[chunk]), len(offsets) - 1]

    def scatter(self, rows: Array, out: Array) -> None:
        """Write dense images, each zeroed first, without temporaries or the interpreter's lock.

        Values become the type of ``out``, or are copied bit for bit if they have it.

        Args:
            rows: int32 (B, IMAGE_ROW), the images wanted.
            out: (B, elements of an image), contiguous.

        Raises:
            IndexError: an image that there is not.
        """
        values = self._values
        if values.dtype == out.dtype:  # bits are moved, so that one kernel serves all types of a size
            bits = np.dtype(f"<u{out.dtype.itemsize}")
            values, out = values.view(bits), out.view(bits)
        _scatter(self._where, self._places, values, rows, out)


@compiled
def _scatter(where: Array, places: Array, values: Array, rows: Array, out: Array) -> None:
    for number in range(len(rows)):
        image = out[number]
        image[:] = 0
        chunk, row = rows[number, 0] - 1, rows[number, 1]
        if chunk < 0:
            continue
        if chunk >= len(where) or row < 0 or np.uint64(row) >= where[chunk, 3]:
            raise IndexError("no such entry")
        offsets = where[chunk, 0] + np.uint64(8 * row)
        first, last = load(offsets, where), load(offsets + np.uint64(8), where)
        for at in range(first, last):
            place = load(where[chunk, 1] + at * np.uint64(places.itemsize), places)
            image[place] = load(where[chunk, 2] + at * np.uint64(values.itemsize), values)
