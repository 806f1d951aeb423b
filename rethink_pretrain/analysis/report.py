"""The comparison of runs as sections of a page: the answer, the figures, the tables, where they come from."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate

from ..errors import UserError
from .comparable import obstacles
from .comparison import Comparison
from .comparison_tables import (
    table_at_equal_budget,
    table_by_length,
    table_by_metric,
    table_of_costs,
    tables_by_category,
)
from .curves import curve
from .metric_names import capital, spell
from .page import Chart, Columns, Section, Text, Value
from .report_facts import describe_runs, list_left_out, table_of_runs, warn
from .report_figures import (
    cost_kind,
    draw_costs,
    draw_curves,
    draw_final,
    draw_fits,
    draw_losses,
    draw_samples,
)
from .runs import MAIN_METRICS, RunData
from .verdict import name_arm


def check_measured(runs: Sequence[RunData], metric: str) -> None:
    """Raises `UserError` for fewer than two runs, and a metric that none of them has."""
    if not any(curve(run, metric, "iterations") for run in runs):
        found = sorted({key for run in runs for row in run.rows for key in row if key.endswith(MAIN_METRICS)})
        known = f"they measured {', '.join(found)}" if found else "they hold no evaluation at all"
        raise UserError(f"No run has a value of {metric!r}; {known}.")
    if len(runs) < 2:
        raise UserError("One run is no comparison; give two or more.")


def default_axis(runs: Sequence[RunData]) -> str:
    """Images seen, or iterations where a run does not tell its batch."""
    return "images" if all(run.images_per_step for run in runs) else "iterations"


def report(
    runs: Sequence[RunData],
    comparison: Comparison,
    axis: str | None = None,
    left_out: Iterable[tuple[str, str]] = (),
) -> list[Section]:
    """What `runs` measured and what follows from it; `axis` of `curves.AXES` is for the charts.

    Runs that `check_comparable` refuses get a warning first. `left_out` are names and reasons beside those of
    the comparison. Raises `UserError` for an axis that one of the runs does not tell.
    """
    axis = axis or default_axis(runs)
    reasons = obstacles(runs)
    return [
        *([warn(reasons)] if reasons else []),
        Section("The answer", [Text(comparison.verdict, large=True), *_figures(runs, comparison, axis)]),
        *(_tables(runs, comparison) if comparison.cells else []),
        *_fitting(comparison, axis),
        Section("The runs", [table_of_runs(runs, comparison.metric)]),
        *list_left_out([*comparison.left_out, *left_out]),
        describe_runs(runs),
    ]


def title(comparison: Comparison) -> str:
    """Of the page: "random weights against R-50.pkl"."""
    arms = [name_arm(arm) for arm in (*comparison.others, comparison.reference)]
    if len(arms) < 2:
        return "Comparison of runs"
    return capital(f"{' and '.join(arms[:-1])} against {arms[-1]}")


def subtitle(runs: Sequence[RunData]) -> str:
    """ "36 runs, trained on coco_2017_train, evaluated on coco_2017_val"."""
    words = [f"{len(runs)} runs"]
    for key, action in (("DATASETS.TRAIN", "trained"), ("DATASETS.TEST", "evaluated")):
        names = dict.fromkeys(name for run in runs for name in run.config.get(key, ()))
        words += [f"{action} on {', '.join(names)}"] if names else []
    return ", ".join(words)


def as_text(comparison: Comparison) -> str:
    """The verdict and the table by length, for a terminal."""
    if not comparison.cells:
        return comparison.verdict
    table = table_by_length(comparison)
    rows = [[cell.text if isinstance(cell, Value) else cell for cell in row] for row in table.rows]
    return f"{comparison.verdict}\n\n{tabulate(rows, table.headers)}\n"


def _figures(runs: Sequence[RunData], comparison: Comparison, axis: str) -> list[Columns | Chart]:
    curves = draw_curves(runs, comparison, axis)
    if not comparison.cells:
        return [curves]
    costs = draw_costs(comparison)
    return [Columns([curves, draw_final(comparison), *([costs] if costs else [])])]


def _tables(runs: Sequence[RunData], comparison: Comparison) -> list[Section]:
    categories = tables_by_category(runs, comparison)
    samples = draw_samples(comparison)
    return [
        Section(f"{capital(spell(comparison.metric))} by length of training", [table_by_length(comparison)]),
        Section("By metric", [table_by_metric(runs, comparison)]),
        *([Section("By category", categories)] if categories else []),
        *_at_equal_cost(comparison),
        Section("Samples and cost", [*([samples] if samples else []), table_of_costs(comparison)]),
    ]


def _at_equal_cost(comparison: Comparison) -> list[Section]:
    kind = cost_kind(comparison)
    asked = [("iterations", False), *([(kind, False), (kind, True)] if kind else []), ("hours", False)]
    tables = [table_at_equal_budget(comparison, axis, charged) for axis, charged in asked]
    tables = [table for table in tables if table.rows]
    return [Section("At equal cost", tables)] if tables else []


def _fitting(comparison: Comparison, axis: str) -> list[Section]:
    charts = [chart for chart in (draw_losses(comparison, axis), draw_fits(comparison)) if chart]
    return [Section("Training loss and validation", [Columns(charts)])] if charts else []
