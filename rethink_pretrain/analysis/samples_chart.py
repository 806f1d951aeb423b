"""Bars of images, instances and pixels, in the manner of the paper's figure 2."""

import re
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .accounting import KINDS, PRETRAINING, TRAINING, Account, Phase, Samples, short_number

# Eyes of every kind tell them apart, and so does grey print.
_COLORS = {PRETRAINING: "#e69f00", TRAINING: "#0072b2"}
_LONGEST_NAME = 26  # characters of a line
_MOST_LINES = 3
_ROOM, _WORDY_ROOM = 1.4, 2.0  # axis over longest bar: a number, or words, behind the bar needs the rest


def plot_samples(accounts: Sequence[Account]) -> Figure:
    """A panel per kind; a bar per account, pre-training and training one after the other.

    The total stands behind the bar. Where a part is unknown, the bar is the rest and the words say so.
    """
    names = [_broken(account.name) for account in accounts]
    lines = sum(max(2, name.count("\n") + 1) for name in names)
    figure = Figure(figsize=(10.5, 1.5 + 0.24 * lines), layout="constrained")
    panels = figure.subplots(1, len(KINDS), sharey=True)
    for axes, kind in zip(panels, KINDS, strict=True):
        _plot_kind(axes, accounts, kind)
    panels[0].set_yticks(range(len(names)), names, parse_math=False)
    panels[0].invert_yaxis()  # the first on top
    handles = [panels[0].barh(0, 0, color=color) for color in _COLORS.values()]
    figure.legend(handles, [*_COLORS], loc="outside lower center", ncols=2, frameon=False)
    return figure


def _plot_kind(axes: Axes, accounts: Sequence[Account], kind: str) -> None:
    ends, wordy = [], False
    for row, account in enumerate(accounts):
        end = 0.0
        for phase in account.phases:
            count = _count(phase.samples, kind) or 0.0
            axes.barh(row, count, left=end, height=0.62, color=_COLORS[phase.name])
            end += count
        ends.append(end)
        label = _label(account.phases, kind, end)
        wordy = wordy or "unknown" in label
        words = axes.annotate(label, (end, row), (4, 0), textcoords="offset points", va="center", fontsize=9)
        words.set_in_layout(False)  # panels keep the same width
    axes.set_title(kind, loc="left")
    axes.set(xlim=(0, (_WORDY_ROOM if wordy else _ROOM) * max(ends) or 1), xticks=[])
    axes.tick_params(left=False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _count(samples: Samples | None, kind: str) -> float | None:
    return None if samples is None else getattr(samples, kind)


def _label(phases: Sequence[Phase], kind: str, known: float) -> str:
    """ "8.6 M", "8.6 M + unknown", "unknown"."""
    unknown = any(_count(phase.samples, kind) is None for phase in phases)
    if not unknown:
        return short_number(known)
    return f"{short_number(known)} + unknown" if known else "unknown"


def _broken(name: str) -> str:
    """In lines that end where a part of the name does, as far as that goes; of many the last are shown."""
    lines = [""]
    for part in re.findall(rf"[^/_ -]{{0,{_LONGEST_NAME - 1}}}[/_ -]|.{{1,{_LONGEST_NAME}}}", name):
        if len(lines[-1] + part) > _LONGEST_NAME:
            lines.append("")
        lines[-1] += part
    if len(lines) > _MOST_LINES:
        lines = lines[-_MOST_LINES:]
        lines[0] = f"…{lines[0]}"
    return "\n".join(lines)
