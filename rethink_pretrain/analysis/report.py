"""The comparison of runs as sections of a page. It says what was measured, and names no winner."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from ..errors import UserError
from .comparable import differences, in_words, obstacles
from .curves import AXES, at_equal_positions, curve, thinned, wall_hours
from .page import Chart, Section, Table, Text
from .provenance import describe_origin
from .report_charts import plot_curves
from .runs import MAIN_METRICS, RANDOM, UNKNOWN, RunData, series

_TASKS = {  # of the host's metrics, in words
    "bbox": "box",
    "segm": "mask",
    "keypoints": "keypoint",
    "sem_seg": "semantic",
    "panoptic_seg": "panoptic",
}
_NAMES = {
    **{name: name for name in ("AP", "AP50", "AP75")},
    "APs": "AP, small objects",
    "APm": "AP, medium objects",
    "APl": "AP, large objects",
    **{name: name for name in ("AR1", "AR10", "AR100")},
    "ARs": "AR, small objects",
    "ARm": "AR, medium objects",
    "ARl": "AR, large objects",
}
_OF_CATEGORY = re.compile(r"(?P<metric>.*?/(AP|IoU|ACC))-(?P<category>.+)")
_NOTES = {  # on an axis
    "epochs": " of the training set in run.json",
    "hours": ": logged seconds a step, without evaluations, checkpoints and what a resume repeats",
}
_SEEDS = "published differences between seeds on COCO are 0.2 to 0.4 AP"


def compare(runs: Sequence[RunData], metric: str = "bbox/AP", axis: str | None = None) -> list[Section]:
    """What `runs` measured, side by side; `axis` of `curves.AXES` is for the charts.

    None is images seen, or iterations where a run does not tell its batch. Runs that `check_comparable`
    refuses get a warning first. Raises `UserError` for fewer than two runs, a metric that none of them has,
    and an axis that one of them does not tell.
    """
    if len(runs) < 2:
        raise UserError("One run is no comparison; give two or more.")
    _check_measured(runs, metric)
    count = "images" if all(run.images_per_step for run in runs) else "iterations"
    axis = axis or count
    reasons = obstacles(runs)
    return [
        *([_warning(reasons)] if reasons else []),
        Section("What the numbers say", [Text(summary(runs, metric)), _table_of_runs(runs, metric)]),
        Section(_capital(f"{spell(metric)} during training"), _during_training(runs, metric, axis, count)),
        Section("Training loss", _losses(runs, axis)),
        Section("Last evaluation", [_last_by_metric(runs, metric)]),
        *_by_category(runs, metric),
        Section("What was compared", _compared(runs)),
    ]


def spell(metric: str) -> str:
    """ "mask AP, small objects" for segm/APs."""
    *tasks, name = metric.split("/")
    return " ".join([*(_TASKS.get(task, task) for task in tasks), _NAMES.get(name, name)])


def summary(runs: Sequence[RunData], metric: str) -> str:
    """Where each run ends, and how certain a difference between them is."""
    ends = [_describe_end(run, metric) for run in runs]
    words = f"{_capital(spell(metric))}: {', '.join(ends[:-1])}, and {ends[-1]}."
    if obstacles(runs):
        return (
            f"{words} The runs differ in more than start and length, so a difference can have several causes."
        )
    groups = defaultdict(list)
    for run in runs:
        groups[run.arm, run.schedule].append(run)
    if max(map(len, groups.values())) == 1:
        known = f"; {_SEEDS}" if metric.endswith(("bbox/AP", "segm/AP")) else ""
        return f"{words} With one run of each, a difference cannot be told from chance{known}."
    return (
        f"{words} {_describe_spread(groups.values(), metric)}No interval is computed here, so no difference "
        "is said to be more than chance."
    )


def _describe_spread(groups: Iterable[Sequence[RunData]], metric: str) -> str:
    """Of finished runs."""
    spreads = []
    for group in groups:
        ends = [(run, *point) for run in group for point in curve(run, metric, "iterations")[-1:]]
        values = [value for run, done, value in ends if done == run.length]
        spreads += [max(values) - min(values)] if len(values) > 1 else []
    return f"Runs of one start and length differ by up to {max(spreads):.1f}. " if spreads else ""


def _describe_end(run: RunData, metric: str) -> str:
    name = f"{run.name} ({_start(run)})"
    points = curve(run, metric, "iterations")
    if not points:
        return f"{name} has no value"
    done, value = points[-1]
    if run.length is None:
        return f"{name} is at {value:.1f} after {done:,} iterations, of how many is unknown"
    if done < run.length:
        return f"{name} is at {value:.1f} after {done:,} of {run.length:,} iterations"
    return f"{name} ends at {value:.1f}"


def _start(run: RunData) -> str:
    """The arm in words."""
    return {RANDOM: "from random weights", UNKNOWN: "unknown start"}.get(run.arm, f"from {run.arm}")


def _check_measured(runs: Sequence[RunData], metric: str) -> None:
    if not any(curve(run, metric, "iterations") for run in runs):
        found = sorted({key for run in runs for row in run.rows for key in row if key.endswith(MAIN_METRICS)})
        known = f"they measured {', '.join(found)}" if found else "they hold no evaluation at all"
        raise UserError(f"No run has a value of {metric!r}; {known}.")


def _warning(reasons: list[str]) -> Section:
    words = "A difference between these runs can have other causes than their initialisation and length."
    table = Table(("reason",), [(reason,) for reason in reasons])
    return Section("Warning: not a comparison of initialisations", [Text(words), table])


def _table_of_runs(runs: Sequence[RunData], metric: str) -> Table:
    rows = []
    for run in runs:
        done, value = (curve(run, metric, "iterations") or [(None, None)])[-1]
        images = done * run.images_per_step if done and run.images_per_step else None
        hours = wall_hours(run)
        cells = (_rounded(value), done, images, run.seed, hours and float(f"{hours:.3g}"))
        rows.append((run.name, run.arm, run.schedule, *cells))
    headers = ("run", "start", "length", spell(metric), "iterations", "images", "seed", "hours")
    caption = (
        "At the last evaluation; images count at every visit. Hours are those of the whole training by "
        "run.json, evaluations too, on the hardware below."
    )
    return Table(headers, rows, caption)


def _during_training(runs: Sequence[RunData], metric: str, axis: str, count: str) -> list:
    curves = [curve(run, metric, axis) for run in runs]
    caption = _capital(f"{spell(metric)} against {AXES[axis]}{_NOTES.get(axis, '')}")
    chart = Chart(plot_curves(runs, curves, axis, spell(metric)), caption)
    if count != axis:
        curves = [curve(run, metric, count) for run in runs]
    rows = [(int(x), *map(_rounded, values)) for x, values in at_equal_positions(curves)]
    if not rows:
        return [chart, Text(f"No two runs were evaluated after the same number of {count}.")]
    caption = (
        f"{_capital(spell(metric))} after the same number of {count}, nothing interpolated. Runs of "
        "different length lower their learning rate at different points."
    )
    return [chart, Table((AXES[count], *(run.name for run in runs)), rows, caption)]


def _losses(runs: Sequence[RunData], axis: str) -> list:
    curves = [thinned(curve(run, "total_loss", axis)) for run in runs]
    if not any(curves):
        return [Text("The metrics hold no total_loss.")]
    figure = plot_curves(runs, curves, axis, "total training loss", marked=False)
    return [Chart(figure, f"Total training loss against {AXES[axis]}; of a long run, the means of 200 parts")]


def _last_rows(runs: Sequence[RunData], metric: str) -> list[dict[str, float]]:
    """What the evaluation that gave the last `metric` measured, of every run."""
    ret = []
    for run in runs:
        iterations, _ = series(run.rows, metric)
        row = next((row for row in run.rows if row["iteration"] in iterations[-1:]), {})
        tasks = tuple(f"{key.rpartition('/')[0]}/" for key in row if key.endswith(MAIN_METRICS))
        ret.append({key: value for key, value in row.items() if key.startswith(tasks)})
    return ret


def _last_by_metric(runs: Sequence[RunData], metric: str) -> Table:
    rows = _last_rows(runs, metric)
    keys = {key for row in rows for key in row if not _OF_CATEGORY.fullmatch(key)}
    cells = [(spell(key), *(_rounded(row.get(key)) for row in rows)) for key in sorted(keys, key=_order)]
    caption = f"In percent, of the last evaluation with a {spell(metric)}; blank where nothing was measured."
    return Table(("metric", *(run.name for run in runs)), cells, caption)


def _by_category(runs: Sequence[RunData], metric: str) -> list[Section]:
    rows = _last_rows(runs, metric)
    found: dict[str, set[str]] = defaultdict(set)
    for match in (_OF_CATEGORY.fullmatch(key) for row in rows for key in row):
        if match:
            found[match["metric"]].add(match["category"])
    ret = []
    for key in sorted(found, key=_order):
        cells = [(name, *(_rounded(row.get(f"{key}-{name}")) for row in rows)) for name in sorted(found[key])]
        table = Table(("category", *(run.name for run in runs)), cells, "Of the same evaluation, in percent.")
        ret.append(Section(_capital(f"{spell(key)} by category"), [table]))
    return ret


def _order(key: str) -> tuple:
    """Boxes, masks, keypoints, others; in each AP, by threshold, by size, others."""
    task, _, name = key.rpartition("/")
    tasks, names = list(_TASKS), list(_NAMES)
    return (
        tasks.index(task) if task in tasks else len(tasks),
        task,
        names.index(name) if name in names else len(names),
        name,
    )


def _compared(runs: Sequence[RunData]) -> list:
    names = [run.name for run in runs]
    rows = [(key, *map(in_words, values)) for key, values, _ in differences(runs)]
    keys = Table(("key", *names), rows, "All keys of the configs that differ.")
    origins = [describe_origin(run) for run in runs]
    facts = dict.fromkeys(fact for origin in origins for fact in origin)
    rows = [(fact, *(origin.get(fact) for origin in origins)) for fact in facts]
    origin = Table(
        ("fact", *names), rows, "By run.json, over all sessions of a run; blank where it does not tell."
    )
    return [keys if keys.rows else Text("The configs do not differ."), origin]


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
