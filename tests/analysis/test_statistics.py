"""Intervals against scipy and a closed form; what may be said, on simulated studies of known truth."""

import math

import numpy as np
import pytest
from scipy import stats

from rethink_pretrain.analysis.statistics import (
    AHEAD,
    BEHIND,
    EQUAL,
    UNDECIDED,
    CatchUp,
    Interval,
    catch_up,
    gap_over_seeds,
    judge,
)

MARGIN = 0.4


def gap(low, high):
    return Interval((low + high) / 2, low, high, "seeds")


BELOW, WIDE, TIGHT, ABOVE = gap(-3, -1), gap(-1, 1), gap(-0.3, 0.3), gap(0.1, 0.3)


def simulated(rng, gaps, deviations, seeds=3, confidence=0.95):
    """The intervals of one study: `gaps` and `deviations` by length, each arm with `seeds` runs a length.

    Two pairs of deviations: of the arm, and of the reference.
    """
    means = 20 + 20 * np.linspace(0, 1, len(gaps)) ** 0.5  # rising, as AP does
    return [
        gap_over_seeds(rng.normal(mean + g, of_arm, seeds), rng.normal(mean, of_reference, seeds), confidence)
        for mean, g, (of_arm, of_reference) in zip(means, gaps, deviations, strict=True)
    ]


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.975])
@pytest.mark.parametrize("sizes", [(2, 2), (2, 3), (3, 3), (5, 3), (10, 4)])
def test_interval_is_welchs(sizes, confidence):
    rng = np.random.default_rng(sizes)
    a, b = (rng.normal(38, spread, size).tolist() for spread, size in zip((0.1, 0.4), sizes, strict=True))
    got = gap_over_seeds(a, b, confidence)
    of_scipy = stats.ttest_ind(a, b, equal_var=False).confidence_interval(confidence)
    assert (got.low, got.high) == pytest.approx(of_scipy, abs=1e-10)

    # Welch and Satterthwaite, written out.
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    error_a = sum((x - mean_a) ** 2 for x in a) / (len(a) - 1) / len(a)
    error_b = sum((x - mean_b) ** 2 for x in b) / (len(b) - 1) / len(b)
    freedom = (error_a + error_b) ** 2 / (error_a**2 / (len(a) - 1) + error_b**2 / (len(b) - 1))
    reach = stats.t.ppf(0.5 + confidence / 2, freedom) * math.sqrt(error_a + error_b)
    assert got.estimate == pytest.approx(mean_a - mean_b)
    assert (got.low, got.high) == pytest.approx((mean_a - mean_b - reach, mean_a - mean_b + reach), abs=1e-10)
    assert got.basis == "seeds"


@pytest.mark.parametrize(
    ("values", "reference"),
    [
        ([38.0], [37.0, 38.0]),
        ([38.0, 37.0], [38.0]),
        ([], []),
        ([38.1, 38.1, 38.1], [37.2, 37.2]),  # no spread anywhere
        ([38.0, math.nan], [37.0, 38.0]),
        ([38.0, 37.0], [37.0, math.inf]),
    ],
)
def test_no_interval(values, reference):
    assert gap_over_seeds(values, reference) is None


@pytest.mark.filterwarnings("error")
def test_one_constant_arm():
    """All spread and all freedom are the other arm's: the interval of its mean alone."""
    got = gap_over_seeds([0.1, 0.1, 0.1], [35.1, 35.4, 34.6])
    of_mean = stats.t.interval(0.95, 2, np.mean([35.1, 35.4, 34.6]), stats.sem([35.1, 35.4, 34.6]))
    assert (got.low, got.high) == pytest.approx((0.1 - of_mean[1], 0.1 - of_mean[0]))


def test_exchanging_the_arms_turns_the_interval_round():
    a, b = [37.0, 37.3, 37.1], [38.2, 38.0]
    one, other = gap_over_seeds(a, b), gap_over_seeds(b, a)
    assert one[:3] == pytest.approx((-other.estimate, -other.high, -other.low))
    assert one.estimate < 0  # the first is worse


@pytest.mark.parametrize("spreads", [(1, 1), (1, 2), (1, 5), (1, 50)])
def test_coverage(spreads):
    """Three seeds and unequal spreads: the truth is inside in 95 % of all cases or more, by 3 sigma."""
    draws, rng = 4000, np.random.default_rng(4)
    inside = 0
    for _ in range(draws):
        got = gap_over_seeds(rng.normal(36, spreads[0], 3), rng.normal(38, spreads[1], 3))
        inside += got.low <= -2 <= got.high
    assert inside / draws > 0.95 - 3 * math.sqrt(0.95 * 0.05 / draws)


