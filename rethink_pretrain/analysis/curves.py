"""What a run measured, against iterations, images, epochs or hours."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from .runs import RunData, series

Curve = list[tuple[float, float]]  # (position on the axis, value), by rising position


class Spread(NamedTuple):
    """What several runs measured at one point of an axis."""

    position: float  # mean, as seeds differ in hours
    mean: float
    low: float
    high: float


class Fit(NamedTuple):
    """How well a run fitted its training data when it was evaluated."""

    steps: int
    loss: float  # total training loss, mean since the evaluation before
    value: float


AXES = {
    "iterations": "iterations",
    "images": "images seen",
    "instances": "instances seen",
    "pixels": "pixels seen",
    "epochs": "epochs",
    "hours": "hours of training steps",
    "gpu-hours": "GPU-hours of training steps",
}


def curve(run: RunData, metric: str, axis: str = "images") -> Curve:
    """The finite values of `metric` where they were measured; [] where they never were.

    Raises `UserError` where the run's files do not tell the axis.
    """
    iterations, values = series(run.rows, metric)
    points = dict(zip(positions(run, run.steps_done(iterations), axis), values, strict=True))
    return sorted((x, y) for x, y in points.items() if np.isfinite(y))


def spread(runs: Sequence[RunData], metric: str, axis: str = "images") -> list[Spread]:
    """Mean, lowest and highest value of `runs` where all of them were measured, by rising position."""
    found = []
    for run in runs:
        points = {int(steps): value for steps, value in curve(run, metric, "iterations")}
        found.append(dict(zip(points, zip(positions(run, list(points), axis), points.values()), strict=True)))
    ret = []
    for steps in sorted(set.intersection(*map(set, found))):
        places, values = zip(*(points[steps] for points in found), strict=True)
        ret.append(Spread(float(np.mean(places)), float(np.mean(values)), min(values), max(values)))
    return ret


def fits(run: RunData, metric: str) -> list[Fit]:
    """Training loss and `metric` of each evaluation; [] where the metrics hold no loss."""
    losses = curve(run, "total_loss", "iterations")
    ret, before = [], 0
    for steps, value in curve(run, metric, "iterations"):
        since = [loss for at, loss in losses if before < at <= steps]
        ret += [Fit(int(steps), float(np.mean(since)), value)] if since else []
        before = steps
    return ret


def positions(run: RunData, steps: Sequence[int], axis: str) -> list[float]:
    """Where on `axis` the run was after each number of training steps.

    Images, instances and pixels count at every visit, the last two by the run's own counters. An epoch is as
    many images as the training set had, by run.json. Hours are the logged seconds of an iteration, medians of
    the last few, times the iterations: without evaluations, checkpoints, starts, and what a resume did a
    second time; GPU-hours are those of all processes. Raises `UserError` as `curve`.
    """
    if axis == "iterations":
        return list(steps)
    if axis == "hours":
        return _hours(run, steps)
    if axis == "gpu-hours":
        return _gpu_hours(run, steps)
    if axis in ("instances", "pixels"):
        return _counted(run, steps, axis)
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


def _gpu_hours(run: RunData, steps: Sequence[int]) -> list[float]:
    told = {session.get("hardware", {}).get("processes") for session in run.sessions}
    if len(told) != 1 or None in told:
        raise UserError(f"{run.name}: no run.json that tells one number of processes; take hours.")
    (processes,) = told
    return [hours * processes for hours in _hours(run, steps)]


def _counted(run: RunData, steps: Sequence[int], what: str) -> list[float]:
    """By the counters in its rows; a row speaks for all steps until it."""
    iterations, counts = series(run.rows, f"samples/{what}")
    if not iterations:
        raise UserError(f"{run.name}: its metrics hold no samples/{what}; take images or iterations.")
    return list(np.interp(steps, [0, *run.steps_done(iterations)], [0, *counts]))


def thinned(points: Curve, number: int = 200) -> Curve:
    """At most `number` points: means of the points in as many equal parts of the axis."""
    if len(points) <= number:
        return points
    x, y = np.array(points).T
    parts = np.minimum(((x - x[0]) / (x[-1] - x[0]) * number).astype(int), number - 1)
    counts = np.bincount(parts, minlength=number)
    means = [np.bincount(parts, values, number)[counts > 0] / counts[counts > 0] for values in (x, y)]
    return list(zip(*(values.tolist() for values in means), strict=True))
