"""HTML built from elements: whatever is not HTML already is escaped, so that nothing from data is ever markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias, Union

_VOID = frozenset({"meta", "input", "br"})
# Control characters, which HTML cannot hold, are written out; so are halves of pairs, which UTF-8 cannot.
_WRITTEN_OUT = {
    code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"
} | {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}  # fmt: skip
_SPECIAL = re.compile("[&<>\"'\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class Html(str):
    """Text that is HTML already; made by `element`, `join` and `trusted` only."""

    __slots__ = ()


Child: TypeAlias = Union[str, int, Iterable["Child"], None]  # noqa: UP007  (of strings)


def element(tag: str, *children: Child, **attributes: str | int | float | None) -> Html:
    """An element; text among its children, and the values of its attributes, are escaped.

    Args:
        tag: fixed in the code, never from data; so are names of attributes.
        children: elements, text, numbers, iterables of these; None for nothing.
        attributes: ``class_`` is written ``class``, ``data_v`` is ``data-v``; one that is None is left out.
    """
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Html(f"<{tag}{shown}>" if tag in _VOID else f"<{tag}{shown}>{join(children)}</{tag}>")


def join(children: Child) -> Html:
    """Elements and text one after the other."""
    if isinstance(children, Html):
        return children
    if children is None:
        return Html("")
    if isinstance(children, str | int):
        return Html(_escape(str(children)))
    return Html("".join(map(join, children)))


def trusted(text: str) -> Html:
    """Text of our own files as it is; never for data."""
    return Html(text)


def _escape(text: str) -> str:
    return html.escape(text.translate(_WRITTEN_OUT)) if _SPECIAL.search(text) else text
