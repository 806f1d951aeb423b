"""Runs that differ in their precision alone, beside the runs that differ in their seed alone."""

import statistics
from collections.abc import Mapping
from pathlib import Path

from .runs import read_metrics, series

_METRICS = ("bbox/AP", "segm/AP")


def twin_table(folders: Mapping[int, tuple[str | Path, str | Path]]) -> list[str]:
    """Lines of a Markdown table: of each seed the run in fp32 and that in bf16, `folders[seed]`.

    The distance of two runs is the mean, over all iterations that both have logged, of the absolute
    difference of their total losses.
    """
    runs = {
        seed: tuple(read_metrics(Path(folder) / "metrics.json") for folder in pair)
        for seed, pair in folders.items()
    }
    lines = [
        "| seed | AP in fp32, box / mask | in bf16 | loss: bf16 to fp32 | loss: fp32 to other seeds |",
        "|---|---|---|---|---|",
    ]
    for seed, (fp32, bf16) in runs.items():
        others = [loss_distance(fp32, run[0]) for other, run in runs.items() if other != seed]
        apart = ", ".join(f"{value:.3f}" for value in others)
        lines.append(f"| {seed} | {_aps(fp32)} | {_aps(bf16)} | {loss_distance(fp32, bf16):.3f} | {apart} |")
    means = [" / ".join(f"{_mean_ap(runs, key, which):.1f}" for key in _METRICS) for which in (0, 1)]
    return [*lines, f"| mean | {means[0]} | {means[1]} | | |"]


def loss_distance(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """Of the rows of two metrics.json. Raises `ValueError` where they have no iteration in common."""
    losses = [dict(zip(*series(rows, "total_loss"), strict=True)) for rows in (one, other)]
    common = losses[0].keys() & losses[1].keys()
    if not common:
        raise ValueError("The runs have logged no loss at the same iteration.")
    return statistics.fmean(abs(losses[0][i] - losses[1][i]) for i in common)


def _ap(rows: list[dict[str, float]], key: str) -> float:
    return series(rows, key)[1][-1]


def _aps(rows: list[dict[str, float]]) -> str:
    return " / ".join(f"{_ap(rows, key):.1f}" for key in _METRICS)


def _mean_ap(runs: Mapping[int, tuple], key: str, which: int) -> float:
    return statistics.fmean(_ap(pair[which], key) for pair in runs.values())
