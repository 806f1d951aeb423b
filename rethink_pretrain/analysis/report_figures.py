"""The figures of a comparison with their captions, from the numbers of its runs."""

from collections.abc import Sequence

from .accounting import KINDS, Account, Samples, account_of_run, mean_samples, pretraining_of, samples_of_run
from .comparison import Cell, Comparison
from .curves import AXES, curve, fits, spread, thinned
from .metric_names import capital, spell
from .page import Chart
from .report_charts import Line, Point, plot_costs, plot_curves, plot_final, plot_fits
from .runs import RunData
from .samples_chart import plot_samples
from .verdict import name_arm, spell_confidence

_NOTES = {  # on an axis
    "epochs": " of the training set in run.json",
    "hours": ": logged seconds a step, without evaluations, checkpoints and what a resume repeats",
}
_NOTES["gpu-hours"] = _NOTES["hours"]
_FREE, _CHARGED = "training alone", "pre-training charged"


def draw_curves(runs: Sequence[RunData], comparison: Comparison, axis: str) -> Chart:
    """The metric during training, as in the paper's figure 1."""
    metric, label = comparison.metric, spell(comparison.metric)
    lines = [Line(cell.arm, cell.length, spread(cell.runs, metric, axis)) for cell in _cells(comparison)]
    in_cells = {run.name for cell in _cells(comparison) for run in cell.runs}
    others = [run for run in runs if run.name not in in_cells]
    lines += [Line(run.arm, run.schedule, spread([run], metric, axis), finished=False) for run in others]
    caption = (
        f"{capital(label)} against {AXES[axis]}{_NOTES.get(axis, '')}: mean of the seeds, and a band from "
        "the lowest to the highest. A dot ends each length; the jumps are drops of the learning rate."
    )
    if others:
        caption += " Dashed: runs that no cell of the comparison holds."
    return Chart(plot_curves(lines, axis, label), caption)


def draw_final(comparison: Comparison) -> Chart:
    """The metric by length and the gaps below."""
    label = spell(comparison.metric)
    figure = plot_final(comparison, label)
    caption = f"{capital(label)} at the end of each length: mean, every seed, and their range."
    if not comparison.others:
        return Chart(figure, caption)
    caption += (
        f" Below, the gap to {name_arm(comparison.reference)} with its "
        f"{spell_confidence(comparison.confidence)} interval: above 0 the other arm is better (triangles "
        f"up, or down where it is behind); the grey band is the margin of {comparison.margin:g}."
    )
    if figure.axes[1].get_yscale() != "linear":
        caption += " The axis is logarithmic beyond 1."
    if any(line.get_marker() == "x" for line in figure.axes[1].lines):
        caption += " A cross has no interval: too few runs."
    if any(gap and gap.basis == "images" for gap in comparison.gaps.values()):
        caption += " Hollow: an interval over validation images, which says nothing of other seeds."
    return Chart(figure, caption)


def cost_kind(comparison: Comparison) -> str | None:
    """Pixels, or else images: what is known of the training of every cell. None where neither is."""
    known = [_training(cell) for cell in _cells(comparison)]
    if not known or None in known:
        return None
    return "images" if any(samples.pixels is None for samples in known) else "pixels"


def draw_costs(comparison: Comparison) -> Chart | None:
    """The metric against what it cost, without and with pre-training; None where no cost is known."""
    kind = cost_kind(comparison)
    if kind is None:
        return None
    free, charged, unknown = [], [], set()
    for cell in _cells(comparison):
        cost = getattr(_training(cell), kind)
        free.append(Point(cell.arm, cost, cell.mean))
        before = pretraining_of(cell.runs[0])
        if before is None or getattr(before, kind) is None:
            unknown.add(cell.arm)
        else:
            charged.append(Point(cell.arm, cost + getattr(before, kind), cell.mean))
    panels = {_FREE: free, **({_CHARGED: charged} if charged else {})}
    caption = (
        f"{capital(spell(comparison.metric))} at the end of each length against the {kind} that it took, "
        "every visit counted. Pre-training, where it is charged, is charged in full to each run."
    )
    if unknown:
        caption += f" Not charged, because its cost is unknown: {', '.join(sorted(unknown))}."
    return Chart(plot_costs(panels, spell(comparison.metric), f"{kind} seen"), caption)


def draw_samples(comparison: Comparison) -> Chart | None:
    """Bars as in the paper's figure 2, of the longest training of each arm; None where nothing is known."""
    cells = [_longest(comparison, arm) for arm in comparison.arms]
    accounts = [_account(cell) for cell in cells if cell]
    if not any(phase.samples for account in accounts for phase in account.phases):
        return None
    caption = (
        f"{capital(', '.join(KINDS[:-1]))} and {KINDS[-1]} seen by the longest training of each arm, "
        "every visit counted, with the pre-training that its weights took."
    )
    return Chart(plot_samples(accounts), caption)


def draw_losses(comparison: Comparison, axis: str) -> Chart | None:
    """Training loss of the longest training of each arm; None where the metrics hold none."""
    lines = []
    for cell in filter(None, (_longest(comparison, arm) for arm in comparison.arms)):
        for run in cell.runs:
            points = thinned(curve(run, "total_loss", axis), 100)
            lines.append(Line(cell.arm, cell.length, [(x, y, y, y) for x, y in points]))
    if not any(line.points for line in lines):
        return None
    caption = (
        f"Total training loss against {AXES[axis]}, every seed of the longest training of each arm; of a "
        "long run, the means of 100 parts."
    )
    return Chart(plot_curves(lines, axis, "total training loss", ends=False), caption)


def draw_fits(comparison: Comparison) -> Chart | None:
    """The metric against the training loss, where over-fitting shows; None where there is no loss."""
    metric = comparison.metric
    found = {}
    for cell in filter(None, (_longest(comparison, arm) for arm in comparison.arms)):
        paths = [[(fit.loss, fit.value) for fit in fits(run, metric)] for run in cell.runs]
        found[cell.arm] = [path for path in paths if path]
    if not any(found.values()):
        return None
    caption = (
        f"{capital(spell(metric))} against the mean training loss since the evaluation before, same runs. "
        "An arm that lies lower at the same loss generalises less; a path that bends down to the right "
        "over-fits. The large dot is the end."
    )
    return Chart(plot_fits(found, spell(metric)), caption)


def _cells(comparison: Comparison) -> list[Cell]:
    keys = [(arm, length) for arm in comparison.arms for length in comparison.lengths]
    return [comparison.cells[key] for key in keys if key in comparison.cells]


def _longest(comparison: Comparison, arm: str) -> Cell | None:
    return next((cell for cell in reversed(_cells(comparison)) if cell.arm == arm), None)


def _training(cell: Cell) -> Samples | None:
    return mean_samples([samples_of_run(run) for run in cell.runs])


def _account(cell: Cell) -> Account:
    """Of a mean run of it; one weight file serves them all."""
    account = account_of_run(cell.runs[0])
    before, training = account.phases
    name = f"{name_arm(cell.arm)}, {cell.length}"
    return Account(name, [before, training._replace(samples=_training(cell))])
