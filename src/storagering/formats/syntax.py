"""Python's own parser, for text that is never run."""

from __future__ import annotations

import ast
import threading

_LOCK = threading.Lock()


def parse_python(text: str) -> ast.expr:
    """The syntax tree of one expression.

    One thread at a time: CPython 3.11 counts the depth of all threads' trees together, and fails with
    ``SystemError: AST constructor recursion depth mismatch`` (python/cpython#106905).

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`.
    """
    with _LOCK:
        return ast.parse(text, mode="eval").body
