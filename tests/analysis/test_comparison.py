"""Runs with values that the test knows, grouped, set against each other with scipy, and judged."""

import math
import random

import pytest
from made_runs import make_published, make_study
from scipy.stats import ttest_ind

from rethink_pretrain.analysis.comparison import LeftOut, compare_arms, shared_confidence
from rethink_pretrain.analysis.runs import RunData, read_runs
from rethink_pretrain.analysis.statistics import (
    AHEAD,
    BEHIND,
    EQUAL,
    UNDECIDED,
    CatchUp,
    Interval,
)
from rethink_pretrain.errors import UserError

BATCH = 16
SEEDS = (41.0, 41.2, 41.4)


def run_of(
    arm="random", length=6, value=41.0, seed=0, *, done=None, label="", sessions=(), **metrics
) -> RunData:
    """A run of 100 iterations for each unit of `length`, of which `done` are done; "6x" without a `label`."""
    steps = round(100 * length)
    rows = [{"iteration": i, "total_loss": 1.0 + seed, "time": 0.5} for i in range(19, done or steps, 20)]
    rows.append({"iteration": done - 1 if done else steps, "bbox/AP": value, **metrics})
    config = {
        "MODEL.WEIGHTS": "" if arm == "random" else arm,
        "SOLVER.MAX_ITER": steps,
        "SOLVER.IMS_PER_BATCH": BATCH,
        "SEED": seed,
        "RETHINK.SCHEDULE": f"{length}x" if label == "" else label,
    }
    return RunData(f"{arm}-{length}x-{seed}", arm, rows, config, list(sessions))


def cell_of(arm, length, values) -> list[RunData]:
    """A run a value, each of its own seed."""
    return [run_of(arm, length, value, seed) for seed, value in enumerate(values)]


def no_config(name, arm, length, value) -> RunData:
    run = run_of(arm, length, value)
    return run._replace(name=name, config={})


class TestCells:
    def test_values_of_seeds(self):
        c = compare_arms([*cell_of("random", 6, SEEDS), *cell_of("w", 6, [40.0, 42.0])])
        assert (c.arms, c.reference, c.others, c.lengths) == (["w", "random"], "w", ["random"], ["6x"])
        assert c.cells["random", "6x"].values == [41.0, 41.2, 41.4]
        assert c.cells["w", "6x"].mean == 41.0
        assert c.cells["w", "6x"].deviation == pytest.approx(math.sqrt(2))
        assert c.left_out == []

    def test_one_value_has_no_deviation(self):
        assert compare_arms([run_of(), run_of("w")]).cells["w", "6x"].deviation is None

    def test_only_finished_runs_of_known_start(self):
        runs = [
            run_of(done=300, seed=1),
            run_of("unknown"),
            run_of(value=math.nan, seed=2),
            run_of(),
            run_of("w"),
            run_of("w", seed=5)._replace(name="later"),
            run_of("w", seed=5)._replace(name="again"),
        ]
        c = compare_arms(runs)
        assert {key: len(cell.runs) for key, cell in c.cells.items()} == {("random", "6x"): 1, ("w", "6x"): 2}
        assert c.left_out == [
            LeftOut("random-6x-1", "not finished: its last value is at 300 of 600 iterations"),
            LeftOut("unknown-6x-0", "its start is unknown"),
            LeftOut("random-6x-2", "no value of bbox/AP"),
            LeftOut("again", "the same seed as later, so no second observation"),
        ]

    def test_a_copy_of_unknown_seed(self, tmp_path):
        paths = [
            make_published(tmp_path / name / "metrics.json", length=2000, period=1000) for name in ("a", "b")
        ]
        other = make_published(tmp_path / "c" / "metrics.json", length=2000, period=1000, top=41.0)
        c = compare_arms(read_runs([*paths, other], ["random"] * 3))
        assert [name for name, _ in c.left_out] == ["b"]

    def test_lengths_by_their_images(self):
        """Not by their names, of which equal lengths may have two."""
        runs = [
            run_of(length=10, seed=1),
            run_of(length=9),
            run_of("w", length=9, label=None),
            no_config("zoo", "w", 10, 41.0),
        ]
        c = compare_arms(runs)
        assert c.lengths == ["9x", "10x"]
        assert set(c.cells) == {(arm, length) for arm in ("w", "random") for length in c.lengths}

    def test_one_name_for_two_lengths(self):
        c = compare_arms([run_of(length=2), run_of(length=4, label="2x"), run_of("w", 4, label="4x")])
        assert c.lengths == ["2x (200 iterations)", "2x (400 iterations)"]

    def test_a_name_without_a_schedule(self):
        assert compare_arms([no_config("a", "random", 20, 1.0)]).lengths == ["2,000 iterations"]

    def test_of_files(self, tmp_path):
        runs = read_runs(make_study(tmp_path, lengths=(1, 3), seeds=(0, 1)))
        c = compare_arms(runs)
        assert c.lengths == ["1x", "3x"]
        assert all(len(cell.values) == 2 for cell in c.cells.values())
        assert c.states["random", "1x"] == BEHIND


