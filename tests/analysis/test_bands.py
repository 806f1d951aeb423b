"""Bands by hand and by numpy."""

import numpy as np
import pytest

from rethink_pretrain.analysis.bands import MARGIN, Band, expected_band, interpolate


def test_interpolation_is_numpys():
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0, 1e6, 9))
    y = rng.uniform(0, 40, 9)
    curve = list(zip(x.tolist(), y.tolist(), strict=True))
    for at in [*rng.uniform(x[0], x[-1], 50), *x]:
        assert interpolate(curve, at) == pytest.approx(np.interp(at, x, y))
    assert interpolate(curve, x[0] - 1) is None and interpolate(curve, x[-1] + 1) is None


def test_of_three_runs_and_more():
    curves = [[(0, 10.0), (100, value)] for value in (20.0, 26.0, 29.0, 21.0)]
    middle = np.array([15.0, 18.0, 19.5, 15.5])
    band = expected_band(curves, 50)
    assert band.low == pytest.approx(middle.mean() - 2 * middle.std(ddof=1))
    assert band.high == pytest.approx(middle.mean() + 2 * middle.std(ddof=1))
    assert expected_band(curves[:3], 0) == Band(10.0, 10.0)


def test_of_one_or_two():
    one, two = [(0, 10.0), (100, 20.0)], [(0, 10.0), (50, 18.0), (100, 20.0)]
    assert expected_band([one], 50) == Band(15.0 - MARGIN, 15.0 + MARGIN)
    assert expected_band([one, two], 50) == Band(15.0 - MARGIN, 18.0 + MARGIN)


def test_only_where_all_have_been():
    curves = [[(10, 1.0), (100, 2.0)], [(20, 1.0), (200, 2.0)], [(5, 1.0), (150, 2.0)]]
    assert [expected_band(curves, at) is None for at in (15, 20, 100, 101)] == [True, False, False, True]
    assert expected_band([], 10) is None
    assert expected_band([*curves, []], 50) is None  # never measured
