"""How the verbs talk: results on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_LEAST_TEXT = 16
_GAP = 2
# Names and titles come out of files: they must not steer the terminal.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def say(message: str) -> None:
    """A sentence for the user, on stderr."""
    print(clean(message), file=sys.stderr, flush=True)


def clean(text: str) -> str:
    """The text with control characters written out."""
    return text.translate(_CONTROL)


def show_json(value: Any) -> None:
    """A result as JSON on stdout; NaN and infinities become null."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())


def show_facts(facts: Mapping[str, str]) -> None:
    """A result as lines of name and value on stdout."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        print(f"{name:{width}}  {clean(value)}")


def show_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[bool], *, err: bool = False
) -> None:
    """A table that is never cut: text is folded, and what is too wide for a terminal is shown as records.

    Args:
        numeric: for each column, whether to align it to the right and never to break it.
        err: write to stderr.
    """
    from rich.console import Console

    headers, *rows = [[clean(str(cell)) for cell in row] for row in (headers, *rows)]
    stream = sys.stderr if err else sys.stdout
    # A file or pipe has no width: there every row stays on its line.
    width = None if stream.isatty() else 1 << 14
    console = Console(file=stream, width=width, highlight=False, markup=False, emoji=False)
    needed = _needed_widths(headers, rows, numeric)
    if sum(needed) + _GAP * len(needed) > console.width:
        _print_records(console, headers, rows)
    else:
        _print_table(console, headers, rows, numeric, needed)


def _needed_widths(headers: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> list[int]:
    """The width below which each column would be spoilt."""
    longest = [
        max(len(line) for cell in cells for line in (cell.splitlines() or [""]))
        for cells in zip(headers, *rows, strict=True)
    ]
    return [n if number else min(n, _LEAST_TEXT) for n, number in zip(longest, numeric, strict=True)]


def _print_table(
    console: Any, headers: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool], needed: Sequence[int]
) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for header, number, width in zip(headers, numeric, needed, strict=True):
        table.add_column(
            Text(header), justify="right" if number else "left", no_wrap=number, overflow="fold", min_width=width
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), file=console.file)


def _print_records(console: Any, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    width = max(len(header) for header in headers)
    for number, row in enumerate(rows, 1):
        print(f"-- {number} --", file=console.file)
        for header, cell in zip(headers, row, strict=True):
            print(f"{header:{width}}  {cell}", file=console.file)


def format_bytes(nbytes: float) -> str:
    """A size for people: ``4.1 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def format_number(value: float | None) -> str:
    """A statistic for people, six digits; '' if there is none."""
    return "" if value is None else f"{value:.6g}"
