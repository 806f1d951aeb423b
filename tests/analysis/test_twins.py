"""Runs that differ in their precision beside runs that differ in their seed: by hand."""

import json

import pytest

from rethink_pretrain.analysis.twins import loss_distance, twin_table


def test_the_distance_is_the_mean_over_iterations_that_both_have():
    one = [{"iteration": 19, "total_loss": 2.0}, {"iteration": 39, "total_loss": 1.0}]
    other = [
        {"iteration": 19, "total_loss": 2.5},
        {"iteration": 39, "total_loss": 0.9},
        {"iteration": 59, "total_loss": 9},
    ]
    assert loss_distance(one, other) == pytest.approx((0.5 + 0.1) / 2)
    with pytest.raises(ValueError, match="no loss at the same iteration"):
        loss_distance(one, other[2:])


def test_the_table(tmp_path):
    def write(name, loss, box, mask):
        folder = tmp_path / name
        folder.mkdir()
        rows = [{"iteration": 19, "total_loss": loss}, {"iteration": 20, "bbox/AP": box, "segm/AP": mask}]
        (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    folders = {
        0: (write("a", 2.0, 10, 8), write("b", 2.01, 12, 9)),
        1: (write("c", 2.5, 20, 18), write("d", 2.4, 20, 16)),
    }
    assert twin_table(folders)[2:] == [
        "| 0 | 10.0 / 8.0 | 12.0 / 9.0 | 0.010 | 0.500 |",
        "| 1 | 20.0 / 18.0 | 20.0 / 16.0 | 0.100 | 0.500 |",
        "| mean | 15.0 / 13.0 | 16.0 / 12.5 | | |",
    ]
