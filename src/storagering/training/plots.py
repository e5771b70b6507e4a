"""Pictures of results, drawn without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from storagering.files import replace_file
from storagering.training.metrics import FEW, Roc

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # told apart by colour-blind readers too


def draw_roc(path: Path, curves: Mapping[str, Roc], *, title: str, signal: str, background: str) -> None:
    """Write a PNG of background rejection (log scale) against signal efficiency.

    Bands show the statistical error; a curve ends where fewer than `FEW` background jets pass.

    Args:
        path: of the PNG; replaced in one step.
        curves: name for the legend -> curve, the main one first (four at most).
        title: of the figure.
        signal: name of the signal class.
        background: name of everything else.
    """
    figure = Figure(figsize=(6.4, 4.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    highest = max(
        _draw_curve(axes, name, roc, colour) for (name, roc), colour in zip(curves.items(), _COLOURS, strict=False)
    )
    chance = np.linspace(0.01, 1, 200)
    axes.plot(chance, 1 / chance, color="0.6", linewidth=1, linestyle=":", label="guessing")
    axes.set(yscale="log", xlim=(0, 1), xlabel=f"signal efficiency ({signal})")
    axes.set_ylim(1, 6 * highest)  # room for the legend
    axes.set_ylabel(f"background rejection 1/ε ({background})")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    replace_file(path, buffer.getvalue())


def _draw_curve(axes: Axes, name: str, roc: Roc, colour: str) -> float:
    """Draw one curve with its band; returns its highest point."""
    passing = roc.background_efficiency * roc.background
    shown = passing >= min(FEW, roc.background)
    efficiency, rate = roc.signal_efficiency[shown], roc.background_efficiency[shown]
    relative_error = np.sqrt((1 - rate) / passing[shown])
    label = f"{name}: AUC {roc.auc:.3f} ± {roc.auc_error:.3f}"
    axes.plot(efficiency, 1 / rate, color=colour, linewidth=1.8, label=label)
    lower, upper = (1 - relative_error) / rate, (1 + relative_error) / rate
    axes.fill_between(efficiency, np.maximum(lower, 1), upper, color=colour, alpha=0.18, linewidth=0)
    point = roc.rejection_at(0.5)
    if point.passing:
        axes.plot(point.signal_efficiency, point.value, "o", color=colour, markersize=5)
    return float(1 / rate.min(initial=1.0))
