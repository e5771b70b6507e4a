from __future__ import annotations

import io
import json
import re
import sys

import pytest

from storagering.cli.console import clean, format_bytes, format_number, show_json, show_table

ROWS = [("a" * 30, 12345678901234567890, "x"), ("b", 1, "some words that may be folded over lines")]
HEADERS = ("name", "number", "text")
NUMERIC = (False, True, False)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, width: int | None) -> list[str]:
    stream = io.StringIO() if width is None else Terminal()
    monkeypatch.setenv("COLUMNS", str(width or 10))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", stream)
    show_table(HEADERS, [[str(cell) for cell in row] for row in ROWS], NUMERIC)
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()


def test_a_row_is_a_line_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, None)
    assert lines == [
        "name                                          number  text",
        f"{'a' * 30}  12345678901234567890  x",
        f"b{'':29}                     1  some words that may be folded over lines",
    ]


def test_text_is_folded_on_a_terminal_but_numbers_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, 70)
    assert all(len(line) <= 70 for line in lines)
    assert len(lines) > 3
    assert "12345678901234567890" in "\n".join(lines)


def test_what_is_too_wide_for_the_terminal_is_shown_as_records(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, 40)
    assert lines[:4] == ["-- 1 --", f"name    {'a' * 30}", "number  12345678901234567890", "text    x"]
    assert len(lines) == 8


def test_names_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("a\x1b[31m",), [("\x07b\x9b",)], (False,))
    assert capsys.readouterr().out == "a\\x1b[31m\n\\x07b\\x9b\n"
    assert clean("tab\tand\nline") == "tab\tand\nline"


def test_brackets_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("[red]x",), [("[bold]y[/bold] :smile:",)], (False,))
    assert capsys.readouterr().out == "[red]x\n[bold]y[/bold] :smile:\n"


def test_a_table_without_rows_has_its_headers(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(("a", "b"), [], (False, True))
    assert capsys.readouterr().out.split() == ["a", "b"]


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"a": float("nan"), "b": [1.5, float("inf")]})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, None]}


@pytest.mark.parametrize(
    ("nbytes", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (4e13, "40.0 TB")]
)
def test_sizes_for_people(nbytes: float, text: str) -> None:
    assert format_bytes(nbytes) == text


def test_numbers_for_people() -> None:
    assert [format_number(x) for x in (None, 0.1, 123456789.0)] == ["", "0.1", "1.23457e+08"]
