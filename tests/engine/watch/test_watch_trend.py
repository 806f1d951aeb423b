import logging
import math

import pytest
import yaml
from watch_loop import Loop, aps, write_metrics

from rethink_pretrain.engine.watch.trend import Trend, describe_change
from rethink_pretrain.errors import UserError


@pytest.fixture
def lines(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("rethink_pretrain"), "propagate", True)
    caplog.set_level(logging.INFO, "rethink_pretrain")
    return lambda: [record.getMessage() for record in caplog.records if record.name.endswith("trend")]


def write_run(folder, *points):
    """An earlier run of 10 iterations of 100 images."""
    folder.mkdir()
    solver = {"IMS_PER_BATCH": 100, "MAX_ITER": 10}
    (folder / "config.yaml").write_text(yaml.safe_dump({"SOLVER": solver}))
    write_metrics(folder, *points)
    return folder


@pytest.mark.parametrize(
    ("value", "before", "words"),
    [
        (12.34, [], "12.3"),
        (31.2, [28.0, 29.8], "31.2 (+1.4, best so far)"),
        (30.9, [31.2], "30.9 (-0.3, best 31.2)"),
        (31.2, [31.2], "31.2 (+0.0, best 31.2)"),
        (math.nan, [31.2], "undefined"),
    ],
)
def test_describe_change(value, before, words):
    assert describe_change(value, before) == words


def test_a_line_for_each_evaluation(tmp_path, lines):
    values = [{"segm": {"AP": 1.0}, "bbox": {"AP": 2.0, "AP50": 9.0}}, None, {"bbox": {"AP": 1.5}}]
    Loop(values, [Trend(str(tmp_path), 80_000)], tmp_path).run()
    assert lines() == [
        "iteration 2, 0.16M images: box AP 2.0, mask AP 1.0",
        "iteration 6, 0.48M images: box AP 1.5 (-0.5, best 2.0)",
    ]


def test_a_resumed_run_remembers(tmp_path, lines):
    write_metrics(tmp_path, (1, 3.0), (3, 2.0), (5, 8.0))
    Loop(aps(2.5), [Trend(str(tmp_path), 100)], tmp_path, start=4).run()
    assert lines() == ["iteration 6, 600 images: box AP 2.5 (+0.5, best 3.0)"]


def test_the_band_of_earlier_runs(tmp_path, lines):
    """Batches of 50: iteration 4 is iteration 2 of the earlier ones, which had 20 and 22 there."""
    earlier = [write_run(tmp_path / str(n), (1, 20.0 + 2 * n), (5, 30.0 + 2 * n), (10, 40.0)) for n in (0, 1)]
    run = tmp_path / "mine"
    run.mkdir()
    Loop(aps(10.0, 15.5, 23.0, 27.0, 60.0), [Trend(str(run), 50, earlier)], run).run()
    assert lines() == [
        "iteration 2, 100 images: box AP 10.0",
        "iteration 4, 200 images: box AP 15.5 (+5.5, best so far); "
        "expected 19.0 to 23.0 from 2 earlier runs: below it by 3.5",
        "iteration 6, 300 images: box AP 23.0 (+7.5, best so far); "
        "expected 21.5 to 25.5 from 2 earlier runs: on the curve",
        "iteration 8, 400 images: box AP 27.0 (+4.0, best so far); "
        "expected 24.0 to 28.0 from 2 earlier runs: on the curve",
        "iteration 10, 500 images: box AP 60.0 (+33.0, best so far); "
        "expected 26.5 to 30.5 from 2 earlier runs: above it by 29.5",
    ]


def test_expected_runs_have_to_be_there(tmp_path):
    with pytest.raises(UserError, match=r"nothing/metrics\.json does not exist"):
        Trend(str(tmp_path), 16, [tmp_path / "nothing"])
