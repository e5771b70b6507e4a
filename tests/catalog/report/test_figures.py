from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.catalog.report.facts import ColumnFacts
from storagering.catalog.report.figures import draw_accesses, draw_distribution, draw_meter, draw_spark, draw_storage
from storagering.catalog.report.html import Html

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def column(
    histogram: tuple[tuple[float, float, int], ...] = (),
    quantiles: tuple[float, ...] = (),
    limits: tuple[float | None, float | None, float | None, float | None] = (0.0, 10.0, 4.0, 2.0),
) -> ColumnFacts:
    return ColumnFacts("x", "float64", "flat", "", "", None, 9, *limits, 0, 0, 0, quantiles, histogram)


def parse(svg: Html | None) -> ET.Element:
    assert svg is not None
    return ET.fromstring(svg)


def plain(node: ET.Element) -> str:
    return (node.text or "").replace("\N{NARROW NO-BREAK SPACE}", " ")


def heights(path: str) -> list[float]:
    """Of the steps of a histogram, above its base."""
    return [52 - float(y) for y in re.findall(r"V([\d.-]+)H", path)]


def test_bars_are_as_high_as_bins_are_full() -> None:
    svg = parse(draw_distribution(column(((0, 1, 10), (1, 2, 20), (2, 3, 0), (3, 4, 5)))))
    (bars,) = svg.findall("path[@class='bars']")
    assert heights(bars.attrib["d"]) == [24, 48, 0, 12]
    assert svg.attrib["aria-label"] == "4 bins from 0 to 4"
    assert svg.find("circle") is None


def test_what_lies_outside_has_bars_of_its_own() -> None:
    """A few numbers far away do not squeeze the rest."""
    svg = parse(draw_distribution(column(((-1e6, 0, 3), (0, 1, 10), (1, 2, 20), (2, 3, 10), (3, 1e9, 40)))))
    (bars,) = svg.findall("path[@class='bars']")
    assert heights(bars.attrib["d"]) == [12, 24, 12]
    assert "H100V" in bars.attrib["d"]
    assert len(svg.findall("path[@class='out']")) == 2
    assert svg.attrib["aria-label"] == "3 bins from 0 to 3, 3 below, 40 above"


def test_quantiles_are_below_the_histogram() -> None:
    svg = parse(draw_distribution(column(((0, 5, 1), (5, 10, 1)), (0.0, 1.0, 2.0, 5.0, 8.0, 9.0, 10.0))))
    thin, thick, circle = svg.find("path[@class='thin']"), svg.find("path[@class='thick']"), svg.find("circle")
    assert thin is not None
    assert thin.attrib["d"] == "M30 60H270"
    assert thick is not None
    assert thick.attrib["d"] == "M60 60H240"
    assert circle is not None
    assert circle.attrib["cx"] == "150"


def test_few_values_have_a_bar_each() -> None:
    svg = parse(draw_distribution(column(((-1, -1, 5), (0, 0, 10), (1, 1, 5)))))
    (bars,) = svg.findall("path[@class='bars']")
    assert [float(h) for h in re.findall(r"v-([\d.]+)", bars.attrib["d"])] == [24, 48, 24]
    assert svg.attrib["aria-label"] == "3 values from −1 to 1"


def test_without_a_histogram_the_range_is_drawn() -> None:
    svg = parse(draw_distribution(column()))
    thick = svg.find("path[@class='thick']")
    assert thick is not None
    assert thick.attrib["d"] == "M60 34H180"
    assert draw_distribution(column(limits=(None, None, None, None))) is None


@settings(max_examples=60, deadline=None)
@given(
    edges=st.lists(FINITE, min_size=2, max_size=9).map(sorted),
    counts=st.lists(st.integers(0, 2**60), min_size=8, max_size=8),
    quantiles=st.lists(FINITE, min_size=7, max_size=7).map(sorted),
    limits=st.tuples(FINITE, FINITE, FINITE, st.floats(allow_nan=True, allow_infinity=True)),
)
def test_any_numbers_make_a_drawing_that_stays_in_its_box(
    edges: list[float], counts: list[int], quantiles: list[float], limits: tuple[float, float, float, float]
) -> None:
    histogram = tuple((a, b, n) for a, b, n in zip(edges, edges[1:], counts, strict=False))
    low, high, mean, std = limits
    for one in (
        column(histogram, tuple(quantiles)),
        column(limits=(min(low, high), max(low, high), mean, None if math.isnan(std) else abs(std))),
    ):
        svg = parse(draw_distribution(one))
        for path in svg.iter("path"):
            places = [float(x) for x in re.findall(r"[MHV]\s?(-?[\d.]+(?:e[+-]?\d+)?)", path.attrib["d"])]
            assert all(-1 <= place <= 301 for place in places), path.attrib["d"]
            assert "nan" not in path.attrib["d"]


def test_accesses_are_stacked_by_tier() -> None:
    day = 86_400
    svg = parse(draw_accesses(((0, "disk", 60), (0, "ram", 40), (3 * day, "disk", 50)), day, ["disk", "ram"]))
    bars = svg.findall("rect")
    assert [bar.attrib["class"] for bar in bars] == ["t0", "t1", "t0"]
    first, second, third = (float(bar.attrib["height"]) for bar in bars)
    assert first == pytest.approx(1.5 * second, abs=0.1)
    assert third == pytest.approx(1.25 * second, abs=0.1)
    assert float(bars[1].attrib["y"]) + second == pytest.approx(float(bars[0].attrib["y"]), abs=0.11)
    titles = [plain(title) for title in svg.iter("title")]
    assert titles == ["1970-01-01: 60 B disk", "1970-01-01: 40 B ram", "1970-01-04: 50 B disk"]
    labels = [plain(text) for text in svg.findall("text")]
    assert labels == ["0 B", "25 B", "50 B", "75 B", "100 B", "1 Jan", "2 Jan", "3 Jan", "4 Jan"]


@pytest.mark.parametrize("nbytes", [0, 1, 10**18])
def test_a_single_access(nbytes: int) -> None:
    svg = parse(draw_accesses(((7200, "disk", nbytes),), 3600, ["disk"]))
    (bar,) = svg.findall("rect")
    assert 0 <= float(bar.attrib["height"]) <= 166
    assert parse(draw_spark(((7200, "disk", nbytes),), 7200, 10800)).tag == "svg"


def test_bars_of_storage_and_room() -> None:
    svg = parse(draw_storage([("a<b", 50, 100), ("n" * 40, 25, 20)]))
    assert [rect.attrib["width"] for rect in svg.findall("rect")] == ["250", "125", "50", "62.5"]
    first, _, second, _ = svg.findall("text")
    assert "".join(first.itertext()) == "a<ba<b"
    assert list(second.itertext()) == ["n" * 40, "n" * 21 + "…"]
    meter = parse(draw_meter([("stored", 30), ("stored", 300)], 100))
    assert [rect.attrib["width"] for rect in meter.findall("rect")] == ["500", "150", "350"]
    assert parse(draw_meter([("stored", 0)], 0)).tag == "svg"