class TestReference:
    def test_is_the_other_than_random(self):
        assert compare_arms([run_of(), run_of("w")]).reference == "w"

    def test_by_name(self):
        c = compare_arms([run_of("b"), run_of("w"), run_of()], reference="b")
        assert c.arms == ["b", "random", "w"]

    def test_has_to_be_named(self):
        with pytest.raises(UserError, match=r"could be the reference; name one of b, w, random\.$"):
            compare_arms([run_of("b"), run_of("w"), run_of()])

    def test_must_be_there(self):
        with pytest.raises(UserError, match=r"No run is of the arm R, the reference; there are random, w\.$"):
            compare_arms([run_of(), run_of("w")], reference="R")

    @pytest.mark.parametrize(
        ("runs", "words"),
        [
            ([], "No answer: no run tells what it started from."),
            ([run_of("unknown")], "No answer: no run tells what it started from."),
            ([run_of()], "No answer: all runs are of one arm, random."),
        ],
    )
    def test_nothing_to_compare(self, runs, words):
        c = compare_arms(runs)
        assert (c.verdict, c.gaps, c.catch_ups) == (words, {}, {})


class TestGaps:
    def test_are_those_of_scipy(self):
        other = [42.0, 42.9]
        c = compare_arms([*cell_of("random", 6, SEEDS), *cell_of("w", 6, other)])
        oracle = ttest_ind(SEEDS, other, equal_var=False).confidence_interval(0.95)
        gap = c.gaps["random", "6x"]
        assert gap.estimate == pytest.approx(41.2 - 42.45)
        assert (gap.low, gap.high) == pytest.approx((oracle.low, oracle.high))
        assert (c.confidence, gap.basis) == (0.95, "seeds")

    def test_of_several_arms_hold_together(self):
        runs = [run for arm in ("random", "v", "w") for run in cell_of(arm, 6, SEEDS)]
        runs += cell_of("w", 1, SEEDS[:2])
        c = compare_arms(runs, reference="w")
        assert c.confidence == pytest.approx(0.975)
        oracle = ttest_ind(SEEDS, SEEDS, equal_var=False).confidence_interval(0.975)
        assert c.gaps["v", "6x"][1:3] == pytest.approx((oracle.low, oracle.high))
        assert c.gaps["v", "1x"] is None
        assert set(c.states) == {(arm, length) for arm in ("random", "v") for length in ("1x", "6x")}

    def test_share_of_confidence(self):
        assert [shared_confidence(0.95, others) for others in (0, 1, 5)] == pytest.approx([0.95, 0.95, 0.99])

    def test_of_one_run_each_by_bootstrap(self):
        calls = []

        def bootstrap(run, reference):
            calls.append((run.name, reference.name))
            return Interval(-3.5, -4.1, -2.9, "images")

        runs = [run_of(), run_of("w"), run_of(length=1), *cell_of("w", 1, SEEDS)]
        c = compare_arms(runs, bootstrap=bootstrap)
        assert calls == [("random-6x-0", "w-6x-0")]
        assert c.gaps["random", "6x"].basis == "images"
        assert c.gaps["random", "1x"] is None
        assert c.states == {("random", "1x"): UNDECIDED, ("random", "6x"): BEHIND}

    def test_a_length_of_one_arm_bars_no_claim(self):
        """Nor does one with too few runs, and the catch-up still counts all lengths."""
        runs = [*cell_of("random", 9, SEEDS), run_of(length=1), *cell_of("w", 1, SEEDS)]
        for length, gap in ((2, -5.0), (6, 3.0)):
            runs += [*cell_of("w", length, SEEDS), *cell_of("random", length, [v + gap for v in SEEDS])]
        c = compare_arms(runs)
        assert c.lengths == ["1x", "2x", "6x", "9x"]
        assert [c.states["random", length] for length in c.lengths] == [UNDECIDED, BEHIND, AHEAD, UNDECIDED]
        assert c.catch_ups["random"] == CatchUp(at=2, after=1, by=2)
        assert c.verdict.endswith("Too few runs to judge: 1x.")


