"""A comparison as files, read back."""

import csv
import json
import math
from xml.etree import ElementTree

import pytest
from made_runs import make_run
from matplotlib.figure import Figure
from PIL import Image

from rethink_pretrain.analysis.comparison import compare_arms
from rethink_pretrain.analysis.export import as_data, curves_table, write_files
from rethink_pretrain.analysis.page import Chart, Columns, Section, Table, Text, Value
from rethink_pretrain.analysis.runs import read_runs
from rethink_pretrain.errors import UserError


def test_files(tmp_path):
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    chart = Chart(figure, "c")
    table = Table(("a, b", "c"), [(Value("1 ± 2", 1.0), None), ('"x"', math.nan), (3, 0.125)])
    sections = [Section("The answer", [Text("t"), Columns([chart, chart])]), Section("B/c", [table, chart])]
    files = write_files(tmp_path / "out" / "deep", sections)
    assert sorted(path.name for path in files) == [
        *("b_c_01.csv", "b_c_01.png", "b_c_01.svg"),
        *(f"the_answer_0{n}.{kind}" for n in (1, 2) for kind in ("png", "svg")),
    ]
    with open(tmp_path / "out" / "deep" / "b_c_01.csv", newline="") as file:
        assert list(csv.reader(file)) == [["a, b", "c"], ["1 ± 2", ""], ['"x"', ""], ["3", "0.125"]]
    assert Image.open(tmp_path / "out" / "deep" / "b_c_01.png").size == (400, 200)
    assert (
        ElementTree.parse(tmp_path / "out" / "deep" / "b_c_01.svg").getroot().get("viewBox") == "0 0 144 72"
    )


def test_the_same_figure_is_the_same_file(tmp_path):
    for folder in "ab":
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([1, 2])
        write_files(tmp_path / folder, [Section("s", [Chart(figure, "c")])])
    for kind in ("svg", "png"):
        first, second = ((tmp_path / folder / f"s_01.{kind}").read_bytes() for folder in "ab")
        assert first == second


def test_curves(tmp_path):
    runs = read_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b", weights="w.pth", SEED=4)])
    table = curves_table(runs, "bbox/AP", "images")
    assert table.rows == [
        ("a", "random", "200 iterations", 1, 100, 1600, 10.0),
        ("a", "random", "200 iterations", 1, 200, 3200, 20.0),
        ("b", "w.pth", "200 iterations", 4, 100, 1600, 10.0),
        ("b", "w.pth", "200 iterations", 4, 200, 3200, 20.0),
    ]


def test_data(tmp_path):
    """Two seeds of each arm at one length, one of one arm at another."""
    runs = [make_run(tmp_path / f"a{s}", aps=(1.0, 20.0 + s), SEED=s) for s in (0, 1)]
    runs += [make_run(tmp_path / f"b{s}", aps=(1.0, 31.0 + s), SEED=s, weights="w") for s in (0, 1)]
    comparison = compare_arms(read_runs([*runs, make_run(tmp_path / "c", aps=(1.0,))]))
    data = json.loads(json.dumps(as_data(comparison), allow_nan=False))
    assert data["arms"] == ["w", "random"] and data["lengths"] == ["100 iterations", "200 iterations"]
    assert data["verdict"] == comparison.verdict
    assert {
        "arm": "random",
        "length": "200 iterations",
        "runs": ["a0", "a1"],
        "values": [20.0, 21.0],
        "seeds": [0, 1],
    } in data["cells"]
    short, long = data["gaps"]
    assert short == {
        "arm": "random",
        "length": "100 iterations",
        "state": "undecided",
        **dict.fromkeys(("estimate", "low", "high", "basis")),
    }
    # Welch by hand: both variances 0.5, so 2 degrees of freedom, whose 97.5 % quantile is 4.3027.
    assert long["estimate"] == -11 and long["low"] == pytest.approx(-11 - 4.302653 * 0.5**0.5)
    assert (long["state"], long["basis"]) == ("behind", "seeds")
    assert data["catch_ups"] == {"random": {"at": None, "after": "200 iterations", "by": None}}


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        write_files(tmp_path / "file", [])
