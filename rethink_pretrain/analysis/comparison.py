"""Arms of a study side by side: runs grouped by start and length, the gaps between them, and a verdict.

An arm is what a run starts from, a length its schedule. One arm is the reference; a gap is another arm minus
the reference, in percent points: above 0 the other arm is better.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import UserError
from .curves import curve
from .runs import RANDOM, UNKNOWN, RunData, series
from .statistics import UNDECIDED, CatchUp, Interval, catch_up, gap_over_seeds, judge
from .verdict import Finding, Look, sentence

Bootstrap = Callable[[RunData, RunData], Interval | None]  # of a run and a run of the reference
Key = tuple[str, str]  # arm, length

# Of two lengths: less is a last row one step early, or the rounding of a batch.
_SAME_LENGTH = 1e-3


class Cell(NamedTuple):
    """The finished runs of one arm and length, one of each seed."""

    arm: str
    length: str
    runs: list[RunData]
    values: list[float]  # of their last evaluation, in percent

    @property
    def mean(self) -> float:
        """Over the seeds, in percent."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Of the sample; None of one value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


class LeftOut(NamedTuple):
    """A run that takes no part, and why."""

    name: str
    reason: str


class Comparison(NamedTuple):
    """Arms by lengths. A cell is missing where no run has finished."""

    metric: str
    reference: str  # "" where no run tells its start
    arms: list[str]  # the reference first
    lengths: list[str]  # the shortest first
    cells: dict[Key, Cell]
    gaps: dict[Key, Interval | None]  # of the arms but the reference, at every length
    states: dict[Key, str]  # of `statistics`, with the same keys
    catch_ups: dict[str, CatchUp]  # of the arms but the reference; indices into `lengths`
    margin: float  # percent points
    confidence: float  # of each interval: that of the whole, shared out among the arms
    verdict: str
    left_out: list[LeftOut]

    @property
    def others(self) -> list[str]:
        """The arms but the reference."""
        return self.arms[1:]


def compare_arms(
    runs: Sequence[RunData],
    metric: str = "bbox/AP",
    *,
    reference: str | None = None,
    margin: float = 0.4,
    confidence: float = 0.95,
    bootstrap: Bootstrap | None = None,
) -> Comparison:
    """The arms of `runs`, by the `metric` of each run's last evaluation, in percent.

    Without a `reference` it is the one arm besides random weights. `margin`, in percent points, is the gap
    that does not matter. Gaps are over seeds where both arms have two or more, else by `bootstrap` where both
    have one. Raises `UserError` where the reference is not among the arms or has to be named.
    """
    arms = _order_arms(runs, reference)
    finished, left_out = _sort_out(runs, metric)
    lengths, cells, repeated = _fill_cells(finished, metric)
    shared = shared_confidence(confidence, len(arms) - 1)
    gaps = {
        (arm, length): _gap(cells.get((arm, length)), cells.get((arms[0], length)), shared, bootstrap)
        for arm in arms[1:]
        for length in lengths
    }
    findings = [_find(arm, arms[0], lengths, cells, gaps, margin) for arm in arms[1:]]
    judged = {(finding.arm, look.length): look.state for finding in findings for look in finding.judged}
    unit = metric.rpartition("/")[2]
    return Comparison(
        metric=metric,
        reference=arms[0] if arms else "",
        arms=arms,
        lengths=lengths,
        cells=cells,
        gaps=gaps,
        states={key: judged.get(key, UNDECIDED) for key in gaps},
        catch_ups={finding.arm: _in_lengths(finding, lengths) for finding in findings},
        margin=margin,
        confidence=shared,
        verdict=_verdict(arms, findings, unit, margin, shared),
        left_out=[*left_out, *repeated],
    )


def shared_confidence(confidence: float, others: int) -> float:
    """Of the intervals of each of `others` arms, so that all hold together with `confidence` (Bonferroni)."""
    return 1 - (1 - confidence) / max(others, 1)


def last_value(run: RunData, metric: str) -> tuple[int, float] | None:
    """Training steps and value of the last finite measurement, None where there is none."""
    points = curve(run, metric, "iterations")
    return (int(points[-1][0]), points[-1][1]) if points else None


def iterations_of(run: RunData) -> int:
    """Of the whole run; without a config those that are done."""
    return run.length or run.steps_done([int(run.rows[-1]["iteration"])])[0]


def _order_arms(runs: Sequence[RunData], reference: str | None) -> list[str]:
    """The reference, random weights, then as given; runs of unknown start are of no arm."""
    arms = [arm for arm in dict.fromkeys(run.arm for run in runs) if arm != UNKNOWN]
    if reference is None:
        candidates = [arm for arm in arms if arm != RANDOM] or arms
        if len(candidates) > 1:
            raise UserError(f"Several arms could be the reference; name one of {', '.join(arms)}.")
        reference = candidates[0] if candidates else None
    elif reference not in arms:
        raise UserError(f"No run is of the arm {reference}, the reference; there are {', '.join(arms)}.")
    return sorted(arms, key=lambda arm: (arm != reference, arm != RANDOM))


def _sort_out(runs: Sequence[RunData], metric: str) -> tuple[list[RunData], list[LeftOut]]:
    """The finished runs of known start, and why the others are none."""
    finished, left_out = [], []
    for run in runs:
        if reason := _unfit(run, metric):
            left_out.append(LeftOut(run.name, reason))
        else:
            finished.append(run)
    return finished, left_out