@pytest.mark.parametrize(
    ("gaps", "states"),
    [
        ([BELOW, BELOW, WIDE, TIGHT, ABOVE], [BEHIND, BEHIND, UNDECIDED, EQUAL, AHEAD]),
        # An interval below 0 after one that is not, and one above before: chance would do that, too.
        ([BELOW, TIGHT, BELOW, TIGHT], [BEHIND, EQUAL, UNDECIDED, EQUAL]),
        ([ABOVE, TIGHT, ABOVE, ABOVE], [UNDECIDED, EQUAL, AHEAD, AHEAD]),
        ([ABOVE, ABOVE, BELOW], [UNDECIDED] * 3),
        ([BELOW, None, BELOW, ABOVE, None, ABOVE], [BEHIND, *[UNDECIDED] * 4, AHEAD]),
        ([BELOW, BELOW], [BEHIND, BEHIND]),
        ([ABOVE, ABOVE], [AHEAD, AHEAD]),
        # Within the margin and on one side of 0: better or worse, and not the same.
        ([gap(-0.3, -0.1), WIDE], [BEHIND, UNDECIDED]),
        ([WIDE, gap(-0.3, -0.1), WIDE], [UNDECIDED] * 3),
        ([gap(-MARGIN, 0), gap(0, MARGIN)], [EQUAL, EQUAL]),
        ([None, None], [UNDECIDED, UNDECIDED]),
        ([], []),
    ],
)
def test_what_may_be_said(gaps, states):
    assert judge(gaps, MARGIN) == states


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([BELOW, BELOW, WIDE, TIGHT, ABOVE], CatchUp(at=2, after=1, by=3)),
        ([WIDE, BELOW, WIDE], CatchUp(at=2, after=None, by=None)),  # never certain of anything
        ([TIGHT, TIGHT], CatchUp(at=0, after=None, by=0)),
        ([BELOW, BELOW], CatchUp(at=None, after=1, by=None)),
        ([BELOW, gap(-0.3, -0.1)], CatchUp(at=None, after=1, by=1)),  # behind, but by no more than the margin
        ([BELOW, None, TIGHT], CatchUp(at=2, after=0, by=2)),
        ([BELOW, TIGHT, None], CatchUp(at=None, after=0, by=None)),
        ([None, BELOW, TIGHT], CatchUp(at=2, after=None, by=2)),
        ([], CatchUp(None, None, None)),
    ],
)
def test_catch_up_by_hand(gaps, expected):
    assert catch_up(gaps, MARGIN) == expected


@pytest.mark.parametrize("margin", [-0.1, math.nan])
def test_impossible_margins(margin):
    for function in (judge, catch_up):
        with pytest.raises(ValueError, match="Give 0 or more percent points"):
            function([TIGHT], margin)


# Early lengths spread more, and the arms not alike.
UNEQUAL = [(1.5, 0.5), (0.8, 0.6), (0.5, 0.3), (0.3, 0.3), (0.2, 0.4), (0.1, 0.3)]


@pytest.mark.parametrize(
    ("studies", "share"), [(200, 0.10), pytest.param(2000, 0.065, marks=pytest.mark.slow)]
)
def test_no_difference_is_hardly_ever_called_one(studies, share):
    """Six lengths looked at, and still at most 5 % of the studies have a false word, but for chance."""
    rng = np.random.default_rng(0)
    states = [judge(simulated(rng, [0] * 6, UNEQUAL), MARGIN) for _ in range(studies)]
    false = sum(BEHIND in of_study or AHEAD in of_study for of_study in states)
    assert false / studies <= share


def test_no_difference_with_several_arms():
    """Three arms share one reference, whose noise they share: still at most 5 % with 1 - 0.05 / 3 each."""
    rng, studies, false = np.random.default_rng(1), 200, 0
    for _ in range(studies):
        reference = rng.normal(30, 0.3, (6, 3))
        arms = [
            [gap_over_seeds(rng.normal(30, 0.3, 3), of_reference, 1 - 0.05 / 3) for of_reference in reference]
            for _ in range(3)
        ]
        false += any({BEHIND, AHEAD} & set(judge(gaps, MARGIN)) for gaps in arms)
    assert false / studies <= 0.10


def test_gaps_as_in_the_paper_are_found():
    """Gaps like those of table 1 and seeds that spread by 0.2: two lengths are behind, the others are not."""
    rng, studies = np.random.default_rng(2), 200
    truth = [-3.5, -1.3, -0.3, -0.2, 0.2]
    found = [simulated(rng, truth, [(0.2, 0.2)] * 5) for _ in range(studies)]
    states = [judge(gaps, MARGIN) for gaps in found]
    caught = [catch_up(gaps, 1.0) for gaps in found]
    assert np.mean([of_study[0] == BEHIND for of_study in states]) > 0.99
    assert np.mean([of_study[1] == BEHIND for of_study in states]) > 0.9
    assert np.mean([one.at in (2, 3, 4) for one in caught]) > 0.95
    assert np.mean([one.after in (1, 2, 3) for one in caught]) > 0.9
    assert np.mean([one.by in (2, 3, 4) for one in caught]) > 0.9


@pytest.mark.parametrize("slope", [0.5, 1.0, 3.0])
def test_catch_up_is_where_it_says(slope):
    """Rising gaps: `after` lies before the true length and `by` does not, in 95 % of all studies."""
    rng, studies, right = np.random.default_rng(3), 300, 0
    for _ in range(studies):
        true_length = int(rng.integers(0, 6))
        truth = [slope * (length - true_length) for length in range(6)]
        one = catch_up(simulated(rng, truth, UNEQUAL), MARGIN)
        too_late = one.after is not None and one.after >= true_length
        too_early = one.by is not None and one.by < true_length
        right += not too_late and not too_early
    assert right / studies >= 0.95
