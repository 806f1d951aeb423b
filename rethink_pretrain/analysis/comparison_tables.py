"""Tables of a comparison of arms: by length, by metric, by category, by cost. Nothing is interpolated."""

import math
import statistics
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence

from .accounting import (
    KINDS,
    NONE_SEEN,
    Samples,
    average,
    mean_samples,
    pretraining_of,
    samples_of_run,
    short_number,
)
from .comparison import Cell, Comparison, iterations_of
from .metric_names import OF_CATEGORY, capital, order, spell
from .page import Table, Value
from .runs import MAIN_METRICS, RunData, series
from .statistics import gap_over_seeds
from .verdict import name_arm, spell_confidence, spell_gap

BUDGETS = {
    "iterations": "iterations",
    "images": "images seen",
    "instances": "instances seen",
    "pixels": "pixels seen",
    "hours": "hours x processes",
}

_SAME_BUDGET = 1.01  # ratio; resized images of other draws have some more pixels, or fewer
_BEST = (
    "The best of several lengths is in part the luckiest: that favours arms with many lengths or much noise."
)


def table_by_length(comparison: Comparison) -> Table:
    """A row an arm and a column a length, as the paper's table 1, and the gaps below."""
    c = comparison
    rows = [(name_arm(arm), *(_mean(c.cells.get((arm, length))) for length in c.lengths)) for arm in c.arms]
    rows += [(_minus(arm, c), *(_judged_gap(c, arm, length) for length in c.lengths)) for arm in c.others]
    caption = (
        f"{capital(spell(c.metric))} in percent at the end of each length: mean over seeds, ± their standard "
        f"deviation, and their number. Gaps in percentage points{_explain_intervals(c)}; equal is within "
        f"{c.margin:g} for certain."
    )
    return Table(("start", *c.lengths), rows, caption)


def table_by_metric(runs: Sequence[RunData], comparison: Comparison) -> Table:
    """All metrics that any of `runs` has, of each arm at its best length, as the paper's table 2."""
    best = best_cells(comparison)
    evaluations = _evaluations(best, comparison.metric)
    keys = {key for run in runs for key in last_evaluation(run, comparison.metric)}
    keys = sorted((key for key in keys if not OF_CATEGORY.fullmatch(key)), key=order)
    rows = [(spell(key), *_compare_metric(comparison, evaluations, key)) for key in keys]
    caption = (
        f"In percent, means over seeds, each arm at its length with the highest {spell(comparison.metric)}, "
        f"of the lengths that all arms have, if any. {_BEST}{_explain_gaps(comparison, best.values())}"
    )
    return Table(("metric", *_headers(comparison, best)), rows, caption)


def tables_by_category(runs: Sequence[RunData], comparison: Comparison) -> list[Table]:
    """For each metric that is measured by category, the categories by their gap, the highest first.

    The caption names the metric.
    """
    best = best_cells(comparison)
    found: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for match in filter(None, map(OF_CATEGORY.fullmatch, last_evaluation(run, comparison.metric))):
            found[match["metric"]].add(match["category"])
    return [_table_of_categories(comparison, best, key, found[key]) for key in sorted(found, key=order)]


def table_of_costs(comparison: Comparison) -> Table:
    """What each arm and length has seen in training and before, and the hours of training."""
    rows = []
    for cell in _cells(comparison):
        training, before = _training(cell), _pretraining(cell)
        phases = (training, before, training and before and training + before)
        amounts = [_amount(phase and phase[kind]) for phase in phases for kind in range(len(KINDS))]
        rows.append((name_arm(cell.arm), cell.length, *amounts, _place(cost(cell, "hours"), "hours")))
    headers = [f"{phase}: {kind}" for phase in ("training", "pre-training", "total") for kind in KINDS]
    caption = (
        "Every visit to an image counts; pixels are those after resizing. Means over seeds; blank: unknown. "
        "Hours are those of training alone, times the processes of the run: one process has one GPU, if any."
    )
    return Table(("start", "length", *headers, BUDGETS["hours"]), rows, caption)


def table_at_equal_budget(comparison: Comparison, axis: str, charged: bool) -> Table:
    """For the cost of each arm and length, the best finished length of each arm that costs no more.

    `axis` is one of `BUDGETS`; with `charged`, pre-training counts, and an arm whose pre-training cost is
    unknown on that axis has blanks.
    """
    c = comparison
    costs = {(cell.arm, cell.length): cost(cell, axis, charged) for cell in _cells(c)}
    known = sorted(value for value in costs.values() if value is not None)
    rows = []
    for budget in _distinct(known):
        within = {key for key, value in costs.items() if value is not None and value <= budget}
        best = {
            arm: _best([c.cells[key] for key in c.cells if key in within and key[0] == arm]) for arm in c.arms
        }
        gaps = [_gap(_values(best[arm]), _values(best[c.reference]), c) for arm in c.others]
        rows.append((_place(budget, axis), *(_mean(best[arm], with_length=True) for arm in c.arms), *gaps))
    headers = (BUDGETS[axis], *map(name_arm, c.arms), *(_minus(arm, c) for arm in c.others))
    return Table(headers, rows, _budget_caption(c, axis, charged, costs))


