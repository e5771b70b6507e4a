"""The report's drawings: small SVG without scripts; colours come from the style sheet."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from storagering.catalog.report.facts import ColumnFacts, Series
from storagering.catalog.report.html import Html, element
from storagering.catalog.report.numbers import bytes_text, count_text, value_text

_Bin: TypeAlias = tuple[float, float, int]

_WIDTH, _HEIGHT, _BASE, _BELOW = 300, 68, 52, 60  # whole coordinates: half a pixel each
_QUANTILES, _FEWEST = 7, 4
_CHART_WIDTH, _CHART_HEIGHT, _CHART_LEFT, _CHART_BOTTOM = 1000, 190, 64, 24
_TICKS = 6
_YEAR = 300 * 86_400


def draw_distribution(column: ColumnFacts) -> Html | None:
    """The histogram of a column, with its median, quartiles and 90% of it below.

    Numbers below the first and above the last of the bins of equal width have bars of their own at the sides. Without
    a histogram the range is drawn, with the mean and one standard deviation around it. None if nothing is known of
    its numbers.
    """
    bins = [(low, high, n) for low, high, n in column.histogram if math.isfinite(low) and math.isfinite(high)]
    if not any(n for _, _, n in bins):
        return _draw_range(column)
    if all(low == high for low, high, _ in bins):
        scale, parts = _draw_values([(low, n) for low, _, n in bins])
        label = f"{len(bins)} values from {value_text(bins[0][0])} to {value_text(bins[-1][1])}"
    else:
        scale, parts, label = _draw_bins(bins)
    if len(column.quantiles) == _QUANTILES:
        _, q05, q25, q50, q75, q95, _ = (scale(q) for q in column.quantiles)
        parts.append(element("path", d=f"M{q05} {_BELOW}H{q95}", class_="thin"))
        parts.append(element("path", d=f"M{q25} {_BELOW}H{q75}", class_="thick"))
        parts.append(element("circle", cx=q50, cy=_BELOW, r=4.5))
    return _small(parts, label)


def _draw_values(values: list[tuple[float, int]]) -> tuple[_Scale, list[Html]]:
    """Bars of values that are few."""
    places = [value for value, _ in values]
    gap = min((b - a for a, b in itertools.pairwise(places)), default=1.0) or 1.0
    beside = max(gap / 2, abs(places[0]) * 1e-9, abs(places[-1]) * 1e-9)  # of large numbers a half changes nothing
    scale, top = _Scale(places[0] - beside, places[-1] + beside, _WIDTH), max(n for _, n in values)
    half = round(min(max(scale.step(gap) * 0.4, 1), 24))
    bars = "".join(
        f"M{min(max(round(scale.exact(v)) - half, 0), _WIDTH - 2 * half)} {_BASE}"
        f"v-{_height(n / top)}h{2 * half}V{_BASE}Z"
        for v, n in values
    )
    return scale, [element("path", d=bars, class_="bars")]


def _draw_bins(bins: list[_Bin]) -> tuple[_Scale, list[Html], str]:
    below, inside, above = _set_apart(bins)
    scale = _Scale(inside[0][0], inside[-1][1], _WIDTH)
    top = max(n for _, _, n in (*below, *inside, *above)) or 1
    steps = "".join(f"V{_BASE - _height(n / top)}H{scale(high)}" for _, high, n in inside)
    parts = [element("path", d=f"M0 {_BASE}{steps}V{_BASE}Z", class_="bars")]
    for side, x in ((below, 0), (above, _WIDTH - 6)):
        parts.extend(element("path", d=f"M{x} {_BASE}v-{_height(n / top)}h6V{_BASE}Z", class_="out")
                     for _, _, n in side)  # fmt: skip
    outside = "".join(
        f", {count_text(side[0][2])} {where}" for side, where in ((below, "below"), (above, "above")) if side
    )
    return scale, parts, f"{len(inside)} bins from {value_text(inside[0][0])} to {value_text(inside[-1][1])}{outside}"


def _set_apart(bins: list[_Bin]) -> tuple[list[_Bin], list[_Bin], list[_Bin]]:
    """A first and a last bin that are not as wide as those between them hold what lies outside."""
    if len(bins) < _FEWEST:
        return [], bins, []
    usual = bins[1][1] - bins[1][0]
    first, last = (not math.isclose(b[1] - b[0], usual, rel_tol=1e-3) for b in (bins[0], bins[-1]))
    inside = bins[first : len(bins) - last]
    return bins[:first], inside, bins[len(bins) - last :]


def _height(share: float) -> int:
    """Of a bar; what is there is seen."""
    return max(round(share * (_BASE - 4)), 1) if share else 0


def _draw_range(column: ColumnFacts) -> Html | None:
    if column.min is None or column.max is None or column.mean is None:
        return None
    low, high = (column.min, column.max) if column.max > column.min else (column.min - 0.5, column.min + 0.5)
    scale, std = _Scale(low, high, _WIDTH), column.std or 0.0
    parts = [
        element("path", d=f"M{scale(column.min)} 34H{scale(column.max)}M0 26V42M{_WIDTH} 26V42", class_="thin"),
        element("path", d=f"M{scale(column.mean - std)} 34H{scale(column.mean + std)}", class_="thick"),
        element("circle", cx=scale(column.mean), cy=34, r=5),
    ]
    return _small(parts, "range, mean and standard deviation")


def _small(parts: Sequence[Html], label: str) -> Html:
    box = f"-1 0 {_WIDTH + 2} {_HEIGHT}"
    return element("svg", parts, class_="dist", viewBox=box, role="img", aria_label=label)


def draw_storage(rows: Sequence[tuple[str, int, int]]) -> Html:
    """Bars of datasets: decoded size, and on top of it what is stored.

    Args:
        rows: (name, stored bytes, decoded bytes).
    """
    longest = max((max(raw, stored) for _, stored, raw in rows), default=0) or 1
    parts = []
    for number, (name, stored, raw) in enumerate(rows):
        y = 26 * number
        shown = name if len(name) <= 22 else name[:21] + "…"
        parts.append(element("text", element("title", name), shown, x=0, y=y + 16, class_="label"))
        parts.append(element("rect", x=170, y=y + 5, width=_short(250 * raw / longest), height=14, class_="raw"))
        parts.append(element("rect", x=170, y=y + 5, width=_short(250 * stored / longest), height=14, class_="stored"))
        end = 170 + 250 * max(raw, stored) / longest
        parts.append(element("text", bytes_text(stored), x=_short(end + 8), y=y + 16, class_="value"))
    label = "stored and decoded size of the largest datasets"
    return element("svg", parts, class_="storage", viewBox=f"0 0 500 {26 * len(rows)}", role="img", aria_label=label)


def draw_meter(parts: Sequence[tuple[str, float]], whole: float) -> Html:
    """A bar of which coloured parts are taken.

    Args:
        parts: (class of the style sheet, size).
    """
    x, drawn = 0.0, [element("rect", x=0, y=0, width=500, height=14, rx=3, class_="free")]
    for style, size in parts:
        width = 500 * size / whole if whole else 0
        drawn.append(element("rect", x=_short(x), y=0, width=_short(min(width, 500 - x)), height=14, class_=style))
        x += width
    return element(
        "svg", drawn, class_="meter", viewBox="0 0 500 14", preserveAspectRatio="none", role="img", aria_label="room"
    )


def draw_accesses(accesses: Series, width: int, tiers: Sequence[str]) -> Html:
    """Bytes read in each interval of time, one bar each, with a part for each tier.

    Args:
        width: of the intervals, in seconds.
        tiers: the first four have colours of their own.
    """
    first, last = accesses[0][0], accesses[-1][0] + width
    scale = _Scale(first, last, _CHART_WIDTH - _CHART_LEFT)
    totals: dict[int, int] = {}
    for begin, _, nbytes in accesses:
        totals[begin] = totals.get(begin, 0) + nbytes
    grid = _nice_steps(max(totals.values()))
    floor = _CHART_HEIGHT - _CHART_BOTTOM
    unit = (floor - 8) / (grid[-1] or 1)
    parts = [part for value in grid for part in _grid_line(floor - value * unit, bytes_text(value))]
    breadth = max(scale.step(width) - 1, 0.6) if len(totals) > 1 else min(scale.step(width), 60)
    below: dict[int, float] = {}
    style = "%Y-%m-%d %H:%M" if width < 86_400 else "%Y-%m-%d"
    for begin, tier, nbytes in accesses:
        height, base = nbytes * unit, below.get(begin, 0.0)
        below[begin] = base + height
        x = _CHART_LEFT + scale.exact(begin)
        label = element("title", f"{_moment(begin, style)}: {bytes_text(nbytes)} {tier}")
        y = _short(floor - base - height)
        parts.append(
            element(
                "rect",
                label,
                x=_short(x),
                y=y,
                width=_short(breadth),
                height=_short(height),
                class_=f"t{min(tiers.index(tier), 4)}",
            )
        )
    parts.extend(_time_labels(first, last, width, scale))
    box = f"0 0 {_CHART_WIDTH} {_CHART_HEIGHT}"
    return element("svg", parts, class_="chart", viewBox=box, role="img", aria_label="bytes read over time")


def draw_spark(accesses: Series, first: int, last: int) -> Html:
    """Bytes read of one dataset over the time of all accesses."""
    scale, top = _Scale(first, max(last, first + 1), 300), max(n for _, _, n in accesses) or 1
    marks = "".join(f"M{scale(begin)} 30V{_short(30 - 28 * n / top)}" for begin, _, n in accesses)
    line = element("path", d="M0 30.5H300", class_="thin")
    spark = element("path", d=marks, class_="marks")
    return element("svg", line, spark, class_="spark", viewBox="-2 0 304 32", role="img", aria_label="reads over time")


class _Scale:
    """From values to places on an axis; what lies outside is put at its ends."""

    def __init__(self, low: float, high: float, length: float) -> None:
        self._low, self._high, self._length = low, high, length
        half = high / 2 - low / 2  # their difference may overflow
        self._half = half if half > 0 else 1.0

    def exact(self, value: float) -> float:
        inside = min(max(value, self._low), self._high)
        return (inside / 2 - self._low / 2) / self._half * self._length

    def __call__(self, value: float) -> int:
        return round(self.exact(value))

    def step(self, width: float) -> float:
        """Length of a difference."""
        return width / 2 / self._half * self._length


def _grid_line(y: float, text: str) -> list[Html]:
    line = element("path", d=f"M{_CHART_LEFT} {_short(y)}H{_CHART_WIDTH}", class_="grid")
    return [line, element("text", text, x=_CHART_LEFT - 8, y=_short(y + 4), class_="end")]


def _time_labels(first: int, last: int, width: int, scale: _Scale) -> list[Html]:
    count = max((last - first) // width, 1)
    places = range(first, last, max(math.ceil(count / _TICKS), 1) * width)
    middle = scale.step(width) / 2 if count > 1 else 0
    style = "%d %b %H:%M" if width < 86_400 else "%d %b" if last - first < _YEAR else "%d %b %Y"
    return [
        element("text", _moment(at, style), x=_short(_CHART_LEFT + scale.exact(at) + middle), y=_CHART_HEIGHT - 6)
        for at in places
    ]


def _moment(seconds: int, style: str) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(style).lstrip("0")


def _nice_steps(highest: float) -> list[float]:
    """0 and up to four round values, the last not below the highest."""
    if highest <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(s * power for s in (0.25, 0.5, 1, 2.5, 5) if s * power * 4 >= highest)
    return [step * n for n in range(math.ceil(highest / step - 1e-9) + 1)]


def _short(value: float) -> str:
    """A coordinate to a tenth."""
    return f"{value:.1f}".removesuffix(".0")
