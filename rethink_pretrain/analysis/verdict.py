"""The answer in a sentence or two, as certain as the intervals behind it. No winner inside the noise."""

from collections.abc import Sequence
from typing import NamedTuple

from .metric_names import capital
from .runs import RANDOM
from .statistics import AHEAD, BEHIND, EQUAL, CatchUp, Interval


class Look(NamedTuple):
    """An arm beside the reference at one length."""

    length: str
    gap: Interval | None
    state: str  # of `statistics.judge`
    runs: tuple[int, int]  # of the arm and of the reference
    difference: float  # of their means, in percent points


class Finding(NamedTuple):
    """What is known of one arm at the lengths that it shares with the reference, the shortest first."""

    arm: str
    reference: str
    judged: list[Look]
    too_few: list[Look]  # runs for an interval
    catch_up: CatchUp  # indices into `judged`


def sentence(finding: Finding, unit: str, margin: float, confidence: float) -> str:
    """The verdict on one arm. `unit` is "AP"; `margin` in percent points; `confidence` is the intervals'."""
    last = finding.judged[-1] if finding.judged else None
    if last is None or last.gap is None:
        return _without_interval(finding, unit)
    words = _claim(finding, unit, margin, confidence)
    bases = {look.gap.basis for look in finding.judged if look.gap}
    if last.gap.basis == "images":
        words = (
            f"With one run of each, on these validation images, {words}. How much another seed would move "
            "it is not covered."
        )
    elif "images" in bases:
        words += ". Where there is one run of each, an interval covers the validation images alone, no seeds."
    else:
        words += "."
    if finding.too_few:
        words += f" Too few runs to judge: {', '.join(look.length for look in finding.too_few)}."
    return capital(words)


def name_arm(arm: str) -> str:
    """In words: "random weights", or the name as it is."""
    return "random weights" if arm == RANDOM else arm


def spell_gap(gap: Interval) -> str:
    """ "+0.2 (-0.3 to +0.7)"."""
    return f"{_signed(gap.estimate)} ({_range(gap)})"


def spell_confidence(confidence: float) -> str:
    """ "95 %"."""
    return f"{100 * confidence:.3g} %"


def _without_interval(finding: Finding, unit: str) -> str:
    both = _both(finding)
    if looks := finding.judged or finding.too_few:
        length, *_, (count, of_reference), difference = looks[-1]
        return (
            f"Undecided between {both}: at {length} they differ by {_signed(difference)} {unit}, which "
            f"{count} and {of_reference} runs cannot tell from chance."
        )
    return f"No answer yet: no length has finished runs of both {both}."


def _claim(finding: Finding, unit: str, margin: float, confidence: float) -> str:
    """Without its full stop."""
    looks, (at, after, by) = finding.judged, finding.catch_up
    last = looks[-1]
    subject, reference = f"training from {name_arm(finding.arm)}", name_arm(finding.reference)
    evidence = f"({_evidence(last, unit, confidence)})"
    if last.state == BEHIND:
        small = f", by less than the margin of {margin:g} {unit}" if last.gap.low >= -margin else ""
        where = f"at {last.length}" if len(looks) == 1 else f"at every length, still at {last.length}"
        return f"{subject} is behind {reference} {where} {evidence}{small}"
    if last.state == AHEAD:
        before = f"is behind {reference} up to {looks[after].length} and" if after is not None else "is"
        than = "" if after is not None else f" of {reference}"
        return f"{subject} {before} ahead{than} {_since(looks, AHEAD)} {evidence}"
    if None not in (at, after, by):
        then = "from there on" if at < len(looks) - 1 else "there"
        return (
            f"{subject} catches up with {reference} at {looks[at].length}: {then} it is within the "
            f"noise {evidence}. Certain are the bounds: it is behind up to {looks[after].length}, and "
            f"behind by at most {margin:g} {unit}, if at all, {_from(looks, by)}"
        )
    if last.state == EQUAL:
        since = _since(looks, EQUAL)
        return f"{subject} is as good as from {reference} within {margin:g} {unit} {since} {evidence}"
    return _undecided(finding, unit, margin, confidence)


def _undecided(finding: Finding, unit: str, margin: float, confidence: float) -> str:
    looks, (at, after, _) = finding.judged, finding.catch_up
    last = looks[-1]
    subject = f"training from {name_arm(finding.arm)}"
    before = f"{subject} is behind up to {looks[after].length}, but " if after is not None else ""
    lead = (
        f"undecided between {_both(finding)}: {before}at {last.length} the {spell_confidence(confidence)} "
        f"interval, {_range(last.gap)} {unit},"
    )
    if at is None:
        return f"{lead} lies below 0, but not so at all shorter lengths, and then it may be chance"
    if last.gap.low >= -margin:
        return f"{lead} excludes only that {subject} is more than {margin:g} {unit} behind"
    more = "more seeds would narrow it" if last.gap.basis == "seeds" else "several seeds would tell more"
    return f"{lead} includes both answers; {more}"


def _both(finding: Finding) -> str:
    return f"{name_arm(finding.arm)} and {name_arm(finding.reference)}"


def _since(looks: Sequence[Look], state: str) -> str:
    """ "from 4x on", "at 6x" for the last, of a state that lasts to the end."""
    return _from(looks, next(i for i in range(len(looks)) if all(look.state == state for look in looks[i:])))


def _from(looks: Sequence[Look], start: int) -> str:
    return f"from {looks[start].length} on" if start < len(looks) - 1 else f"at {looks[start].length}"


def _evidence(look: Look, unit: str, confidence: float) -> str:
    level = spell_confidence(confidence)
    estimate = f"gap at {look.length}: {_signed(look.gap.estimate)} {unit}"
    if look.gap.basis == "images":
        return f"{estimate}, paired bootstrap over images, {level} {_range(look.gap)}"
    count, of_reference = look.runs
    seeds = f"{count} seeds each" if count == of_reference else f"{count} and {of_reference} seeds"
    return f"{estimate}, {level} interval {_range(look.gap)}, {seeds}"


def _range(gap: Interval) -> str:
    return f"{_signed(gap.low)} to {_signed(gap.high)}"


def _signed(points: float) -> str:
    """With one digit, or two where one would hide on which side of 0 it is."""
    digits = 1 if round(points, 1) or not round(points, 2) else 2
    return f"{round(points, digits) + 0.0:+.{digits}f}"
