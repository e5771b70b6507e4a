"""How a text table is laid out: its delimiter, comments and header, judged by its first lines."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_DELIMITERS = ("\t", ";", ",", "|")
_SAMPLE_ROWS = 200
#: So many of the rows must have the same number of fields; those that do not are then named as damaged.
_ALIKE = 0.8
#: What stands for a missing number.
MISSING = ("", "NA", "N/A", "n/a", "NULL", "null", "None", "#N/A", "#NA", "-", "--")
_NEUTRAL = frozenset(MISSING)

Rows = list[list[str]]


@dataclass(frozen=True)
class TextLayout:
    """What was found.

    Attributes:
        delimiter: one character; a space for any run of white space.
        names: of the columns; ``f0``, ``f1``, ... without a header.
        lines: how many come before the first row.
        comments: whether lines that begin with ``#`` are to be left out.
    """

    delimiter: str
    names: tuple[str, ...]
    lines: int
    comments: bool

    @property
    def is_spaced(self) -> bool:
        """Whether white space separates the fields, and there are no quotes."""
        return self.delimiter == " "


def find_layout(text: str, *, whole: bool) -> TextLayout | None:
    """The layout of a text table, None if it is none.

    Args:
        text: its beginning, without byte order mark.
        whole: whether this is all of it.
    """
    lines = io.StringIO(text).readlines()  # no other line ends than those that reading knows
    if not whole:
        lines = lines[:-1]
    first = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    comments = [line.lstrip("#").strip() for line in lines[:first] if line.startswith("#")]
    body = [line for line in lines[first:] if not (comments and line.startswith("#"))]
    found = _split(body, whole=whole)
    if found is None:
        return None
    delimiter, rows = found
    width = len(rows[0])
    if _is_header(rows):
        names, above = [name.strip() for name in rows[0]], first + _lines_of_first(body, delimiter)
    else:
        names, above = _names_in(comments, delimiter, width) or [f"f{n}" for n in range(width)], first
    return TextLayout(delimiter, tuple(names), above, bool(comments))


def _split(lines: Sequence[str], *, whole: bool) -> tuple[str, Rows] | None:
    """The delimiter that cuts the lines into equal rows, and these."""
    for delimiter in _DELIMITERS:
        rows = _rows(lines, delimiter)
        if not whole and len(rows) > 1:
            rows = rows[:-1]  # a quoted field may go on
        if _are_alike(rows) and len(rows[0]) > 1:
            return delimiter, rows
    rows = [line.split() for line in lines[:_SAMPLE_ROWS] if line.strip()]
    if _are_alike(rows) and len(rows[0]) > 1 and _some_numeric(rows):
        return " ", rows
    rows = [[line.strip()] for line in lines[:_SAMPLE_ROWS] if line.strip()]
    return (",", rows) if rows and _some_numeric(rows) else None


def _rows(lines: Sequence[str], delimiter: str) -> Rows:
    rows = []
    try:
        for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True):
            if row:
                rows.append(row)
            if len(rows) >= _SAMPLE_ROWS:
                break
    except csv.Error:
        return []
    return rows


def _are_alike(rows: Rows) -> bool:
    if not rows:
        return False
    width, count = Counter(map(len, rows)).most_common(1)[0]
    return len(rows[0]) == width and count >= _ALIKE * len(rows)


def _some_numeric(rows: Rows) -> bool:
    """Whether some column holds nothing but numbers below its first row."""
    below = rows[1:] or rows
    return any(all(n < len(row) and is_number(row[n]) for row in below) for n in range(len(rows[0])))


def _is_header(rows: Rows) -> bool:
    first, below = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    if first == ["", *map(str, range(len(first) - 1))]:  # numbered columns beside an index, as pandas writes them
        return bool(below) and all(row[0].strip() for row in below)
    if not any(is_number(field) for field in first):
        return any(field.strip() not in _NEUTRAL for field in first)
    return any(
        not is_number(field) and field.strip() not in _NEUTRAL and all(is_number(row[n]) for row in below)
        for n, field in enumerate(first)
    ) and bool(below)


def _lines_of_first(lines: Sequence[str], delimiter: str) -> int:
    """How many lines the first row takes, blank ones before it included."""
    if delimiter == " ":
        return next(n for n, line in enumerate(lines) if line.strip()) + 1
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    next(row for row in reader if row)
    return reader.line_num


def _names_in(comments: Sequence[str], delimiter: str, width: int) -> list[str] | None:
    """Names in the last comment before the rows, as `numpy.savetxt` writes them."""
    for separator in (delimiter, None, ","):
        names = [n.strip() for n in comments[-1].split(None if separator == " " else separator)] if comments else []
        if len(names) == width and all(names):
            return names
    return None


def is_number(text: str) -> bool:
    """Whether a field is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
