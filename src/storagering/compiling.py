"""Compiling of inner loops to machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """The function as machine code, which needs no lock of the interpreter's."""
    import numba

    made: _Function = numba.njit(nogil=True, cache=True)(function)
    return made
