"""Charts of a comparison: a colour for each arm, the same on all of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from .comparison import Comparison
from .curves import AXES, Spread
from .runs import RANDOM, UNKNOWN
from .statistics import AHEAD, BEHIND, EQUAL, UNDECIDED
from .verdict import name_arm

# Colours that eyes of every kind tell apart, from random weights the first.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_UNKNOWN_COLOR = "#777777"
_SIZE = (5.2, 3.7)  # inches; its letters suit a phone
_LONGEST_LABEL = 44  # characters
_COUNTS = ("images", "iterations", "instances", "pixels")  # axes that take a k, M or T
_MOST_MARGINS = 8  # a gap that is wider gets an axis that is stretched around zero
_LINEAR = 1.0  # percent points of that axis on both sides of zero
_TICKS = (-30, -10, -3, -1, -0.5, 0, 0.5, 1, 3, 10, 30)
_MARKS = {BEHIND: "v", AHEAD: "^", EQUAL: "s", UNDECIDED: "o"}


class Line(NamedTuple):
    """Runs of one arm and length, or one run that is not finished."""

    arm: str
    length: str
    points: Sequence[Spread]
    finished: bool = True


class Point(NamedTuple):
    """An arm and what it reached for a cost."""

    arm: str
    cost: float
    value: float


def colors_of(arms: Sequence[str]) -> dict[str, str]:
    """Arm -> colour, the same for any order of them."""
    known = sorted(set(arms) - {RANDOM, UNKNOWN})
    ret = {arm: _COLORS[number % len(_COLORS)] for number, arm in enumerate(known, 1)}
    return {RANDOM: _COLORS[0], UNKNOWN: _UNKNOWN_COLOR, **ret}


def plot_curves(lines: Sequence[Line], axis: str, label: str, *, ends: bool = True) -> Figure:
    """Means as lines and lowest to highest as bands, against `axis` of `curves.AXES`.

    `ends` marks where each length ended. What is not finished is dashed.
    """
    figure, axes = _new()
    colors = colors_of([line.arm for line in lines])
    for line in lines:
        if not line.points:
            continue
        x, mean, low, high = np.array(line.points).T
        color = colors[line.arm]
        axes.plot(x, mean, color=color, linewidth=1.2, linestyle="-" if line.finished else "--", alpha=0.9)
        axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
        if ends and line.finished:
            axes.plot(x[-1:], mean[-1:], "o", color=color, markersize=3.5)
    axes.set(xlabel=AXES[axis], xlim=(0, None))
    if axis in _COUNTS:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 4M; of hours it would make 4m
    axes.set_ylabel(label, parse_math=False)
    if ends:
        axes.set_ylim(0, None)
        _label_lengths(axes, lines)
    _add_legend(figure, [line.arm for line in lines], colors)
    return figure


def plot_final(comparison: Comparison, label: str) -> Figure:
    """Above, the mean of each cell with its seeds and their range; below, the gaps with their intervals."""
    rows = 2 if comparison.others else 1
    figure = Figure(figsize=(_SIZE[0], 2.7 * rows), layout="constrained")
    all_axes = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    colors = colors_of(comparison.arms)
    for number, arm in enumerate(comparison.arms):
        _draw_arm(all_axes[0], comparison, arm, _shift(number, comparison.arms), colors[arm])
        if arm != comparison.reference:
            _draw_gaps(all_axes[1], comparison, arm, _shift(number, comparison.arms), colors[arm])
    if comparison.others:
        _draw_margin(all_axes[1], comparison)
    lengths = [short_length(length) for length in comparison.lengths]
    all_axes[-1].set_xticks(range(len(lengths)), lengths)
    all_axes[-1].set_xlim(-0.5, len(lengths) - 0.5)
    all_axes[-1].set_xlabel("length of training")
    all_axes[0].set_ylabel(label, parse_math=False)
    for axes in all_axes:
        _clean(axes)
    _add_legend(figure, comparison.arms, colors)
    return figure


def plot_costs(panels: Mapping[str, Sequence[Point]], label: str, axis: str) -> Figure:
    """A panel for each way to count the cost: what the arms reached for it. `axis` is the cost in words."""
    figure = Figure(figsize=(_SIZE[0], 3.4), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    arms = list(dict.fromkeys(point.arm for points in panels.values() for point in points))
    colors = colors_of(arms)
    for axes, (title, points) in zip(all_axes, panels.items(), strict=True):
        for arm in arms:
            mine = sorted((point.cost, point.value) for point in points if point.arm == arm)
            if mine:
                axes.plot(*zip(*mine), "o-", color=colors[arm], markersize=4, linewidth=1.3)
        axes.set_title(title, fontsize=9.5)
        axes.set(xlabel=axis, xlim=(0, None))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.locator_params(axis="x", nbins=5)
        _clean(axes)
    all_axes[0].set_ylabel(label, parse_math=False)
    _add_legend(figure, arms, colors)
    return figure


def plot_fits(fits: Mapping[str, Sequence[Sequence[tuple[float, float]]]], label: str) -> Figure:
    """Arm -> (training loss, value) of each evaluation of each run, in the order of training."""
    figure, axes = _new()
    colors = colors_of(list(fits))
    for arm, runs in fits.items():
        for points in runs:
            x, y = zip(*points)
            axes.plot(x, y, color=colors[arm], linewidth=0.9, alpha=0.55)
            axes.scatter(x, y, 9, color=colors[arm], alpha=0.55, linewidth=0)
            axes.plot(x[-1:], y[-1:], "o", color=colors[arm], markersize=5)
    axes.set_xlabel("total training loss (falls to the right)")
    axes.set_ylabel(label, parse_math=False)
    axes.invert_xaxis()
    _add_legend(figure, list(fits), colors)
    return figure


def short_length(words: str) -> str:
    """ "540k" for "540,000 iterations"; anything else as it is, if it is short."""
    number, _, unit = words.partition(" ")
    if unit == "iterations" and number.replace(",", "").isdigit():
        return EngFormatter(sep="", places=None)(int(number.replace(",", "")))
    return _shorten(words, 12)


def _new() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    _clean(axes)
    return figure, axes


def _clean(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _label_lengths(axes: Axes, lines: Sequence[Line]) -> None:
    """Each length above the highest end of its lines, where it meets no label before it."""
    ends: dict[str, tuple[float, float]] = {}
    for line in lines:
        if line.finished and line.points:
            x, y = line.points[-1].position, line.points[-1].high
            ends[line.length] = max(ends.get(line.length, (0, 0)), (x, y), key=lambda end: end[1])
    reach = max((x for x, _ in ends.values()), default=0)
    taken = -reach
    for length, (x, y) in sorted(ends.items(), key=lambda item: item[1]):
        words = short_length(length)
        if x - taken > reach * 0.02 * (len(words) + 1):
            axes.annotate(words, (x, y), (0, 4), textcoords="offset points", ha="center", fontsize=8)
            taken = x


def _draw_arm(axes: Axes, comparison: Comparison, arm: str, shift: float, color: str) -> None:
    cells = [
        (at + shift, comparison.cells[arm, length].values)
        for at, length in enumerate(comparison.lengths)
        if (arm, length) in comparison.cells and comparison.cells[arm, length].values
    ]
    if not cells:
        return
    x = [at for at, _ in cells]
    means = np.array([np.mean(values) for _, values in cells])
    ends = [means - [min(values) for _, values in cells], [max(values) for _, values in cells] - means]
    axes.errorbar(x, means, ends, fmt="o-", color=color, markersize=4, linewidth=1.3, capsize=3)
    for at, values in cells:
        axes.plot([at] * len(values), values, ".", color=color, alpha=0.5, markersize=4)


def _draw_gaps(axes: Axes, comparison: Comparison, arm: str, shift: float, color: str) -> None:
    for at, length in enumerate(comparison.lengths):
        gap = comparison.gaps.get((arm, length))
        if gap is None:
            cells = [comparison.cells.get((one, length)) for one in (arm, comparison.reference)]
            if None not in cells:
                axes.plot([at + shift], [cells[0].mean - cells[1].mean], "x", color=color, markersize=5)
            continue
        ends = [[gap.estimate - gap.low], [gap.high - gap.estimate]]
        mark = _MARKS[comparison.states[arm, length]]
        look = {"color": color, "markersize": 5, "capsize": 3, "linewidth": 1.3}
        face = color if gap.basis == "seeds" else "none"
        axes.errorbar([at + shift], [gap.estimate], ends, fmt=mark, markerfacecolor=face, **look)


def _draw_margin(axes: Axes, comparison: Comparison) -> None:
    """Zero, the margin, and a scale on which they can be seen."""
    _stretch_around_zero(axes, comparison)
    axes.axhspan(-comparison.margin, comparison.margin, color="0.5", alpha=0.15, linewidth=0)
    axes.axhline(0, color="0.35", linewidth=1)
    axes.set_ylabel(f"gap to {_shorten(name_arm(comparison.reference), 20)}", parse_math=False)


def _stretch_around_zero(axes: Axes, comparison: Comparison) -> None:
    """Linear within `_LINEAR` and logarithmic beyond, where gaps are so wide that the margin would vanish."""
    ends = axes.dataLim.intervaly  # of the gaps and their intervals
    if np.isfinite(ends).all() and np.abs(ends).max() > _MOST_MARGINS * comparison.margin:
        axes.set_yscale("symlog", linthresh=_LINEAR, linscale=0.8)
        low, high = min(1.3 * min(ends), -_LINEAR), max(1.3 * max(ends), _LINEAR)
        axes.set_ylim(low, high)
        shown = [tick for tick in _TICKS if low <= tick <= high]
        axes.set_yticks(shown, [f"{tick:+g}" if tick else "0" for tick in shown])
        axes.minorticks_off()


def _shift(number: int, arms: Sequence[str]) -> float:
    """Arms of one length stand beside each other."""
    return 0.16 * (number - (len(arms) - 1) / 2)


def _add_legend(figure: Figure, arms: Sequence[str], colors: Mapping[str, str]) -> None:
    arms = list(dict.fromkeys(arms))
    handles = [figure.axes[0].plot([], [], color=colors[arm], linewidth=2)[0] for arm in arms]
    labels = [_shorten(name_arm(arm), _LONGEST_LABEL) for arm in arms]
    columns = max(1, 60 // (max(map(len, labels), default=1) + 6))
    legend = figure.legend(handles, labels, loc="outside upper left", frameon=False, ncols=columns)
    for text in legend.get_texts():
        text.set(parse_math=False, fontsize=9)


def _shorten(words: str, longest: int) -> str:
    """Its end, which tells weight files apart."""
    return words if len(words) <= longest else f"…{words[1 - longest :]}"