def best_cells(comparison: Comparison) -> dict[str, Cell]:
    """Each arm with finished runs, at the length with the highest mean: of those that all have, if any."""
    cells = {arm: [cell for cell in _cells(comparison) if cell.arm == arm] for arm in comparison.arms}
    cells = {arm: of_arm for arm, of_arm in cells.items() if of_arm}
    shared = set(comparison.lengths)
    for of_arm in cells.values():
        shared &= {cell.length for cell in of_arm}
    return {
        arm: _best([cell for cell in of_arm if not shared or cell.length in shared])
        for arm, of_arm in cells.items()
    }


def cost(cell: Cell, axis: str, charged: bool = False) -> float | None:
    """The mean over the runs of a cell, on an axis of `BUDGETS`; None is unknown.

    With `charged`, what pre-training cost is added. Its iterations and hours are told nowhere, so there only
    an arm that has none is known.
    """
    if axis not in BUDGETS:
        raise ValueError(f"Unknown axis {axis!r}. Choose from {sorted(BUDGETS)}.")
    before = _pretraining(cell) if charged else NONE_SEEN
    if axis in KINDS:
        training = _training(cell)
        return getattr(training + before, axis) if training and before else None
    if before is None or any(before):
        return None
    if axis == "hours":
        return average([_process_hours(run) for run in cell.runs])
    return average([iterations_of(run) for run in cell.runs])


def last_evaluation(run: RunData, metric: str) -> dict[str, float]:
    """All that the evaluation with the last `metric` measured; {} where there was none."""
    iterations, _ = series(run.rows, metric)
    row = next((row for row in run.rows if row["iteration"] in iterations[-1:]), {})
    tasks = tuple(f"{key.rpartition('/')[0]}/" for key in row if key.endswith(MAIN_METRICS))
    return {key: value for key, value in row.items() if key.startswith(tasks)}


def _cells(comparison: Comparison) -> list[Cell]:
    """By arm, and the shortest first."""
    keys = ((arm, length) for arm in comparison.arms for length in comparison.lengths)
    return [comparison.cells[key] for key in keys if key in comparison.cells]


def _best(cells: Sequence[Cell]) -> Cell | None:
    return max(cells, key=lambda cell: cell.mean, default=None)


def _values(cell: Cell | None) -> list[float]:
    return cell.values if cell else []


def _mean(cell: Cell | None, *, with_length: bool = False) -> Value | None:
    """ "41.3 ± 0.2 (3)" of three seeds, or "41.3 (6x)"."""
    if cell is None:
        return None
    spread = "" if cell.deviation is None else f" ± {cell.deviation:.1f}"
    note = cell.length if with_length else len(cell.values)
    return Value(f"{cell.mean:.1f}{spread} ({note})", cell.mean)


def _judged_gap(comparison: Comparison, arm: str, length: str) -> Value | None:
    """ "-3.5 (-4.1 to -2.9), behind"; without an interval the difference of the means."""
    cells = [comparison.cells.get((of_arm, length)) for of_arm in (arm, comparison.reference)]
    if None in cells:
        return None
    gap, state = comparison.gaps[arm, length], comparison.states[arm, length]
    difference = cells[0].mean - cells[1].mean
    if gap is None:
        return Value(f"{difference:+.1f}, {state}", difference)
    return Value(f"{spell_gap(gap)}, {state}", gap.estimate)


def _gap(values: Sequence[float], reference: Sequence[float], comparison: Comparison) -> Value | None:
    """With its interval over seeds where there are enough."""
    if not values or not reference:
        return None
    gap = gap_over_seeds(values, reference, comparison.confidence)
    if gap:
        return Value(spell_gap(gap), gap.estimate)
    difference = statistics.fmean(values) - statistics.fmean(reference)
    return Value(f"{difference:+.1f}", difference)


def _headers(comparison: Comparison, best: dict[str, Cell]) -> list[str]:
    arms = [f"{name_arm(arm)}, {cell.length}" for arm, cell in best.items()]
    return [*arms, *(_minus(arm, comparison) for arm in _with_reference(comparison, best))]


def _compare_metric(
    comparison: Comparison, evaluations: dict[str, list[dict]], key: str
) -> list[float | Value | None]:
    """The mean of each arm, and the gaps."""
    values = {arm: _measured(of_arm, key) for arm, of_arm in evaluations.items()}
    means = [round(statistics.fmean(of_arm), 2) if of_arm else None for of_arm in values.values()]
    others = _with_reference(comparison, values)
    return [*means, *(_gap(values[arm], values[comparison.reference], comparison) for arm in others)]


