"""Tables against numbers worked out by hand; intervals against scipy."""

import math

import pytest
from scipy.stats import ttest_ind
from test_comparison import BATCH, cell_of, run_of

from rethink_pretrain.analysis.comparison import compare_arms
from rethink_pretrain.analysis.comparison_tables import (
    best_cells,
    cost,
    last_evaluation,
    table_at_equal_budget,
    table_by_length,
    table_by_metric,
    table_of_costs,
    tables_by_category,
)
from rethink_pretrain.analysis.page import Section, Value, write_page
from rethink_pretrain.analysis.statistics import Interval

PRETRAINING = {"images": 4000, "instances": 4000, "pixels": 4e6, "recipe": "toy"}


def session(pixels, *, pretraining=None, seconds=1800.0, processes=2) -> dict:
    weights = {"pretraining": pretraining} if pretraining else {}
    samples = {"images": 1000, "instances": 3000, "pixels": pixels}
    hardware = {"processes": processes}
    return {"samples": samples, "weights": weights, "train_seconds": seconds, "hardware": hardware}


def texts(table) -> list[list]:
    return [[cell.text if isinstance(cell, Value) else cell for cell in row] for row in table.rows]


def brackets(values, reference) -> str:
    """The gap by scipy, as a table has it."""
    low, high = ttest_ind(values, reference, equal_var=False).confidence_interval(0.95)
    return f"{sum(values) / len(values) - sum(reference) / len(reference):+.1f} ({low:+.1f} to {high:+.1f})"


class TestByLength:
    def test_values_and_gaps(self):
        runs = [*cell_of("w", 2, [40.0, 41.0, 42.0]), *cell_of("random", 2, [30.0, 31.0, 32.0])]
        runs += [*cell_of("w", 6, [43.0]), *cell_of("random", 6, [41.0, 42.0]), *cell_of("random", 9, [45.5])]
        table = table_by_length(compare_arms(runs))
        assert table.headers == ("start", "2x", "6x", "9x")
        assert texts(table) == [
            ["w", "41.0 ± 1.0 (3)", "43.0 (1)", None],
            ["random weights", "31.0 ± 1.0 (3)", "41.5 ± 0.7 (2)", "45.5 (1)"],
            ["random weights minus w", "-10.0 (-12.3 to -7.7), behind", "-1.5, undecided", None],
        ]
        assert [cell.sort for cell in table.rows[2][1:3]] == [-10.0, -1.5]
        assert "95 % intervals over seeds (Welch); equal is within 0.4 for certain." in table.caption

    def test_bases_in_the_caption(self):
        images = Interval(-3.5, -4.1, -2.9, "images")
        runs = [run_of(), run_of("w")]
        assert (
            "by paired bootstrap" in table_by_length(compare_arms(runs, bootstrap=lambda *_: images)).caption
        )
        assert "too few runs of each" in table_by_length(compare_arms(runs)).caption


