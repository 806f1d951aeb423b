"""Where a run is expected to be by now, from the curves of earlier runs of the same recipe."""

import math
import statistics
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from .curves import Curve

MARGIN = 1.0  # on both sides of the values of one or two runs; our choice, not a measurement


class Band(NamedTuple):
    """Values from `low` to `high` are expected."""

    low: float
    high: float


def expected_band(curves: Sequence[Curve], images: float) -> Band | None:
    """The band at that many images; `curves` are against images, and interpolated linearly.

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
