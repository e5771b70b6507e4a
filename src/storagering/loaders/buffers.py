"""Memory that is used again: fresh pages cost more than the decoding that fills them."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from storagering.types import Array

_SLACK = 1.1
#: Free buffers that are kept; more come back only when a consumer has let go of many batches at once.
_KEPT = 8
Buffer = npt.NDArray[np.uint8]


class _Loan:
    """Memory in use. Every array made of it refers to this, so it lives for as long as anything does that can see it.

    It is no array itself: NumPy looks through these to the memory below.
    """

    def __init__(self, memory: Buffer) -> None:
        self.__array_interface__ = memory.__array_interface__


class BufferPool:
    """Byte buffers that are lent, and come back by themselves when nothing refers to them any more.

    Safe to use from several threads. A batch that is kept keeps its memory: nothing is overwritten under it.

    Args:
        allocate: makes the memory of a buffer, of that many bytes.
    """

    def __init__(self, allocate: Callable[[int], Buffer] | None = None) -> None:
        self._allocate = allocate or (lambda nbytes: np.empty(nbytes, np.uint8))
        self._free: list[Buffer] = []
        self._lock = threading.RLock()  # a buffer may come back while one is looked for: whenever memory is collected
        self._owner = os.getpid()

    def lend(self, nbytes: int) -> Buffer:
        """A buffer of at least that size, with whatever it held before."""
        with self._lock:
            memory = self._find(nbytes)
        if memory is None:
            memory = self._allocate(int(nbytes * _SLACK))
        loan = _Loan(memory)
        weakref.finalize(loan, self._give_back, memory).atexit = False
        return np.asarray(loan)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
        """An array in a buffer of its own, not filled."""
        return shaped(self.lend(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize), shape, dtype)

    def _find(self, nbytes: int) -> Buffer | None:
        fitting = [n for n, buffer in enumerate(self._free) if nbytes <= buffer.nbytes <= 4 * nbytes + (1 << 20)]
        if fitting:
            return self._free.pop(min(fitting, key=lambda n: self._free[n].nbytes))
        if len(self._free) >= _KEPT:
            self._free.pop(0)
        return None

    def _give_back(self, memory: Buffer) -> None:
        if self._owner == os.getpid():  # a lock that was held when a process was forked is never released in the child
            with self._lock:
                self._free.append(memory)
                del self._free[: -2 * _KEPT]


def shaped(buffer: Buffer, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    """The beginning of a buffer, seen as an array."""
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return buffer[:nbytes].view(dtype).reshape(shape)