class TestByMetric:
    @pytest.fixture
    def runs(self):
        """Of pre-trained runs the shorter are better, of random ones the longer."""
        runs = []
        for arm, length, base in (("w", 2, 40.0), ("w", 6, 39.0), ("random", 2, 20.0), ("random", 6, 38.0)):
            for seed in (0, 1, 2):
                box = base + seed
                more = {"segm/AP": box / 2, "bbox/AP50": box + 20 + seed, "bbox/APl": math.nan}
                more |= {"bbox/AP-cat": box + (5 if arm == "w" else 1), "bbox/AP-dog": box, "rpn/x": 1.0}
                runs.append(run_of(arm, length, box, seed, **more))
        return runs

    def test_each_arm_at_its_best_length(self, runs):
        c = compare_arms(runs)
        assert {arm: cell.length for arm, cell in best_cells(c).items()} == {"w": "2x", "random": "6x"}
        table = table_by_metric(runs, c)
        assert table.headers == ("metric", "w, 2x", "random weights, 6x", "random weights minus w")
        gap = brackets([38, 39, 40], [40, 41, 42])
        assert texts(table) == [
            ["box AP", 41.0, 39.0, gap],
            ["box AP50", 62.0, 60.0, brackets([58, 60, 62], [60, 62, 64])],
            ["box AP, large objects", None, None, None],
            ["mask AP", 20.5, 19.5, brackets([19, 19.5, 20], [20, 20.5, 21])],
        ]
        assert "The best of several lengths is in part the luckiest" in table.caption

    def test_of_lengths_that_all_arms_have(self, runs):
        """Else a study that is half done compares its ends."""
        runs = [run for run in runs if (run.arm, run.schedule) != ("random", "6x")]
        assert [cell.length for cell in best_cells(compare_arms(runs)).values()] == ["2x", "2x"]
        runs = [run for run in runs if (run.arm, run.schedule) != ("w", "2x")]
        assert [cell.length for cell in best_cells(compare_arms(runs)).values()] == ["6x", "2x"]

    def test_categories_by_gap(self, runs):
        (table,) = tables_by_category(runs, compare_arms(runs))
        assert texts(table) == [
            ["dog", 41.0, 39.0, brackets([38, 39, 40], [40, 41, 42])],
            ["cat", 46.0, 40.0, brackets([39, 40, 41], [45, 46, 47])],
        ]
        assert table.caption.startswith("Box AP by category")
        assert table.caption.endswith("Of 2 intervals some miss the truth by chance alone.")

    def test_one_arm_alone(self, runs):
        alone = [run for run in runs if run.arm == "w"]
        table = table_by_metric(alone, compare_arms(alone))
        assert table.headers == ("metric", "w, 2x")
        assert table.rows[0] == ("box AP", 41.0)
        (categories,) = tables_by_category(alone, compare_arms(alone))
        assert [row[0] for row in categories.rows] == ["cat", "dog"]

    def test_one_run_of_each_has_no_interval(self):
        runs = [run_of(value=40.0), run_of("w", value=41.0)]
        table = table_by_metric(runs, compare_arms(runs))
        assert texts(table) == [["box AP", 41.0, 40.0, "-1.0"]]
        assert "bracket" not in table.caption

    def test_the_last_evaluation(self, runs):
        assert set(last_evaluation(runs[0], "bbox/AP")) == {
            *("bbox/AP", "bbox/AP50", "bbox/APl", "bbox/AP-cat", "bbox/AP-dog", "segm/AP")
        }
        assert last_evaluation(runs[0], "keypoints/AP") == {}


@pytest.fixture
def costly():
    """Each visit of 1x costs 1 M pixels; pre-training 4 M, as much as 4x."""
    runs = []
    for length, random_ap, tuned_ap in ((2, 20.0, 38.0), (4, 35.0, 40.0), (6, 41.0, 39.0)):
        pixels = 1e6 * length
        runs.append(run_of(length=length, value=random_ap, sessions=[session(pixels)]))
        # Other draws of sizes: a little more than the other arm.
        told = [session(1.002 * pixels, pretraining=PRETRAINING)]
        runs.append(run_of("w", length, tuned_ap, sessions=told))
    return runs


