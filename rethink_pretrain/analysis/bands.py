"""Where a run is expected to be by now, from the curves of earlier runs of the same recipe."""

import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from ..errors import UserError
from .runs import read_metrics, series

Curve = list[tuple[float, float]]  # (images seen, value), by rising images

MARGIN = 1.0  # on both sides of the values of one or two runs; our choice, not a measurement


class Band(NamedTuple):
    """Values from `low` to `high` are expected."""

    low: float
    high: float


def expected_band(curves: Sequence[Curve], images: float) -> Band | None:
    """The band at that many images; curves are interpolated linearly.

    Of three and more runs: their mean plus and minus two sample standard deviations. Of one or two there is
    no deviation to speak of: from the lowest to the highest, widened by `MARGIN` on both sides. None outside
    of the range that all curves cover, because the runs that are left there would move the band.
    """
    values = [interpolate(curve, images) for curve in curves]
    if not values or None in values:
        return None
    if len(values) >= 3:
        mean, reach = statistics.mean(values), 2 * statistics.stdev(values)
        return Band(mean - reach, mean + reach)
    return Band(min(values) - MARGIN, max(values) + MARGIN)


def interpolate(curve: Curve, images: float) -> float | None:
    """The value at that many images, between its neighbours on a straight line; None outside of the curve."""
    right = bisect_left(curve, (images, -math.inf))
    if right == len(curve):
        return None
    (x1, y1) = curve[right]
    if x1 == images:
        return y1
    if right == 0:
        return None
    x0, y0 = curve[right - 1]
    return y0 + (y1 - y0) * (images - x0) / (x1 - x0)


def read_curve(run: str | Path, metric: str) -> Curve:
    """`metric` of a finished or running run, by its folder; [] where it was never measured.

    Raises `UserError` where the folder holds no config.yaml or no metrics.json of a run.
    """
    path = Path(run, "config.yaml")
    try:
        solver = yaml.safe_load(path.read_text(encoding="utf-8"))["SOLVER"]
        batch, length = int(solver["IMS_PER_BATCH"]), int(solver["MAX_ITER"])
    except OSError as error:
        raise UserError(f"{run} is not the folder of a run: {path.name}: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError, yaml.YAMLError):
        raise UserError(f"{path} does not tell SOLVER.IMS_PER_BATCH and SOLVER.MAX_ITER.") from None
    iterations, values = series(read_metrics(Path(run, "metrics.json")), metric)
    # Row i holds what is known after the iteration of that number, from 0; the last evaluation is in row
    # MAX_ITER.
    seen = [min(iteration + 1, length) * batch for iteration in iterations]
    return sorted(dict(zip(seen, values, strict=True)).items())
