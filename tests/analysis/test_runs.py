import json
import math

import pytest

from rethink_pretrain.analysis.runs import read_metrics, series
from rethink_pretrain.errors import UserError


def write(path, rows, tail=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


def test_rows_repeated_by_a_resume_count_once_and_the_later_wins(tmp_path):
    path = write(
        tmp_path / "metrics.json",
        [
            {"iteration": 19, "loss": 3.0},
            {"iteration": 39, "loss": 2.0, "bbox/AP": 1.0},
            {"iteration": 19, "loss": 2.5},
            {"iteration": 39, "loss": 1.5},
        ],
    )
    assert read_metrics(path) == [
        {"iteration": 19, "loss": 2.5},
        {"iteration": 39, "loss": 1.5, "bbox/AP": 1.0},
    ]


def test_a_last_line_cut_off_by_a_kill_is_left_out(tmp_path):
    path = write(tmp_path / "metrics.json", [{"iteration": 1, "x": 1}], tail='{"iteration": 2, "x"')
    assert [row["iteration"] for row in read_metrics(path)] == [1]


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"loss": 1}'])
def test_anything_else_is_named_with_its_line(tmp_path, line):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 1}\n' + line + '\n{"iteration": 2}\n')
    with pytest.raises(UserError, match=r"metrics\.json, line 2"):
        read_metrics(path)


def test_a_missing_file_says_where_runs_write_it(tmp_path):
    with pytest.raises(UserError, match="OUTPUT_DIR"):
        read_metrics(tmp_path / "metrics.json")


def test_series_leaves_out_what_was_not_measured():
    rows = [
        {"iteration": 1, "a": 5.0},
        {"iteration": 2},
        {"iteration": 3, "a": math.nan},
        {"iteration": 4, "a": 0},
    ]
    assert series(rows, "a") == ([1, 4], [5.0, 0])
