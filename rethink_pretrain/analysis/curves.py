"""What a run measured, against iterations, images, epochs or hours."""

from collections.abc import Sequence

import numpy as np

from ..errors import UserError
from .runs import RunData, series

Curve = list[tuple[float, float]]  # (position on the axis, value), by rising position

AXES = {
    "iterations": "iterations",
    "images": "images seen",
    "epochs": "epochs",
    "hours": "hours of training steps",
}


def curve(run: RunData, metric: str, axis: str = "images") -> Curve:
    """The finite values of `metric` where they were measured; [] where they never were.

    Raises `UserError` where the run's files do not tell the axis.
    """
    iterations, values = series(run.rows, metric)
    points = dict(zip(positions(run, run.steps_done(iterations), axis), values, strict=True))
    return sorted((x, y) for x, y in points.items() if np.isfinite(y))


def positions(run: RunData, steps: Sequence[int], axis: str) -> list[float]:
    """Where on `axis` the run was after each number of training steps.

    Images count at every visit. An epoch is as many images as the training set had, by run.json. Hours are
    the logged seconds of an iteration, medians of the last few, times the iterations: without evaluations,
    checkpoints, starts, and what a resume did a second time. Raises `UserError` as `curve`.
    """
    if axis == "iterations":
        return list(steps)
    if axis == "hours":
        return _hours(run, steps)
    if axis not in AXES:
        raise ValueError(f"Unknown axis {axis!r}. Choose from {sorted(AXES)}.")
    batch = run.images_per_step
    if batch is None:
        raise UserError(f"{run.name}: its files do not tell how many images a step had; take iterations.")
    if axis == "images":
        return [count * batch for count in steps]
    size = training_images(run)
    if size is None:
        raise UserError(f"{run.name}: no run.json that tells the size of its training set; take images.")
    return [count * batch / size for count in steps]


def training_images(run: RunData) -> int | None:
    """Images of all training sets together, None where run.json does not tell."""
    sizes = [data.get("images") for session in run.sessions[-1:] for data in session.get("data", [])]
    return sum(sizes) if sizes and None not in sizes else None


def wall_hours(run: RunData) -> float | None:
    """All that training took by run.json, evaluations too; None where a session did not say at its end."""
    seconds = [session.get("train_seconds") for session in run.sessions]
    return sum(seconds) / 3600 if seconds and None not in seconds else None


def _hours(run: RunData, steps: Sequence[int]) -> list[float]:
    iterations, seconds = series(run.rows, "time")
    if not iterations:
        raise UserError(f'{run.name}: its metrics hold no "time"; take images or iterations.')
    # A row speaks for the steps since the row before.
    done = np.array([0, *run.steps_done(iterations)])
    spent = np.concatenate(([0], np.cumsum(np.diff(done) * seconds)))
    return list(np.interp(steps, done, spent / 3600))


def thinned(points: Curve, number: int = 200) -> Curve:
    """At most `number` points: means of the points in as many equal parts of the axis."""
    if len(points) <= number:
        return points
    x, y = np.array(points).T
    parts = np.minimum(((x - x[0]) / (x[-1] - x[0]) * number).astype(int), number - 1)
    counts = np.bincount(parts, minlength=number)
    means = [np.bincount(parts, values, number)[counts > 0] / counts[counts > 0] for values in (x, y)]
    return list(zip(*(values.tolist() for values in means), strict=True))


def at_equal_positions(curves: Sequence[Curve], number: int = 12) -> list[tuple[float, list[float | None]]]:
    """Positions at which at least two curves were measured, and the value of each curve there, or None.

    Nothing is interpolated. Of many positions, `number` are left, evenly spaced over the list, and the ends
    of the curves.
    """
    values = [dict(points) for points in curves]
    shared = sorted(x for x in set().union(*values) if sum(x in of_one for of_one in values) > 1)
    spaced = np.linspace(0, len(shared) - 1, min(number, len(shared))).round().astype(int)
    kept = {shared[i] for i in spaced} | {points[-1][0] for points in curves if points}
    return [(x, [of_one.get(x) for of_one in values]) for x in shared if x in kept]
