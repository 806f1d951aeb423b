import math

import pytest
from detectron2.utils import comm
from watch_loop import Loop, aps, write_metrics

from rethink_pretrain.engine.watch.early_stop import EarlyStopping, fruitless


def run(output, values, patience, last_drop=0, **where):
    hook = EarlyStopping(
        "bbox/AP", patience, last_drop=last_drop, eval_period=Loop.period, output_dir=str(output)
    )
    return Loop(aps(*values), [hook], output, **where).run()


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([], 0),
        ([(True, 1.0)], 0),
        ([(True, 1.0), (True, 1.0), (True, 0.5)], 2),
        ([(True, 1.0), (True, 0.5), (True, 2.0)], 0),
        ([(False, 1.0), (False, 0.5), (True, 0.7)], 1),
        ([(False, 3.0), (True, 1.0), (True, 2.0)], 2),  # rising, but no new best
    ],
)
def test_fruitless(values, count):
    assert fruitless(values) == count


def test_training_ends_when_patience_does(tmp_path):
    loop = run(tmp_path, [1.0, 3.0, 2.0, 2.5, 9.0, 9.0], patience=2)
    assert (loop.iter, loop.stopped) == (7, "bbox/AP 2.50, 2 evaluations without more than 3.00")


def test_getting_better_it_goes_on(tmp_path):
    loop = run(tmp_path, [1.0, 0.5, 2.0, 0.5, 3.0], patience=2)
    assert (loop.iter, loop.stopped) == (10, "")


def test_before_the_last_drop_nothing_counts(tmp_path):
    """Four evaluations up to iteration 8, where the rate drops; the leap then begins the count."""
    loop = run(tmp_path, [5.0, 4.0, 4.0, 4.0, 7.0, 6.0, 6.0, 6.0], patience=2, last_drop=8)
    assert loop.iter + 1 == 14


def test_nan_counts_as_not_measured(tmp_path):
    loop = run(tmp_path, [3.0, math.nan, math.nan, 2.0, 2.0, 2.0], patience=2)
    assert loop.iter + 1 == 10


def test_a_resumed_run_goes_on_counting(tmp_path):
    write_metrics(tmp_path, (1, 3.0), (3, 2.0), (5, 2.0), (7, 9.0))
    loop = run(tmp_path, [2.0, 2.0, 2.0], patience=3, start=6)
    assert loop.iter + 1 == 8


def test_a_process_without_metrics_stops_when_the_main_one_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(comm, "all_gather", lambda mine: ["the main process says so", mine])
    hook = EarlyStopping("bbox/AP", 1, last_drop=0, eval_period=2, output_dir=str(tmp_path))
    loop = Loop([{}, {}], [hook], tmp_path).run()
    assert (loop.iter + 1, loop.stopped) == (2, "the main process says so")


def test_processes_meet_only_at_evaluations(tmp_path, monkeypatch):
    meetings = []
    monkeypatch.setattr(comm, "all_gather", lambda mine: meetings.append(mine) or [mine])
    run(tmp_path, [1.0, 2.0, 3.0], patience=1)
    assert meetings == ["", ""]  # the third evaluation is the end anyway
