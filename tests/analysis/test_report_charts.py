"""The lines of charts, as matplotlib holds them."""

import pytest

from rethink_pretrain.analysis.comparison import Cell, Comparison
from rethink_pretrain.analysis.curves import Spread
from rethink_pretrain.analysis.report_charts import (
    Line,
    Point,
    colors_of,
    plot_costs,
    plot_curves,
    plot_final,
    plot_fits,
    short_length,
)
from rethink_pretrain.analysis.statistics import CatchUp, Interval

POINTS = [Spread(100, 1, 0.5, 1.5), Spread(200, 2, 1.5, 3)]


def words_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def a_comparison(gaps):
    """Two lengths, at the second of which the reference has no run."""
    cells = [("w", "1x", [40.0, 41.0]), ("random", "1x", [30.0, 32.0]), ("random", "2x", [41.0])]
    return Comparison(
        metric="bbox/AP",
        reference="w",
        arms=["w", "random"],
        lengths=["1x", "2x"],
        cells={(arm, length): Cell(arm, length, [], values) for arm, length, values in cells},
        gaps=gaps,
        states={("random", "1x"): "behind", ("random", "2x"): "undecided"},
        catch_ups={"random": CatchUp(None, 0, None)},
        margin=0.4,
        confidence=0.95,
        verdict="",
        left_out=[],
    )


def test_an_arm_keeps_its_colour():
    both = colors_of(["b.pth", "random", "a.pth"])
    assert both == colors_of(["random", "a.pth", "b.pth", "unknown"])
    assert len({both[arm] for arm in ("random", "unknown", "a.pth", "b.pth")}) == 4


def test_curves():
    lines = [
        Line("random", "2x", POINTS),
        Line("w", "1x", POINTS[:1]),
        Line("w", "2x", POINTS, finished=False),
    ]
    figure = plot_curves([*lines, Line("w", "3x", [])], "hours", "AP-$\\sum")
    (axes,) = figure.axes
    drawn = [line for line in axes.lines if len(line.get_xdata())]
    curves = [line for line in drawn if line.get_linestyle() != "None"]
    assert [list(line.get_ydata()) for line in curves] == [[1, 2], [1], [1, 2]]
    assert [line.get_linestyle() for line in curves] == ["-", "-", "--"]
    dots = [line for line in drawn if line.get_linestyle() == "None"]
    assert [tuple(dot.get_xydata()[0]) for dot in dots] == [(200, 2), (100, 1)]  # where a length ended
    assert [text.get_text() for text in axes.texts] == ["1x", "2x"]
    assert len(axes.collections) == 3  # bands
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("hours of training steps", "AP-$\\sum")
    assert axes.get_xlim()[0] == axes.get_ylim()[0] == 0
    assert words_of(figure) == ["random weights", "w"]


def test_no_formulas(tmp_path):
    figure = plot_curves([Line("_x^$\\frac$", "1x", POINTS), Line("long" * 30, "1x", POINTS)], "images", "AP")
    figure.savefig(tmp_path / "chart.svg")  # a formula that is none would raise
    first, second = words_of(figure)
    assert first == "_x^$\\frac$" and len(second) == 44 and second.startswith("…")


def test_final_values_and_gaps():
    gaps = {("random", "1x"): Interval(-9.5, -11, -8, "seeds"), ("random", "2x"): None}
    above, below = plot_final(a_comparison(gaps), "box AP").axes
    means = [line for line in above.lines if line.get_linestyle() == "-" and len(line.get_xdata())]
    assert [list(line.get_ydata()) for line in means] == [[40.5], [31, 41]]
    (gap,) = [line for line in below.lines if line.get_marker() == "v"]
    assert list(gap.get_ydata()) == [-9.5]
    assert below.get_yscale() == "symlog" and below.get_ylim()[0] < -11
    assert [text.get_text() for text in below.get_xticklabels()] == ["1x", "2x"]


def test_gaps_near_the_margin_stand_on_a_plain_axis():
    gaps = {("random", "1x"): Interval(-0.5, -1, 0, "images"), ("random", "2x"): None}
    _, below = plot_final(a_comparison(gaps), "box AP").axes
    assert below.get_yscale() == "linear"
    (gap,) = [line for line in below.lines if line.get_marker() == "v"]
    assert gap.get_markerfacecolor() == "none"  # not over seeds


def test_one_arm_has_no_gaps():
    alone = a_comparison({})._replace(arms=["w"])
    (axes,) = plot_final(alone, "box AP").axes
    assert axes.get_xlabel() == "length of training"


def test_costs():
    points = [Point("w", 200, 41), Point("w", 100, 40), Point("random", 100, 30)]
    figure = plot_costs({"training alone": points, "charged": points[:1]}, "box AP", "pixels seen")
    first, second = figure.axes
    assert [axes.get_title() for axes in (first, second)] == ["training alone", "charged"]
    assert first.lines[0].get_xydata().tolist() == [[100, 40], [200, 41]]
    assert len(first.lines[1].get_xdata()) == len(second.lines[0].get_xdata()) == 1
    assert first.get_ylim() == second.get_ylim()


def test_fits_fall_to_the_right():
    figure = plot_fits({"w": [[(2.0, 10.0), (1.0, 12.0)]], "random": []}, "box AP")
    (axes,) = figure.axes
    left, right = axes.get_xlim()
    assert left > 2 > 1 > right and axes.lines[0].get_xydata().tolist() == [[2, 10], [1, 12]]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("6x", "6x"),
        ("540,000 iterations", "540k"),
        ("1,500 iterations", "1.5k"),
        ("8.6M images seen", "…images seen"),
    ],
)
def test_short_lengths(words, expected):
    assert short_length(words) == expected
