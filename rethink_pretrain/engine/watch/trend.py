"""One line for each evaluation: the numbers, what changed, and whether that was to be expected."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from ...analysis.bands import expected_band
from ...analysis.curves import Curve, curve
from ...analysis.runs import read_run
from .evaluations import EvaluationHook, measured_before

logger = logging.getLogger(__name__)

METRICS = {
    "bbox/AP": "box AP",
    "segm/AP": "mask AP",
    "keypoints/AP": "keypoint AP",
    "sem_seg/mIoU": "mIoU",
    "panoptic_seg/PQ": "PQ",
}


class Trend(EvaluationHook):
    """Logs each of METRICS with its change. For the main process.

    With `expected`, folders of earlier runs, also where the first of them stands against their band.
    """

    def __init__(self, output_dir: str, images_per_batch: int, expected: Sequence[str | Path] = ()):
        """Raises `UserError` for a folder without a run, or whose files do not tell its batch."""
        runs = [read_run(folder) for folder in expected]
        self._output_dir, self._images_per_batch = output_dir, images_per_batch
        self._curves: dict[str, list[Curve]] = {
            metric: [curve(run, metric) for run in runs] for metric in METRICS
        }
        self._values: dict[str, list[float]] = {}

    def before_train(self) -> None:
        """Look up the values before a resume."""
        for metric in METRICS:
            before = measured_before(self._output_dir, metric, self.trainer.start_iter)
            self._values[metric] = [value for _, value in before]

    def after_evaluation(self, metrics: dict[str, float]) -> None:
        """Log the line."""
        found = [metric for metric in METRICS if metric in metrics]
        if not found:
            return
        images = self.done * self._images_per_batch
        parts = []
        for metric in found:
            parts.append(f"{METRICS[metric]} {describe_change(metrics[metric], self._values[metric])}")
            if not math.isnan(metrics[metric]):
                self._values[metric].append(metrics[metric])
        line = f"iteration {self.done}, {_count(images)} images: {', '.join(parts)}"
        logger.info("%s%s", line, self._compare(found[0], metrics[found[0]], images))

    def _compare(self, metric: str, value: float, images: int) -> str:
        curves = self._curves[metric]
        band = expected_band(curves, images)
        if band is None or math.isnan(value):
            return ""
        if value < band.low:
            verdict = f"below it by {band.low - value:.1f}"
        elif value > band.high:
            verdict = f"above it by {value - band.high:.1f}"
        else:
            verdict = "on the curve"
        runs = f"{len(curves)} earlier run{'s' * (len(curves) > 1)}"
        return f"; expected {band.low:.1f} to {band.high:.1f} from {runs}: {verdict}"


def describe_change(value: float, before: Sequence[float]) -> str:
    """ "31.2 (+1.4, best so far)", "30.9 (-0.3, best 31.2)", or "12.3" where there was nothing before."""
    if math.isnan(value):
        return "undefined"
    if not before:
        return f"{value:.1f}"
    best = max(before)
    return f"{value:.1f} ({value - before[-1]:+.1f}, best {'so far' if value > best else f'{best:.1f}'})"


def _count(images: int) -> str:
    return f"{images / 1e6:.2f}M" if images >= 100_000 else str(images)
