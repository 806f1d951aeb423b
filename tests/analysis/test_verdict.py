"""The words for every case, and that no winner is named inside the noise."""

import pytest

from rethink_pretrain.analysis.statistics import UNDECIDED, Interval, catch_up, judge
from rethink_pretrain.analysis.verdict import Finding, Look, sentence, spell_confidence, spell_gap

MARGIN = 0.4


def finding(*bounds, arm="random", basis="seeds", runs=(3, 3), too_few=()):
    """At 1x, 2x, ... these intervals, with the estimate in the middle."""
    gaps = [pair and Interval(sum(pair) / 2, *pair, basis) for pair in bounds]
    looks = [
        Look(f"{number}x", gap, state, runs, 0.25)
        for number, (gap, state) in enumerate(zip(gaps, judge(gaps, MARGIN), strict=True), 1)
    ]
    few = [Look(length, None, UNDECIDED, (1, 2), -0.5) for length in too_few]
    return Finding(arm, "R-50", looks, few, catch_up(gaps, MARGIN))


def say(*bounds, **options):
    return sentence(finding(*bounds, **options), "AP", MARGIN, 0.95)


BELOW, FAR_BELOW = (-4.1, -2.9), (-9.0, -8.0)
NOISE, WIDE, EQUAL = (-0.3, 0.7), (-1.2, 0.8), (-0.2, 0.3)
ABOVE = (0.5, 1.1)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (
            [BELOW],
            "Training from random weights is behind R-50 at 1x (gap at 1x: -3.5 AP, 95 % interval -4.1 to "
            "-2.9, 3 seeds each).",
        ),
        (
            [FAR_BELOW, BELOW],
            "Training from random weights is behind R-50 at every length, still at 2x (gap at 2x: -3.5 AP, "
            "95 % interval -4.1 to -2.9, 3 seeds each).",
        ),
        (
            [(-0.3, -0.1)],
            "Training from random weights is behind R-50 at 1x (gap at 1x: -0.2 AP, 95 % interval -0.3 to "
            "-0.1, 3 seeds each), by less than the margin of 0.4 AP.",
        ),
        (
            [NOISE, ABOVE],
            "Training from random weights is ahead of R-50 at 2x (gap at 2x: +0.8 AP, 95 % interval +0.5 to "
            "+1.1, 3 seeds each).",
        ),
        (
            [ABOVE, ABOVE],
            "Training from random weights is ahead of R-50 from 1x on (gap at 2x: +0.8 AP, 95 % interval "
            "+0.5 to +1.1, 3 seeds each).",
        ),
        (
            [BELOW, NOISE, ABOVE],
            "Training from random weights is behind R-50 up to 1x and ahead at 3x (gap at 3x: +0.8 AP, 95 % "
            "interval +0.5 to +1.1, 3 seeds each).",
        ),
        (
            [FAR_BELOW, BELOW, WIDE, NOISE, NOISE],
            "Training from random weights catches up with R-50 at 3x: from there on it is within the noise "
            "(gap at 5x: +0.2 AP, 95 % interval -0.3 to +0.7, 3 seeds each). Certain are the bounds: it "
            "is behind up to 2x, and behind by at most 0.4 AP, if at all, from 4x on.",
        ),
        (
            [BELOW, NOISE],
            "Training from random weights catches up with R-50 at 2x: there it is within the noise (gap at "
            "2x: +0.2 AP, 95 % interval -0.3 to +0.7, 3 seeds each). Certain are the bounds: it is behind "
            "up to 1x, and behind by at most 0.4 AP, if at all, at 2x.",
        ),
        (
            [WIDE, EQUAL, EQUAL],
            "Training from random weights is as good as from R-50 within 0.4 AP from 2x on (gap at 3x: +0.05 "
            "AP, 95 % interval -0.2 to +0.3, 3 seeds each).",
        ),
        (
            [BELOW, WIDE],
            "Undecided between random weights and R-50: training from random weights is behind up to 1x, "
            "but at 2x the 95 % interval, -1.2 to +0.8 AP, includes both answers; more seeds would narrow "
            "it.",
        ),
        (
            [WIDE],
            "Undecided between random weights and R-50: at 1x the 95 % interval, -1.2 to +0.8 AP, includes "
            "both answers; more seeds would narrow it.",
        ),
        (
            [NOISE],
            "Undecided between random weights and R-50: at 1x the 95 % interval, -0.3 to +0.7 AP, excludes "
            "only that training from random weights is more than 0.4 AP behind.",
        ),
        (
            [WIDE, BELOW],
            "Undecided between random weights and R-50: at 2x the 95 % interval, -4.1 to -2.9 AP, lies "
            "below 0, but not so at all shorter lengths, and then it may be chance.",
        ),
        (
            [BELOW, None],
            "Undecided between random weights and R-50: at 2x they differ by +0.2 AP, which 3 and 3 runs "
            "cannot tell from chance.",
        ),
        ([], "No answer yet: no length has finished runs of both random weights and R-50."),
    ],
)
def test_by_seeds(bounds, words):
    assert say(*bounds) == words


def test_too_few_runs():
    assert say(too_few=["5x", "6x"]) == (
        "Undecided between random weights and R-50: at 6x they differ by -0.5 AP, which 1 and 2 runs cannot "
        "tell from chance."
    )
    assert say(ABOVE, too_few=["5x", "6x"]).endswith(" seeds each). Too few runs to judge: 5x, 6x.")


class TestOneRunOfEach:
    def test_behind(self):
        assert say(BELOW, basis="images", runs=(1, 1)) == (
            "With one run of each, on these validation images, training from random weights is behind R-50 "
            "at 1x (gap at 1x: -3.5 AP, paired bootstrap over images, 95 % -4.1 to -2.9). How much "
            "another seed would move it is not covered."
        )

    def test_undecided(self):
        assert say(WIDE, basis="images", runs=(1, 1)) == (
            "With one run of each, on these validation images, undecided between random weights and R-50: "
            "at 1x the 95 % interval, -1.2 to +0.8 AP, includes both answers; several seeds would tell "
            "more. How much another seed would move it is not covered."
        )

    def test_at_some_lengths_alone(self):
        mixed = finding(BELOW, NOISE)
        first = mixed.judged[0]
        first = first._replace(gap=first.gap._replace(basis="images"))
        words = sentence(mixed._replace(judged=[first, *mixed.judged[1:]]), "AP", MARGIN, 0.95)
        assert words.endswith("an interval covers the validation images alone, no seeds.")


@pytest.mark.parametrize("last", [NOISE, WIDE, EQUAL, (-5.0, 5.0), (0.0, 0.0)])
def test_no_winner_where_the_interval_holds_0(last):
    words = say(last, last)
    assert "ahead" not in words
    assert "is behind R-50" not in words


def test_other_arms_keep_their_names():
    words = say(BELOW, arm="moco.pth", runs=(3, 2))
    assert words.startswith("Training from moco.pth is behind R-50")
    assert words.endswith("3 and 2 seeds).")


def test_numbers():
    assert spell_gap(Interval(-0.04, -0.3, 0.0, "seeds")) == "-0.04 (-0.3 to +0.0)"
    assert [spell_confidence(1 - 0.05 / k) for k in (1, 2, 3)] == ["95 %", "97.5 %", "98.3 %"]
