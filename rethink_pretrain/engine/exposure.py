"""What a run has trained on, as the paper's figure 2 counts it: images, instances and pixels."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from .collectives import sum_over_processes


class Exposure(NamedTuple):
    """Of all processes since the start of the run; everything counts at every visit.

    Instances are those that the losses see, without crowds; a labelled image of a classifier is one. Pixels
    are those of the resized images, without padding.
    """

    images: int = 0
    instances: int = 0
    pixels: int = 0

    def grown_by(self, records: Iterable[dict[str, Any]]) -> "Exposure":
        """With what this process has just trained on, and the others with it: all of them call this."""
        counts = [(1, _count_instances(record), _count_pixels(record)) for record in records]
        sums = torch.tensor(counts, dtype=torch.float64).sum(dim=0)  # exact up to 9e15
        step = sum_over_processes(sums).tolist()
        return Exposure(*(before + int(added) for before, added in zip(self, step, strict=True)))


def _count_instances(record: dict[str, Any]) -> int:
    return len(record["instances"]) if "instances" in record else int("label" in record)


def _count_pixels(record: dict[str, Any]) -> int:
    height, width = record["image"].shape[-2:] if "image" in record else (0, 0)
    return height * width
