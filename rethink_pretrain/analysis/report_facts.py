"""What a comparison compared: its runs, what differs between them, and where they come from."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from .comparable import Difference, differences, in_words
from .curves import curve, wall_hours
from .metric_names import spell
from .page import Cell, Section, Table, Text
from .provenance import describe_origin
from .runs import RunData

_MOST_VALUES = 6  # of one arm in a cell
_LONGEST_VALUE = 120  # characters
_OF_RUN = ("seed", "sessions", "ended", "command")  # facts that differ from run to run: a row each
_NOWHERE = {"OUTPUT_DIR", "SEED"}  # keys that stand in the table of runs


def table_of_runs(runs: Sequence[RunData], metric: str) -> Table:
    """One row each."""
    rows = []
    for run in runs:
        done, value = (curve(run, metric, "iterations") or [(None, None)])[-1]
        images = done * run.images_per_step if done and run.images_per_step else None
        hours = wall_hours(run)
        ended = next((session.get("ended") for session in run.sessions[-1:]), None)
        cells = (_rounded(value), done, images, run.seed, hours and float(f"{hours:.3g}"), ended)
        rows.append((run.name, run.arm, run.schedule, *cells))
    headers = ("run", "start", "length", spell(metric), "iterations", "images", "seed", "hours", "ended")
    caption = (
        f"{spell(metric)}, iterations and images are those of the last evaluation; hours, of all sessions by "
        "run.json, are without starts but with evaluations."
    )
    return Table(headers, rows, caption[:1].upper() + caption[1:])


def describe_runs(runs: Sequence[RunData]) -> Section:
    """What differs between the configs and what the files tell of each arm; a column for each arm."""
    arms = list(dict.fromkeys(run.arm for run in runs))
    blocks = [*_keys(runs, arms), *_facts(runs, arms), *_commands(runs)]
    return Section("Where the numbers come from", blocks)


def list_left_out(left_out: Iterable[tuple[str, str]]) -> list[Section]:
    """A section of names and reasons, none where there are none."""
    rows = list(left_out)
    return [Section("What was left out", [Table(("run", "reason"), rows)])] if rows else []


def warn(reasons: Sequence[str]) -> Section:
    """That the runs are no comparison of initialisations, and why."""
    words = "A difference between these runs can have other causes than their initialisation and length."
    table = Table(("reason",), [(reason,) for reason in reasons])
    return Section("Warning: not a comparison of initialisations", [Text(words), table])


def _keys(runs: Sequence[RunData], arms: Sequence[str]) -> list[Table | Text]:
    blocks: list[Table | Text] = []
    if bare := [run.name for run in runs if not run.config]:
        names = _join(bare)
        blocks.append(Text(f"Without a config.yaml, so that their recipes are unknown: {names}."))
    rows = [
        (difference.key, *_by_arm(runs, arms, _with_config(runs, difference)))
        for difference in differences(runs)
        if difference.key not in _NOWHERE
    ]
    if rows:
        return [*blocks, Table(("key", *arms), rows, "All keys of the configs that differ, but for seeds.")]
    return blocks if len(bare) == len(runs) else [*blocks, Text("The configs do not differ.")]


def _with_config(runs: Sequence[RunData], difference: Difference) -> list[str | None]:
    return [in_words(value) if run.config else None for run, value in zip(runs, difference.values)]


def _facts(runs: Sequence[RunData], arms: Sequence[str]) -> list[Table]:
    origins = [describe_origin(run) for run in runs]
    facts = dict.fromkeys(fact for origin in origins for fact in origin if fact not in _OF_RUN)
    rows = [(fact, *_by_arm(runs, arms, [origin.get(fact) for origin in origins])) for fact in facts]
    caption = "By run.json, over all sessions of the runs of an arm; blank where it does not tell."
    return [Table(("fact", *arms), rows, caption)] if rows else []


def _commands(runs: Sequence[RunData]) -> list[Table]:
    found = [(run.name, describe_origin(run).get("command")) for run in runs]
    rows = [row for row in found if row[1]]
    return [Table(("run", "command"), rows, "What started each run, by run.json.")] if rows else []


def _by_arm(runs: Sequence[RunData], arms: Sequence[str], values: Sequence[Any]) -> list[Cell]:
    """The distinct values of each arm, in words."""
    of_arm: dict[str, list[str]] = defaultdict(list)
    for run, value in zip(runs, values, strict=True):
        if value is not None and value not in of_arm[run.arm]:
            of_arm[run.arm].append(value)
    return [_join(of_arm[arm]) for arm in arms]


def _join(values: Sequence[str]) -> str:
    shown = [value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…" for value in values]
    more = len(shown) - _MOST_VALUES
    return "; ".join(shown[:_MOST_VALUES]) + (f"; and {more} more" if more > 0 else "")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