def _unfit(run: RunData, metric: str) -> str | None:
    if run.arm == UNKNOWN:
        return "its start is unknown"
    end = last_value(run, metric)
    if end is None:
        return f"no value of {metric}"
    if run.length is not None and end[0] < run.length:
        return f"not finished: its last value is at {end[0]:,} of {run.length:,} iterations"
    return None


def _fill_cells(runs: Sequence[RunData], metric: str) -> tuple[list[str], dict[Key, Cell], list[LeftOut]]:
    """The lengths, the cells, and the runs that repeat one of their cell."""
    lengths = _lengths(runs)
    cells: dict[Key, Cell] = {}
    repeated = []
    for run, length in zip(runs, lengths, strict=True):
        cell = cells.setdefault((run.arm, length), Cell(run.arm, length, [], []))
        twin = next((other for other in cell.runs if _is_repeat(run, other, metric)), None)
        if twin:
            repeated.append(LeftOut(run.name, f"the same seed as {twin.name}, so no second observation"))
        else:
            cell.runs.append(run)
            cell.values.append(last_value(run, metric)[1])
    return list(dict.fromkeys(lengths[i] for i in _by_amount(runs))), cells, repeated


def _is_repeat(run: RunData, other: RunData, metric: str) -> bool:
    """By the seeds; where one is unknown, by the numbers."""
    if None not in (run.seed, other.seed):
        return run.seed == other.seed
    return all(series(run.rows, key) == series(other.rows, key) for key in (metric, "total_loss"))


def _lengths(runs: Sequence[RunData]) -> list[str]:
    """A name for the length of each run: the same for equal ones, whatever they are called."""
    amounts = _amounts(runs)
    groups: list[list[int]] = []
    for i in _by_amount(runs):
        if groups and amounts[i] <= amounts[groups[-1][0]] * (1 + _SAME_LENGTH):
            groups[-1].append(i)
        else:
            groups.append([i])
    names = [_name_length([runs[i] for i in sorted(group)]) for group in groups]
    ret = [""] * len(runs)
    for group, name in zip(groups, names, strict=True):
        if names.count(name) > 1:
            name += f" ({iterations_of(runs[group[0]]):,} iterations)"
        for i in group:
            ret[i] = name
    return ret


def _by_amount(runs: Sequence[RunData]) -> list[int]:
    """Indices of the runs, the shortest first."""
    amounts = _amounts(runs)
    return sorted(range(len(runs)), key=amounts.__getitem__)


def _amounts(runs: Sequence[RunData]) -> list[int]:
    """Images of each run, or iterations where one does not tell its batch."""
    batches = [run.images_per_step for run in runs]
    return [iterations_of(run) * (1 if None in batches else batch) for run, batch in zip(runs, batches)]


def _name_length(runs: Sequence[RunData]) -> str:
    names = [run.config["RETHINK.SCHEDULE"] for run in runs if run.config.get("RETHINK.SCHEDULE")]
    return names[0] if names else f"{iterations_of(runs[0]):,} iterations"


def _gap(
    cell: Cell | None, reference: Cell | None, confidence: float, bootstrap: Bootstrap | None
) -> Interval | None:
    if cell is None or reference is None:
        return None
    if _has_seeds(cell, reference):
        return gap_over_seeds(cell.values, reference.values, confidence)
    if bootstrap and len(cell.runs) == len(reference.runs) == 1:
        return bootstrap(cell.runs[0], reference.runs[0])
    return None


def _has_seeds(*cells: Cell) -> bool:
    return all(len(cell.values) > 1 for cell in cells)


def _find(
    arm: str,
    reference: str,
    lengths: Sequence[str],
    cells: dict[Key, Cell],
    gaps: dict[Key, Interval | None],
    margin: float,
) -> Finding:
    """What is known of one arm at the lengths that it shares with the reference.

    Lengths that have too few runs for an interval take no part in the tests: that is known before any
    result, so it favours none.
    """
    judged, too_few = [], []
    for length in lengths:
        if (arm, length) in cells and (reference, length) in cells:
            cell, other = cells[arm, length], cells[reference, length]
            gap, runs = gaps[arm, length], (len(cell.runs), len(other.runs))
            look = Look(length, gap, UNDECIDED, runs, cell.mean - other.mean)
            (judged if gap or _has_seeds(cell, other) else too_few).append(look)
    of_judged = [look.gap for look in judged]
    states = judge(of_judged, margin)
    judged = [look._replace(state=state) for look, state in zip(judged, states, strict=True)]
    return Finding(arm, reference, judged, too_few, catch_up(of_judged, margin))


def _in_lengths(finding: Finding, lengths: Sequence[str]) -> CatchUp:
    """Its catch-up as indices into all lengths."""
    return CatchUp(*(i if i is None else lengths.index(finding.judged[i].length) for i in finding.catch_up))


def _verdict(
    arms: Sequence[str], findings: Sequence[Finding], unit: str, margin: float, confidence: float
) -> str:
    if not arms:
        return "No answer: no run tells what it started from."
    if not findings:
        return f"No answer: all runs are of one arm, {arms[0]}."
    return " ".join(sentence(finding, unit, margin, confidence) for finding in findings)
