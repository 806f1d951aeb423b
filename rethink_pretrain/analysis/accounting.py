"""Images, instances and pixels that a detector has seen, its pre-training included: the paper's figure 2.

An image counts once per visit; its pixels are those after resizing, before padding.
"""

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .runs import RANDOM, UNKNOWN, RunData

IMAGENET_IMAGES = 1_281_167  # ImageNet-1k, training
IMAGENET_EPOCHS = 100
IMAGENET_SIDE = 224  # px

# Weights of ImageNet-1k by their names in the host's catalogue and zoo. X-152-32x8d-IN5k is of another set.
_IMAGENET = re.compile(r"\bImageNetPretrained/.*\b(R|X)-\d+(?!.*IN5k)", re.IGNORECASE)

ASSUMED = "assumed: the paper's figure 2, 1,281,167 images x 100 epochs of 224 x 224 px"
PRETRAINING, TRAINING = "pre-training", "training"  # names of phases
KINDS = ("images", "instances", "pixels")
_UNITS = ("", "k", "M", "G", "T")  # powers of a thousand


class Samples(NamedTuple):
    """Totals over all visits; None is unknown, and stays so in a sum."""

    images: float
    instances: float | None
    pixels: float | None

    def __add__(self, other: "Samples") -> "Samples":  # type: ignore[override]
        """Of one training after the other."""
        return Samples(*(None if None in pair else sum(pair) for pair in zip(self, other, strict=True)))


NONE_SEEN = Samples(0.0, 0.0, 0.0)
IMAGENET = Samples(
    IMAGENET_IMAGES * IMAGENET_EPOCHS,
    IMAGENET_IMAGES * IMAGENET_EPOCHS,  # its label is one instance
    IMAGENET_IMAGES * IMAGENET_EPOCHS * IMAGENET_SIDE**2,
)


class Phase(NamedTuple):
    """A training and what it saw, None for unknown; `source` says in words how that is known."""

    name: str
    samples: Samples | None
    source: str


class Account(NamedTuple):
    """All trainings that made one detector, in their order."""

    name: str
    phases: list[Phase]

    @property
    def total(self) -> Samples | None:
        """None where one of the phases is unknown."""
        ret = NONE_SEEN
        for phase in self.phases:
            if phase.samples is None:
                return None
            ret += phase.samples
        return ret


def short_number(value: float) -> str:
    """ "131.0 M", "9.5 T", "950": one decimal from a thousand on."""
    power = 0
    while power < len(_UNITS) - 1 and round(value / 1000**power, min(power, 1)) >= 1000:
        power += 1
    return f"{value / 1000**power:,.1f} {_UNITS[power]}" if power else f"{value:,.0f}"


def describe_samples(samples: Samples | None) -> list[str]:
    """One short number for each of `KINDS`, or "unknown"."""
    counts = samples or (None,) * len(KINDS)
    return ["unknown" if count is None else short_number(count) for count in counts]


def as_json(accounts: Iterable[Account]) -> dict[str, Any]:
    """{"entries": [{"name", "phases": [{"name", "images", ..., "source"}], "total"}]}; null is unknown."""

    def counts(samples: Samples | None) -> dict[str, float | None]:
        return samples._asdict() if samples else dict.fromkeys(KINDS)

    return {
        "entries": [
            {
                "name": account.name,
                "phases": [
                    {"name": phase.name, **counts(phase.samples), "source": phase.source}
                    for phase in account.phases
                ],
                "total": counts(account.total),
            }
            for account in accounts
        ]
    }


def samples_of_run(run: RunData) -> Samples | None:
    """What the training of `run` has seen so far, without pre-training.

    From its own counters; without them the images alone, as iterations times the batch. None where the
    batch is unknown, too.
    """
    return _training_of(run).samples


def pretraining_of(run: RunData) -> Samples | None:
    """What the weights that `run` started from have cost; zeros from random weights, None for unknown.

    What their file tells comes first; the files of ImageNet-1k that the host offers are `IMAGENET`.
    """
    return _pretraining_of(run).samples


def mean_samples(samples: Sequence[Samples | None]) -> Samples | None:
    """Of several runs. None, and each count None, where it is unknown of one."""
    if None in samples:
        return None
    return Samples(*map(average, zip(*samples, strict=True)))


def average(values: Sequence[float | None]) -> float | None:
    """None where one is unknown."""
    return None if None in values else statistics.fmean(values)


def account_of_run(run: RunData) -> Account:
    """Its pre-training and its training so far."""
    return Account(run.name, [_pretraining_of(run), _training_of(run)])


def pretraining_phase(weights: str, told: Any = None) -> Phase:
    """Of MODEL.WEIGHTS, and of what the file itself tells: {"images": ..., "recipe": ...}, if anything."""
    if not weights:
        return Phase(PRETRAINING, NONE_SEEN, "none: random weights")
    samples = _samples_in(told)
    if samples:
        recipe = f": {told['recipe']}" if told.get("recipe") else ""
        return Phase(PRETRAINING, samples, f"told by the weights{recipe}")
    if _IMAGENET.search(weights):
        return Phase(PRETRAINING, IMAGENET, ASSUMED)
    return Phase(PRETRAINING, None, f"unknown: {weights} does not tell")


def _training_of(run: RunData) -> Phase:
    counted = _samples_in(run.sessions[-1].get("samples")) if run.sessions else None
    counted = counted or _counters_in(run.rows)
    if counted:
        return Phase(TRAINING, counted, "counted by the run")
    if run.images_per_step is None:
        return Phase(TRAINING, None, "unknown: neither counters nor one batch size")
    (steps,) = run.steps_done([int(run.rows[-1]["iteration"])])
    words = f"{steps:,} iterations x {run.images_per_step} images"
    return Phase(TRAINING, Samples(float(steps * run.images_per_step), None, None), words)


def _pretraining_of(run: RunData) -> Phase:
    weights = run.config.get("MODEL.WEIGHTS", "" if run.arm == RANDOM else UNKNOWN)
    loaded = (session.get("weights") for session in run.sessions)
    told = (entry.get("pretraining") for entry in loaded if isinstance(entry, Mapping))
    return pretraining_phase(weights, next(filter(_samples_in, told), None))


def _counters_in(rows: list[dict[str, float]]) -> Samples | None:
    """The last ones, if they are of the last training step that was written."""
    trained = [row for row in rows if "total_loss" in row]
    last = trained[-1] if trained else {}
    return _samples_in({kind: last.get(f"samples/{kind}") for kind in KINDS})


def _samples_in(counts: Any) -> Samples | None:
    """From {"images": ..., "instances": ..., "pixels": ...}; what is no count is unknown."""
    values = [counts.get(kind) if isinstance(counts, Mapping) else None for kind in KINDS]
    images, *others = (float(v) if type(v) in (int, float) and 0 <= v < math.inf else None for v in values)
    return None if images is None else Samples(images, *others)
