"""Tables of the report: aligned, and sortable where the page's script runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress

from storagering.catalog.report.html import Child, Html, element


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell with a number.

    Attributes:
        value: what it is sorted by.
    """

    shown: Child
    value: float | None


@dataclass(frozen=True, slots=True)
class Heading:
    """The head of a column.

    Attributes:
        number: whether it holds numbers: to the right.
        hint: what it means.
    """

    text: str
    number: bool = False
    hint: str | None = None


def draw_table(
    headings: Sequence[Heading], rows: Iterable[Sequence[Child | Cell]], *, style: str = "", sortable: bool = False
) -> Html:
    """A table in a box that scrolls where it is wider than the page; columns that say nothing are left out."""
    cells = list(rows)
    telling = [any(_shown(row[n]) for row in cells) for n in range(len(headings))]
    head = [
        element("th", h.text, class_="n" if h.number else None, title=h.hint, scope="col")
        for h in compress(headings, telling)
    ]
    body = [element("tr", [_cell(cell) for cell in compress(row, telling)]) for row in cells]
    names = " ".join(filter(None, (style, "sortable" if sortable else "")))
    table = element("table", element("thead", element("tr", head)), element("tbody", body), class_=names or None)
    return element("div", table, class_="scroll")


def _shown(cell: Child | Cell) -> Child:
    return cell.shown if isinstance(cell, Cell) else cell


def _cell(cell: Child | Cell) -> Html:
    if not isinstance(cell, Cell):
        return element("td", cell)
    return element("td", cell.shown, data_v="" if cell.value is None else f"{cell.value:.10g}")
