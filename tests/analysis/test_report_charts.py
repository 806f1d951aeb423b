"""The lines of a chart, as matplotlib holds them."""

import pytest
from made_runs import make_run

from rethink_pretrain.analysis.report_charts import plot_curves
from rethink_pretrain.analysis.runs import read_runs

CURVE = [(100.0, 1.0), (200.0, 2.0)]


@pytest.fixture
def runs(tmp_path):
    return read_runs(
        [
            make_run(tmp_path / "a0"),
            make_run(tmp_path / "a1"),
            make_run(tmp_path / "long", aps=(1, 2, 3)),
            make_run(tmp_path / "w", weights="w.pth"),
            make_run(tmp_path / "unknown", config=False),
        ]
    )


def test_start_is_the_color_length_the_style_and_repeats_the_marker(runs):
    figure = plot_curves(runs, [CURVE] * 5, "images", "box AP")
    (axes,) = figure.axes
    first, repeat, longer, tuned, unknown = axes.lines
    assert first.get_color() == repeat.get_color() == longer.get_color()
    assert len({line.get_color() for line in (first, tuned, unknown)}) == 3
    assert first.get_linestyle() == repeat.get_linestyle() == tuned.get_linestyle()
    assert first.get_linestyle() != longer.get_linestyle()
    assert first.get_marker() == longer.get_marker() == tuned.get_marker() != repeat.get_marker()


def test_what_is_drawn(runs):
    figure = plot_curves(runs, [CURVE, [], CURVE, CURVE, CURVE], "hours", "box AP", marked=False)
    (axes,) = figure.axes
    assert [list(zip(*line.get_data(), strict=True)) for line in axes.lines] == [CURVE, [], *[CURVE] * 3]
    assert {line.get_marker() for line in axes.lines} == {""}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("hours of training steps", "box AP")
    assert axes.get_xlim()[0] == axes.get_ylim()[0] == 0


def test_names_in_the_legend_are_no_formulas(tmp_path):
    runs = read_runs([make_run(tmp_path / name) for name in ("_x^$\\frac$", "long" * 30)])
    figure = plot_curves(runs, [CURVE, CURVE], "images", "AP-$\\sum")
    figure.savefig(tmp_path / "chart.svg")  # a formula that is none would raise
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words[0] == "random, 200 iterations: _x^$\\frac$"
    assert len(words[1]) == 52 and words[1].startswith("… ")
