"""The figure of a scaling prediction."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # works without a display
import matplotlib.pyplot as plt

from .scaling import PUBLISHED_BATCH, Prediction

_COLORS = {
    "compute": "#0072b2",
    "gradients": "#d55e00",
    "SyncBN": "#cc79a7",
    "loading": "#e69f00",
    "evaluation": "#009e73",
    "checkpoints": "#999999",
}


def plot_scaling(predictions: list[Prediction], path: str | Path, title: str = "") -> None:
    """Hours against GPUs on the left, with those of perfect scaling; on the right what the time goes into.

    Sizes whose batch is larger than any published one have hollow marks. Writes the format `path` ends with.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    _plot_hours(left, sorted(predictions))
    _plot_shares(right, sorted(predictions))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _plot_hours(axes: plt.Axes, predictions: list[Prediction]) -> None:
    gpus = [p.gpus for p in predictions]
    ideal = [p.run["compute"] / 3600 for p in predictions]
    axes.plot(gpus, ideal, color="0.6", linestyle=":", label="forward and backward alone")
    axes.plot(gpus, [p.hours for p in predictions], color=_COLORS["compute"], label="predicted")
    for prediction in predictions:
        beyond = prediction.batch > PUBLISHED_BATCH
        face = "white" if beyond else _COLORS["compute"]
        axes.plot(prediction.gpus, prediction.hours, "o", mfc=face, color=_COLORS["compute"], zorder=3)
        label = f"{prediction.hours:.3g} h"
        axes.annotate(label, (prediction.gpus, prediction.hours), (6, 6), textcoords="offset points")
    axes.plot([], [], "o", mfc="white", color=_COLORS["compute"], label=f"batch above {PUBLISHED_BATCH}")
    axes.set(xscale="log", yscale="log", xlabel="GPUs", ylabel="hours of the run")
    axes.set_xticks(gpus, map(str, gpus))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.12, y=0.1)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)


def _plot_shares(axes: plt.Axes, predictions: list[Prediction]) -> None:
    bottoms = [0.0] * len(predictions)
    positions = range(len(predictions))
    for part, color in _COLORS.items():
        shares = [100 * p.run[part] / sum(p.run.values()) for p in predictions]
        if max(shares) < 0.05:
            continue
        axes.bar(positions, shares, bottom=bottoms, color=color, width=0.6, label=part)
        bottoms = [below + share for below, share in zip(bottoms, shares)]
    axes.set_xticks(positions, [str(p.gpus) for p in predictions])
    axes.set(xlabel="GPUs", ylabel="share of the time, %", ylim=(0, 100))
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
