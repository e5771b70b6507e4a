"""Pictures of simulations, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storagering.errors import MissingExtraError, SpecError
from storagering.files import replace_file
from storagering.simulation.study import OPTIMUM, Point

# Told apart by colour-blind readers too (Okabe and Ito), and by their marks.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "0.55")
_MARKS = "os^vDPX*"


def draw_hit_ratios(path: Path, points: Sequence[Point], *, title: str) -> None:
    """Write a PNG of hit ratio against cache size, the optimum in black; bands are the range over the traces.

    Args:
        path: of the PNG; replaced in one step.
        title: of the figure.

    Raises:
        SpecError: no points, or a file that is not called *.png.
        MissingExtraError: matplotlib is not installed.
        OutputError, CacheError: the file cannot be written.
    """
    if not points or path.suffix.lower() != ".png":
        raise SpecError(f"{path}: give points to draw, and the name of a .png file")
    figure, axes = _new_figure()
    names = list(dict.fromkeys(point.policy for point in points))
    for number, name in enumerate(names):
        own = sorted((point for point in points if point.policy == name), key=lambda point: point.share)
        style = _style(name, number, exact=all(point.exact for point in own))
        shares = [100 * point.share for point in own]
        axes.plot(shares, [100 * point.hit_ratio.mean for point in own], **style)
        low, high = ([100 * getattr(point.hit_ratio, end) for point in own] for end in ("low", "high"))
        axes.fill_between(shares, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.set(xscale="log", ylim=(0, 100), xlabel="cache size / bytes of all items accessed (%)", ylabel="hits (%)")
    axes.set_xticks(ticks := sorted({100 * point.share for point in points}), [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    traces = max(point.traces for point in points)
    axes.set_title(f"{title} ({traces} seed{'s' if traces > 1 else ''})", loc="left", fontsize=11)
    axes.grid(which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    replace_file(path, buffer.getvalue())


def _new_figure() -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'storagering[torch]'") from error
    figure = Figure(figsize=(7.6, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _style(name: str, number: int, *, exact: bool) -> dict[str, Any]:
    if name == OPTIMUM:
        label = "optimum (Belady)" if exact else "optimum at most"
        return {"color": "black", "linewidth": 2.0, "linestyle": "-" if exact else "--", "label": label}
    mark = {"marker": _MARKS[number % len(_MARKS)], "markersize": 4}
    return {"color": _COLOURS[number % len(_COLOURS)], "linewidth": 1.5, "label": name, **mark}