def study(gaps, deviation, draw, seeds=3) -> list[RunData]:
    """Lengths 1x, 2x, ...: pre-trained runs with means that rise, and random ones that differ by `gaps`."""
    runs = []
    for number, gap in enumerate(gaps, 1):
        reference = 40 + number
        for arm, mean in (("w", reference), ("random", reference + gap)):
            runs += cell_of(arm, number, [draw.gauss(mean, deviation) for _ in range(seeds)])
    return runs


class TestKnownTruth:
    def test_no_difference_names_a_winner_in_at_most_a_tenth(self):
        draw = random.Random(0)
        verdicts = [compare_arms(study([0.0] * 6, 0.3, draw)).verdict for _ in range(200)]
        claims = ("is behind", "ahead", "catches up")
        assert sum(any(words in verdict for words in claims) for verdict in verdicts) <= 20

    def test_three_arms_without_difference(self):
        draw = random.Random(1)
        false = 0
        for _ in range(200):
            runs = study([0.0] * 3, 0.3, draw)
            runs += [run._replace(arm="v") for run in study([0.0] * 3, 0.3, draw) if run.arm == "random"]
            states = compare_arms(runs, reference="w").states.values()
            false += bool({BEHIND, AHEAD} & set(states))
        assert false <= 20

    def test_a_catch_up_is_found(self):
        """The gaps of the paper's table 1, R50, with little noise."""
        c = compare_arms(study([-3.5, -1.3, -0.3, -0.2, 0.2], 0.05, random.Random(2), seeds=5))
        assert c.catch_ups["random"].after in (1, 2, 3)
        assert c.verdict.startswith("Training from random weights ")
        assert c.states["random", "2x"] == BEHIND

    def test_equal_within_the_margin(self):
        c = compare_arms(study([0.0, 0.0], 0.02, random.Random(4), seeds=5))
        assert set(c.states.values()) == {EQUAL}
        narrow = compare_arms(study([0.0, 0.0], 0.02, random.Random(4), seeds=5), margin=0.001)
        assert set(narrow.states.values()) == {UNDECIDED}


def test_another_metric():
    runs = [run_of(seed=i, **{"segm/AP": 30.0 + i}) for i in (0, 1)]
    runs += [run_of("w", seed=i, **{"segm/AP": 20.0 + i}) for i in (0, 1)]
    c = compare_arms(runs, "segm/AP")
    assert c.gaps["random", "6x"].estimate == 10.0
    assert "+10.0 AP" in c.verdict
