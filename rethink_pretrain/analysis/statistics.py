"""What a comparison of two arms may say: intervals for gaps over seeds, and verdicts by length.

A gap is an arm's AP minus that of the reference, in percent points: above 0 the arm is better. A length is a
training schedule; whoever compares several looks several times, which `judge` allows for.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

BEHIND, AHEAD, EQUAL, UNDECIDED = "behind", "ahead", "equal", "undecided"


class Interval(NamedTuple):
    """A gap and what is known of it, in percent points."""

    estimate: float
    low: float
    high: float
    basis: str  # "seeds": over training runs; "images": over the validation images of one run of each arm


class CatchUp(NamedTuple):
    """Where an arm catches up with the reference, as indices into the lengths; None: at none of them."""

    at: int | None  # by what is seen: from here on no interval lies below 0
    after: int | None  # certainly behind up to and including this one
    by: int | None  # from here on certainly behind by no more than the margin


def gap_over_seeds(
    values: Sequence[float], reference: Sequence[float], confidence: float = 0.95
) -> Interval | None:
    """Welch's interval for mean of `values` minus mean of `reference`: one AP per seed in each, in percent.

    The arms may spread differently; three seeds a side keep 95 % to within 1 % (simulated). None where there
    is no spread to reckon with: fewer than 2 values in an arm, the same value throughout in both arms, or one
    that is not finite. One arm alone may be constant. Two values are enough, but the interval is then wide:
    4.3 to 12.7 standard errors on either side at 95 %, if both arms have two.
    """
    values, reference = np.asarray(values, dtype=float), np.asarray(reference, dtype=float)
    if min(len(values), len(reference)) < 2 or not np.isfinite([*values, *reference]).all():
        return None
    if np.ptp(values) == np.ptp(reference) == 0:
        return None
    # Without scipy.stats: it takes a second to import, and warns of lost digits where an arm is constant.
    sizes = np.array([len(values), len(reference)])
    squared_errors = np.array([values.var(ddof=1), reference.var(ddof=1)]) / sizes
    freedom = squared_errors.sum() ** 2 / (squared_errors**2 / (sizes - 1)).sum()
    estimate = values.mean() - reference.mean()
    reach = np.sqrt(squared_errors.sum()) * stdtrit(freedom, (1 + confidence) / 2)
    return Interval(float(estimate), float(estimate - reach), float(estimate + reach), "seeds")


def judge(gaps: Sequence[Interval | None], margin: float) -> list[str]:
    """What may be said of one arm at each length; `gaps` by rising length, `margin` in percent points.

    BEHIND: the interval lies below 0 here and at all shorter lengths. AHEAD: it lies above 0 here and at all
    longer ones. EQUAL: it contains 0 and lies within +-margin. UNDECIDED: everything else, and None.

    With intervals of 95 %, the chance of any false BEHIND is 2.5 % over the whole list, and so is that of any
    false AHEAD, however many lengths there are and however they depend on each other: each is a sequence of
    tests in an order fixed beforehand, which ends at the first that fails, and only the first wrong one can
    begin the error (Maurer, Hothorn and Lehmacher, 1995). EQUAL is a statement about its own length alone.
    With k arms besides the reference, give intervals of confidence 1 - 0.05 / k.
    """
    _check_margin(margin)
    behind = _first_failure(gaps, lambda gap: gap.high < 0)
    ahead = _last_failure(gaps, lambda gap: gap.low > 0)
    return [
        BEHIND if i < behind else AHEAD if i > ahead else EQUAL if _is_equal(gap, margin) else UNDECIDED
        for i, gap in enumerate(gaps)
    ]


def catch_up(gaps: Sequence[Interval | None], margin: float) -> CatchUp:
    """Where one arm catches up; `gaps` and `margin` as in `judge`, whose certainty `after` and `by` have.

    Catching up lies after `after`, and coming within the margin for good at `by` or before, each with an
    error of 2.5 % for intervals of 95 %. `at` is an estimate without such a promise: wide intervals, of few
    seeds, let it come too early. No gap at a length is no evidence: `at` and `by` can only stand after it.
    """
    _check_margin(margin)
    behind = _first_failure(gaps, lambda gap: gap.high < 0)
    starts = [
        _last_failure(gaps, holds) + 1
        for holds in (lambda gap: gap.high >= 0, lambda gap: gap.low >= -margin)
    ]
    at, by = (start if start < len(gaps) else None for start in starts)
    return CatchUp(at, behind - 1 if behind else None, by)


def _check_margin(margin: float) -> None:
    if not margin >= 0:
        raise ValueError(f"The margin is {margin}. Give 0 or more percent points.")


def _first_failure(gaps: Sequence[Interval | None], holds: Callable[[Interval], bool]) -> int:
    """How many gaps from the start on are there and pass."""
    return next((i for i, gap in enumerate(gaps) if gap is None or not holds(gap)), len(gaps))


def _last_failure(gaps: Sequence[Interval | None], holds: Callable[[Interval], bool]) -> int:
    """Index of the last gap that is missing or does not pass, -1 where all do."""
    return len(gaps) - 1 - _first_failure(gaps[::-1], holds)


def _is_equal(gap: Interval | None, margin: float) -> bool:
    return gap is not None and -margin <= gap.low <= 0 <= gap.high <= margin
