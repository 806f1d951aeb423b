"""Charts of several runs."""

from collections import Counter
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from .curves import AXES, Curve
from .runs import RANDOM, UNKNOWN, RunData

# Colours that eyes of every kind tell apart: one for each start, from random weights the first.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_UNKNOWN_COLOR = "#777777"
_STYLES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)))  # one for each length
_MARKERS = "osD^vPX*"  # one for each run of the same start and length
_MOST_MARKERS = 12  # about as many leave the style of a line in sight
_LONGEST_LABEL = 52  # characters that fit the width


def plot_curves(
    runs: Sequence[RunData], curves: Sequence[Curve], axis: str, label: str, *, marked: bool = True
) -> Figure:
    """One line a run: its start is the colour, its length the style, the marker tells repeats apart.

    `curves` go with `runs`, against `axis` of `curves.AXES`. Lines of many values are better not `marked`.
    """
    figure = Figure(figsize=(5, 3.1 + 0.19 * len(runs)), layout="constrained")
    axes = figure.subplots()
    lines = []
    for points, look in zip(curves, _looks(runs), strict=True):
        look = look if marked else {**look, "marker": ""}
        x, y = zip(*points) if points else ((), ())
        every = max(1, len(x) // _MOST_MARKERS)
        lines += axes.plot(x, y, **look, markevery=every, markersize=4, linewidth=1.4)
    axes.set(xlabel=AXES[axis], xlim=(0, None), ylim=(0, None))
    axes.set_ylabel(label, parse_math=False)
    if axis in ("images", "iterations"):
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 4M; of hours it would make 4m
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(lines, [_label(run) for run in runs], loc="outside lower left", frameon=False)
    for text in legend.get_texts():
        text.set(parse_math=False, fontsize=8.5)
    return figure


def _looks(runs: Sequence[RunData]) -> list[dict]:
    """How the line of each run is drawn."""
    arms = sorted({run.arm for run in runs} - {RANDOM, UNKNOWN})
    lengths = sorted({run.schedule for run in runs}, key=lambda words: (len(words), words))
    repeats: Counter = Counter()
    ret = []
    for run in runs:
        number = arms.index(run.arm) + 1 if run.arm in arms else 0
        color = _UNKNOWN_COLOR if run.arm == UNKNOWN else _COLORS[number % len(_COLORS)]
        style = _STYLES[lengths.index(run.schedule) % len(_STYLES)]
        marker = _MARKERS[repeats[run.arm, run.schedule] % len(_MARKERS)]
        repeats[run.arm, run.schedule] += 1
        ret.append({"color": color, "linestyle": style, "marker": marker})
    return ret


def _label(run: RunData) -> str:
    name = f"{run.arm}, {run.schedule}: {run.name}"
    return name if len(name) <= _LONGEST_LABEL else f"… {name[2 - _LONGEST_LABEL :]}"
