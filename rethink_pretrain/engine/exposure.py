"""What a run has trained on, as the paper's figure 2 counts it: images, instances and pixels."""

from collections.abc import Iterable
from typing import Any, NamedTuple


class Exposure(NamedTuple):
    """Of all processes since the start of the run; everything counts at every visit.

    Instances are those that the losses see, without crowds; a labelled image of a classifier is one. Pixels
    are those of the resized images, without padding.
    """

    images: int = 0
    instances: int = 0
    pixels: int = 0

    def grown_by(self, counts: Iterable[float]) -> "Exposure":
        """With what all processes together have just trained on, the sum of their `count_records`."""
        return Exposure(*(before + int(added) for before, added in zip(self, counts, strict=True)))


def count_records(records: Iterable[dict[str, Any]]) -> list[int]:
    """Images, instances and pixels of the `records` of this process."""
    counts = [(1, _count_instances(record), _count_pixels(record)) for record in records]
    return [sum(column) for column in zip(*counts)]


def _count_instances(record: dict[str, Any]) -> int:
    return len(record["instances"]) if "instances" in record else int("label" in record)


def _count_pixels(record: dict[str, Any]) -> int:
    height, width = record["image"].shape[-2:] if "image" in record else (0, 0)
    return height * width
