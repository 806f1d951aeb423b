"""What trainings cost on hardware that somebody published seconds per iteration for."""

from collections.abc import Iterable
from pathlib import PurePath
from typing import NamedTuple

from .paper import Paper

GPUS = 8  # of every published figure
HARDWARE = ("8 P100", "8 V100")


class Cost(NamedTuple):
    """Hours on all GPUs of the hardware; `published` are those of them that needed no scaling by GFLOPs."""

    hours: float
    published: float

    @property
    def gpu_hours(self) -> float:
        """Of the `GPUS` together."""
        return GPUS * self.hours


def cost_of(paper: Paper, gflops: dict[str, float], config: str, iterations: float, hardware: str) -> Cost:
    """By the seconds published for `config`, else by those of its nearest relative times the ratio of GFLOPs.

    `iterations` have 16 images; `gflops` hold `config` and its relatives.
    """
    for relative in (config, *relatives(config)):
        row = paper.seconds_of(relative, hardware)
        if row:
            hours = iterations * 16 / row.batch * row.seconds / 3600
            scaled = hours * gflops[config] / gflops[relative]
            return Cost(scaled, scaled if relative == config else 0.0)
    raise ValueError(f"Nobody published seconds on {hardware}.")


def relatives(config: str) -> list[str]:
    """Configs of the same arm whose seconds may be published, the nearest first."""
    name = PurePath(config).name
    arm = "finetune" if name.startswith("finetune") else "scratch"
    deep = [f"paper/{arm}_R101_gn_6x.yaml"] if "R101" in name or "X152" in name else []
    return [*deep, f"{arm}_6x.yaml"]


def total(costs: Iterable[Cost]) -> Cost:
    """One after the other."""
    hours, published = zip(*costs)
    return Cost(sum(hours), sum(published))
