"""Bands by hand and by numpy."""

import json

import numpy as np
import pytest
import yaml

from rethink_pretrain.analysis.bands import MARGIN, Band, expected_band, interpolate, read_curve
from rethink_pretrain.errors import UserError


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


def write_run(folder, rows, config=None):
    config = config if config is not None else {"SOLVER": {"IMS_PER_BATCH": 16, "MAX_ITER": 8}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_read_curve(tmp_path):
    """Rows count from 0; the last evaluation is in row 8 (or 7, on other versions) of 8 iterations."""
    rows = [{"iteration": 3, "bbox/AP": 1.5}, {"iteration": 5, "lr": 0.1}, {"iteration": 8, "bbox/AP": 2.5}]
    write_run(tmp_path, rows)
    assert read_curve(tmp_path, "bbox/AP") == [(64, 1.5), (128, 2.5)]
    assert read_curve(tmp_path, "segm/AP") == []
    write_run(tmp_path, [{"iteration": 7, "bbox/AP": 2.5}, {"iteration": 8, "bbox/AP": 2.0}])
    assert read_curve(tmp_path, "bbox/AP") == [(128, 2.0)]


def test_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"is not the folder of a run: config\.yaml: No such file"):
        read_curve(tmp_path, "bbox/AP")
    write_run(tmp_path, [], config={"SOLVER": {"MAX_ITER": 8}})
    with pytest.raises(UserError, match=r"does not tell SOLVER\.IMS_PER_BATCH"):
        read_curve(tmp_path, "bbox/AP")
    (tmp_path / "metrics.json").unlink()
    (tmp_path / "config.yaml").write_text("SOLVER: {IMS_PER_BATCH: 16, MAX_ITER: 8}")
    with pytest.raises(UserError, match=r"metrics\.json does not exist"):
        read_curve(tmp_path, "bbox/AP")
