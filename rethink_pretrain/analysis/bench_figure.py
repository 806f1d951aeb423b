"""A figure of benchmarks: how many times faster than stock Detectron2, beside what is to be reached."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # works without a display
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

from ..errors import UserError
from .bench import Bar, short

_REACHED, _MISSED, _FREE = "#0072b2", "#d55e00", "#7f8c9b"
_LABEL_WIDTH = 46  # letters


def plot_ratios(bars: Sequence[Bar], path: str | Path, title: str = "") -> None:
    """Ratios on a logarithmic axis, quartiles as whiskers, the target of each as a black mark.

    Writes an image of the format that `path` ends with. Raises `UserError` where there is nothing to show.
    """
    if not bars:
        raise UserError("There are no ratios to draw: nothing was measured beside stock.")
    bars = list(bars)[::-1]  # the first comes on top
    figure, axes = plt.subplots(figsize=(9, 1.4 + 0.5 * len(bars)), layout="constrained")
    places = range(len(bars))
    ratios = [bar.ratio for bar in bars]
    axes.barh(places, [ratio - 1 for ratio in ratios], left=1, height=0.6, color=[_color(b) for b in bars])
    for place, bar in enumerate(bars):
        axes.plot(bar.quartiles, (place, place), color="0.15", linewidth=1.5)
        if bar.target:
            axes.plot((bar.target,) * 2, (place - 0.42, place + 0.42), color="black", linewidth=2.5)
        end = max(bar.ratio, bar.quartiles[1], bar.target or 1, 1)
        axes.annotate(
            f"{short(bar.ratio)} x", (end, place), (6, 0), textcoords="offset points", va="center", fontsize=9
        )
    labels = [textwrap.fill(bar.label, _LABEL_WIDTH) for bar in bars]
    axes.set_yticks(places, labels, fontsize=9)
    _scale(axes, bars)
    axes.set_title(title, loc="left", fontsize=10)
    _legend(axes, bars)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _scale(axes: plt.Axes, bars: Sequence[Bar]) -> None:
    low = min(0.8, *(min(bar.ratio, bar.quartiles[0]) for bar in bars))
    high = max(2.0, *(max(bar.ratio, bar.quartiles[1], bar.target or 1) for bar in bars))
    axes.set(xscale="log", xlim=(low / 1.1, high * 1.6), ylim=(-0.7, len(bars) - 0.3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} x"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.set_xticks([tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if low <= tick <= high * 1.3])
    axes.axvline(1, color="0.3", linewidth=1)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("times faster than stock Detectron2 (medians; lines: quartiles)")


def _color(bar: Bar) -> str:
    if bar.target is None:
        return _FREE
    return _REACHED if bar.ratio >= bar.target else _MISSED


def _legend(axes: plt.Axes, bars: Sequence[Bar]) -> None:
    shown = {_color(bar) for bar in bars}
    words = {_REACHED: "reaches its mark", _MISSED: "does not", _FREE: "has no mark"}
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in words if color in shown]
    handles.append(plt.Line2D([], [], color="black", linewidth=2.5))
    names = [name for color, name in words.items() if color in shown] + ["to be reached"]
    axes.legend(handles, names, loc="lower right", fontsize=8, frameon=True, framealpha=0.9)