class TestCosts:
    def test_phases_and_their_sum(self, costly):
        table = table_of_costs(compare_arms(costly))
        assert table.headers[2:] == (
            *("training: images", "training: instances", "training: pixels"),
            *("pre-training: images", "pre-training: instances", "pre-training: pixels"),
            *("total: images", "total: instances", "total: pixels", "hours x processes"),
        )
        rows = texts(table)
        tuned = ["1.0 k", "3.0 k", "2.0 M", "4.0 k", "4.0 k", "4.0 M", "5.0 k", "7.0 k", "6.0 M", 1.0]
        assert rows[0] == ["w", "2x", *tuned]
        plain = ["1.0 k", "3.0 k", "6.0 M", "0", "0", "0", "1.0 k", "3.0 k", "6.0 M", 1.0]
        assert rows[-1] == ["random weights", "6x", *plain]

    def test_unknown_is_blank(self):
        """Images follow from iterations and the batch; the weights are nobody's."""
        table = table_of_costs(compare_arms([run_of("w"), run_of()]))
        images = f"{600 * BATCH / 1000:.1f} k"
        assert texts(table) == [
            ["w", "6x", images, *[None] * 9],
            ["random weights", "6x", images, None, None, "0", "0", "0", images, None, None, None],
        ]

    def test_mean_over_seeds(self):
        runs = [run_of(seed=seed, sessions=[session(1e6 * (1 + seed))]) for seed in (0, 1, 2)]
        c = compare_arms(runs)
        cell = c.cells["random", "6x"]
        assert [cost(cell, axis) for axis in ("pixels", "images", "iterations", "hours")] == [
            2e6,
            1000,
            600,
            1.0,
        ]

    def test_hours_of_all_sessions(self):
        two = [session(1e6, seconds=3600.0, processes=1), session(1e6, seconds=900.0, processes=8)]
        cell = compare_arms([run_of(sessions=two)]).cells["random", "6x"]
        assert cost(cell, "hours") == 3.0

    def test_unknown_axis(self, costly):
        cell = compare_arms(costly).cells["w", "6x"]
        with pytest.raises(ValueError, match=r"Choose from \['hours', 'images'"):
            cost(cell, "dollars")


class TestEqualBudget:
    def test_without_pretraining(self, costly):
        """Budgets that differ by 0.2 % are one; the best length, not the longest."""
        table = table_at_equal_budget(compare_arms(costly), "pixels", charged=False)
        assert table.headers == ("pixels seen", "w", "random weights", "random weights minus w")
        assert texts(table) == [
            ["2.0 M", "38.0 (2x)", "20.0 (2x)", "-18.0"],
            ["4.0 M", "40.0 (4x)", "35.0 (4x)", "-5.0"],
            ["6.0 M", "40.0 (4x)", "41.0 (6x)", "+1.0"],
        ]
        assert "pre-training not charged" in table.caption

    def test_with_pretraining(self, costly):
        table = table_at_equal_budget(compare_arms(costly), "pixels", charged=True)
        assert texts(table) == [
            ["2.0 M", None, "20.0 (2x)", None],
            ["4.0 M", None, "35.0 (4x)", None],
            ["6.0 M", "38.0 (2x)", "41.0 (6x)", "+3.0"],
            ["8.0 M", "40.0 (4x)", "41.0 (6x)", "+1.0"],
            ["10.0 M", "40.0 (4x)", "41.0 (6x)", "+1.0"],
        ]
        assert [row[0].sort for row in table.rows[:2]] == [2e6, 4e6]

    def test_iterations(self, costly):
        c = compare_arms(costly)
        assert [row[0] for row in table_at_equal_budget(c, "iterations", False).rows] == [200, 400, 600]
        charged = table_at_equal_budget(c, "iterations", True)
        assert all(row[1] is None for row in charged.rows)
        assert charged.caption.endswith("What some runs of w cost is unknown; they are left out.")

    def test_seeds_have_intervals(self):
        runs = [*cell_of("random", 2, [1.0, 2.0, 3.0]), *cell_of("w", 2, [2.0, 3.0, 5.0])]
        table = table_at_equal_budget(compare_arms(runs), "images", charged=False)
        assert texts(table) == [["3.2 k", "3.3 ± 1.5 (2x)", "2.0 ± 1.0 (2x)", brackets([1, 2, 3], [2, 3, 5])]]

    def test_nothing_known(self):
        assert table_at_equal_budget(compare_arms([run_of(), run_of("w")]), "pixels", False).rows == []


@pytest.mark.parametrize("runs", [[], [run_of("unknown")], [run_of(done=100), run_of("w")]])
def test_no_cells_are_no_error(runs, tmp_path):
    c = compare_arms(runs)
    tables = [table_by_length(c), table_by_metric(runs, c), *tables_by_category(runs, c), table_of_costs(c)]
    tables += [table_at_equal_budget(c, "images", charged) for charged in (False, True)]
    write_page(tmp_path / "page.html", "page", [Section("tables", tables)])