def _with_reference(comparison: Comparison, arms: Container[str]) -> list[str]:
    """The arms that can be set against the reference."""
    return [arm for arm in comparison.others if arm in arms and comparison.reference in arms]


def _evaluations(best: dict[str, Cell], metric: str) -> dict[str, list[dict[str, float]]]:
    return {arm: [last_evaluation(run, metric) for run in cell.runs] for arm, cell in best.items()}


def _measured(evaluations: Sequence[dict[str, float]], key: str) -> list[float]:
    """Without the values that the data leaves undefined."""
    values = (evaluation.get(key, math.nan) for evaluation in evaluations)
    return [value for value in values if math.isfinite(value)]


def _table_of_categories(
    comparison: Comparison, best: dict[str, Cell], key: str, categories: set[str]
) -> Table:
    evaluations = _evaluations(best, comparison.metric)
    rows = [(name, *_compare_metric(comparison, evaluations, f"{key}-{name}")) for name in sorted(categories)]
    others = _with_reference(comparison, best)
    if others:
        column = 1 + len(best)
        rows.sort(key=lambda row: -math.inf if row[column] is None else row[column].sort, reverse=True)
    caption = (
        f"{capital(spell(key))} by category, in percent, means over seeds, of the same runs as the table by "
        f"metric.{_explain_gaps(comparison, best.values(), len(rows))}"
    )
    return Table(("category", *_headers(comparison, best)), rows, caption)


def _minus(arm: str, comparison: Comparison) -> str:
    return f"{name_arm(arm)} minus {name_arm(comparison.reference)}"


def _explain_intervals(comparison: Comparison) -> str:
    """What stands in brackets behind the gaps of `table_by_length`."""
    words = {"seeds": "over seeds (Welch)", "images": "by paired bootstrap over the validation images"}
    bases = dict.fromkeys(gap.basis for gap in comparison.gaps.values() if gap)
    if not bases:
        return ": no interval, because there are too few runs of each"
    level = spell_confidence(comparison.confidence)
    return f", in brackets their {level} intervals {' or '.join(words[basis] for basis in bases)}"


def _explain_gaps(comparison: Comparison, cells: Iterable[Cell], number: int = 0) -> str:
    """What stands in brackets behind gaps between `cells`; of a `number` of them some are wrong."""
    if sum(len(cell.values) > 1 for cell in cells) < 2:
        return ""
    level = spell_confidence(comparison.confidence)
    words = f" In brackets: {level} intervals over seeds (Welch), each on its own."
    return words + (f" Of {number} intervals some miss the truth by chance alone." if number else "")


def _budget_caption(
    comparison: Comparison, axis: str, charged: bool, costs: dict[tuple[str, str], float | None]
) -> str:
    unknown = dict.fromkeys(name_arm(arm) for (arm, _), value in costs.items() if value is None)
    missing = (
        f" What some runs of {', '.join(unknown)} cost is unknown; they are left out." if unknown else ""
    )
    intervals = _explain_gaps(comparison, comparison.cells.values())
    return (
        f"{capital(spell(comparison.metric))} of the best finished length that fits the budget, pre-training "
        f"{'charged' if charged else 'not charged'}; nothing is interpolated, and budgets within "
        f"{100 * (_SAME_BUDGET - 1):.0f} % count as one. {_BEST}{intervals}{missing}"
    )


def _distinct(budgets: Sequence[float]) -> list[float]:
    """Of each group of nearly equal ones the highest; `budgets` rise."""
    ret: list[float] = []
    lowest = 0.0
    for budget in budgets:
        if ret and budget <= lowest * _SAME_BUDGET:
            ret[-1] = budget
        else:
            ret.append(budget)
            lowest = budget
    return ret


def _training(cell: Cell) -> Samples | None:
    return mean_samples([samples_of_run(run) for run in cell.runs])


def _pretraining(cell: Cell) -> Samples | None:
    return mean_samples([pretraining_of(run) for run in cell.runs])


def _process_hours(run: RunData) -> float | None:
    """Of all sessions by run.json, evaluations too; None where one does not tell."""
    told = [(s.get("train_seconds"), s.get("hardware", {}).get("processes")) for s in run.sessions]
    if not told or any(None in pair for pair in told):
        return None
    return sum(seconds * processes for seconds, processes in told) / 3600


def _place(value: float | None, axis: str) -> Value | float | None:
    """On an axis of `BUDGETS`, as it is read."""
    if value is None or axis in KINDS:
        return _amount(value)
    return int(value) if axis == "iterations" else float(f"{value:.3g}")


def _amount(value: float | None) -> Value | None:
    """ "131.0 M"."""
    return None if value is None else Value(short_number(value), value)
