"""Positions and values by hand: 16 images and half a second an iteration."""

import math

import pytest
from made_runs import host_row, make_run

from rethink_pretrain.analysis.curves import (
    curve,
    fits,
    positions,
    spread,
    thinned,
    training_images,
    wall_hours,
)
from rethink_pretrain.analysis.runs import read_run
from rethink_pretrain.errors import UserError

DATA = [{"name": "a", "images": 600}, {"name": "b", "images": 200}]


@pytest.fixture
def run(tmp_path):
    return read_run(make_run(tmp_path / "run", sessions=[{"data": DATA, "train_seconds": 1800.0}]))


@pytest.mark.parametrize(
    ("axis", "expected"),
    [
        ("iterations", [100, 200]),
        ("images", [1600, 3200]),
        ("epochs", [2.0, 4.0]),
        ("hours", [50 / 3600, 100 / 3600]),
    ],
)
def test_axes(run, axis, expected):
    points = curve(run, "bbox/AP", axis)
    assert [x for x, _ in points] == pytest.approx(expected)
    assert [y for _, y in points] == [10.0, 20.0]


def test_hours_of_a_changing_pace(tmp_path):
    """20 iterations of 1 s, 20 of 3 s: 20 s, then 50 s after 30, then 80 s."""
    rows = [{**host_row(19), "time": 1.0}, {**host_row(39), "time": 3.0}]
    run = read_run(make_run(tmp_path / "run", rows=rows))
    assert positions(run, [20, 30, 40], "hours") == pytest.approx([20 / 3600, 50 / 3600, 80 / 3600])


def test_holes(tmp_path):
    values = [math.nan, math.inf, 3.0]
    rows = [{**host_row(i), "x": value} for i, value in enumerate(values)] + [host_row(3)]
    run = read_run(make_run(tmp_path / "run", rows=rows))
    assert curve(run, "x") == [(48, 3.0)]
    assert curve(run, "never measured") == []


def test_an_axis_that_the_files_do_not_tell(tmp_path):
    bare = read_run(make_run(tmp_path / "bare", config=False))
    with pytest.raises(UserError, match=r"bare: .* take iterations"):
        curve(bare, "bbox/AP", "images")
    host = read_run(make_run(tmp_path / "host", rows=[{"iteration": 5, "bbox/AP": 1}]))
    with pytest.raises(UserError, match=r"host: .* take images"):
        curve(host, "bbox/AP", "epochs")
    with pytest.raises(UserError, match=r'host: .* no "time"'):
        curve(host, "bbox/AP", "hours")
    with pytest.raises(UserError, match=r"host: .* no samples/pixels; take images or iterations"):
        curve(host, "bbox/AP", "pixels")
    for sessions in (None, [{}], [{"hardware": {"processes": n}} for n in (1, 2)]):
        odd = read_run(make_run(tmp_path / f"odd{sessions and len(sessions)}", sessions=sessions))
        with pytest.raises(UserError, match=r"one number of processes; take hours"):
            curve(odd, "bbox/AP", "gpu-hours")
    with pytest.raises(ValueError, match="Choose from"):
        curve(host, "bbox/AP", "days")


def test_what_run_json_tells(run, tmp_path):
    assert (training_images(run), wall_hours(run)) == (800, 0.5)
    silent = make_run(tmp_path / "silent", sessions=[{"train_seconds": 9}, {"data": [{"name": "coco"}]}])
    assert (training_images(read_run(silent)), wall_hours(read_run(silent))) == (None, None)
    host = read_run(make_run(tmp_path / "host"))
    assert (training_images(host), wall_hours(host)) == (None, None)


def test_thinned_to_means():
    few = [(0.0, 1.0), (1.0, 5.0)]
    assert thinned(few, 2) == few
    # Two halves of 0 to 10: x below 5, and the rest.
    points = [(0, 1), (1, 2), (4, 6), (5, 10), (10, 20)]
    assert thinned(points, 2) == [pytest.approx((5 / 3, 3)), pytest.approx((7.5, 15))]
    # A part without points is left out.
    assert thinned([(0, 1), (1, 3), (2, 8), (90, 7)], 3) == [pytest.approx((1, 4)), (90, 7)]


def test_counted_axes(tmp_path):
    """Counters at the log rows, every 20 iterations; an evaluation in between lies on a straight line."""
    rows = [host_row(i) | {"samples/pixels": 50.0 * (i + 1), "samples/instances": i + 1} for i in (19, 39)]
    rows.append({"iteration": 29, "bbox/AP": 7.0})
    rows.append({"iteration": 40, "bbox/AP": 9.0})
    run = read_run(make_run(tmp_path / "run", rows=rows, SOLVER__MAX_ITER=40))
    assert curve(run, "bbox/AP", "pixels") == [(1500, 7.0), (2000, 9.0)]
    assert curve(run, "bbox/AP", "instances") == [(30, 7.0), (40, 9.0)]


def test_hours_of_all_processes(tmp_path):
    sessions = [{"hardware": {"processes": 8}}] * 2
    run = read_run(make_run(tmp_path / "run", sessions=sessions))
    assert [x for x, _ in curve(run, "bbox/AP", "gpu-hours")] == pytest.approx([400 / 3600, 800 / 3600])


def test_spread_where_all_were_measured(tmp_path):
    """After 100 and 200 iterations; the second run is faster and has an evaluation more."""
    rows = [host_row(i) | {"time": 0.25} for i in range(19, 200, 20)]
    values = {49: 99.0, 99: 14.0, 200: 26.0}
    rows += [{"iteration": i, "bbox/AP": value} for i, value in values.items()]
    paths = [make_run(tmp_path / "a"), make_run(tmp_path / "b", rows=rows)]
    runs = [read_run(path) for path in paths]
    assert spread(runs, "bbox/AP", "images") == [(1600, 12, 10, 14), (3200, 23, 20, 26)]
    assert [point.position for point in spread(runs, "bbox/AP", "hours")] == pytest.approx(
        [37.5 / 3600, 75 / 3600]
    )
    assert spread(runs, "never measured") == []


def test_fits(tmp_path):
    """Losses fall by 0.2 from 2.81 every 20 iterations: means of the five before each evaluation."""
    run = read_run(make_run(tmp_path / "run"))
    first, second = fits(run, "bbox/AP")
    assert first == (100, pytest.approx(3 - 0.59), 10.0)
    assert second == (200, pytest.approx(3 - 1.59), 20.0)
    bare = make_run(tmp_path / "bare", rows=[{"iteration": 5, "bbox/AP": 1}])
    assert fits(read_run(bare), "bbox/AP") == []


def test_the_last_evaluation_is_where_training_ended(tmp_path):
    """The host writes it into the row of iteration 7 or 8 of 8, and the later row counts."""
    aps = {3: 1.5, 7: 2.5, 8: 2.0}
    rows = [{"iteration": iteration, "bbox/AP": ap} for iteration, ap in aps.items()]
    run = read_run(make_run(tmp_path / "run", rows=rows, SOLVER__MAX_ITER=8))
    assert curve(run, "bbox/AP") == [(64, 1.5), (128, 2.0)]
