from __future__ import annotations

import math

import pytest

from storagering.catalog.report.numbers import (
    bytes_text,
    count_text,
    duration_text,
    ratio_text,
    share_text,
    short_count,
    time_text,
    value_text,
)


def plain(text: str) -> str:
    return text.replace("\N{NARROW NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (9_996, "10.0 kB"), (123_456, "123 kB"), (999_600, "1.00 MB"),
     (4_130_000, "4.13 MB"), (5.5e13, "55.0 TB"), (2e21, "2000 EB")],
)  # fmt: skip
def test_bytes(nbytes: float, text: str) -> None:
    assert plain(bytes_text(nbytes)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0, "0"), (-3.14159, "−3.142"), (1234.5678, "1235"), (123456.7, "123457"), (0.001, "0.001"),
     (0.00012345, "1.23×10⁻⁴"), (-6.02e23, "−6.02×10²³"), (1e6, "1.00×10⁶"), (math.inf, "inf"),
     (1e-310, "1.00×10⁻³¹⁰")],
)  # fmt: skip
def test_values(value: float | None, text: str) -> None:
    assert value_text(value) == text


def test_counts_shares_ratios() -> None:
    assert plain(count_text(1234567)) == "1 234 567"
    assert [plain(short_count(n)) for n in (99_999, 100_000, 12_345_678)] == ["99 999", "100 k", "12.3 M"]
    assert [plain(share_text(n, 1000)) for n in (0, 0.5, 15, 20, 123, 1000)] == [
        "0 %", "< 0.1 %", "1.5 %", "2 %", "12 %", "100 %",
    ]  # fmt: skip
    assert plain(share_text(0, 0)) == "0 %"
    assert (ratio_text(261, 100), ratio_text(5, 0)) == ("2.61×", "–")


def test_times() -> None:
    assert (time_text(0), time_text(None)) == ("1970-01-01 00:00", "–")
    assert [plain(duration_text(s)) for s in (0, 42, 600, 5400, 10_000, 864_000)] == [
        "0 s", "42 s", "10 min", "90 min", "2.78 h", "10 d",
    ]  # fmt: skip
