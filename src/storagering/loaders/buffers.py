"""Memory that is used again: fresh pages cost more than the decoding that fills them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from storagering.types import Array

_SLACK = 1.1
Buffer = npt.NDArray[np.uint8]


class BufferPool:
    """Byte buffers that are lent and given back; safe to use from several threads."""

    def __init__(self) -> None:
        self._free: list[Buffer] = []
        self._lock = threading.Lock()

    def lend(self, nbytes: int) -> Buffer:
        """A buffer of at least that size, with whatever it held before."""
        with self._lock:
            fitting = [n for n, buffer in enumerate(self._free) if nbytes <= buffer.nbytes <= 4 * nbytes + (1 << 20)]
            if fitting:
                return self._free.pop(min(fitting, key=lambda n: self._free[n].nbytes))
            if self._free and self._free[0].nbytes < nbytes:
                self._free.pop(0)  # outgrown
        return np.empty(int(nbytes * _SLACK), np.uint8)

    def give_back(self, buffer: Buffer) -> None:
        """The buffer may be lent again; nothing may refer to it any more."""
        with self._lock:
            self._free.append(buffer)

    @contextmanager
    def borrowed(self, nbytes: int) -> Iterator[Buffer]:
        """A buffer for the length of a ``with`` block."""
        buffer = self.lend(nbytes)
        try:
            yield buffer
        finally:
            self.give_back(buffer)


def shaped(buffer: Buffer, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """The beginning of a buffer, seen as an array."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return buffer[:nbytes].view(dtype).reshape(shape)
