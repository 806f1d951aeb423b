"""The paper's figure 2 from its constants: images, instances and pixels of its two routes."""

import math
from typing import NamedTuple

from .accounting import (
    IMAGENET,
    IMAGENET_EPOCHS,
    IMAGENET_IMAGES,
    IMAGENET_SIDE,
    KINDS,
    NONE_SEEN,
    PRETRAINING,
    TRAINING,
    Account,
    Phase,
    Samples,
    short_number,
)

COCO_IMAGES = 118_287  # train2017
COCO_INSTANCES = 860_001  # in them, crowds included
COCO_SIDES = (800, 1333)  # px, of every resized image
BATCH = 16  # images per iteration
TUNED, SCRATCH = 180_000, 540_000  # iterations: 2x and 6x

LEGEND = (115_000, 72)  # images and epochs of COCO as the legend has them
NOTE = (
    f"The figure's legend has {LEGEND[0]:,} images x {LEGEND[1]} epochs of COCO. That would be "
    f"{math.prod(LEGEND) / 1e6:.2f} M images from random, not the 8.6 M that the figure prints: those are "
    "iterations x batch."
)


class _Part(NamedTuple):
    """One training: for each kind how its count comes about, and the counts."""

    name: str
    products: tuple[str, str, str]
    samples: Samples


def figure_2() -> list[Account]:
    """The two bars of each panel."""
    pretraining, tuned, scratch = _parts()
    none = Phase(PRETRAINING, NONE_SEEN, "none: random weights")
    return [
        Account("pre-train + fine-tune", [_phase(PRETRAINING, pretraining), _phase(TRAINING, tuned)]),
        Account("from random", [none, _phase(TRAINING, scratch)]),
    ]


def working() -> list[str]:
    """The arithmetic of `figure_2`, a line for each product, each sum and each printed value."""
    lines = []
    for number, kind in enumerate(KINDS):
        lines.append(f"{kind}:")
        values = [part.samples[number] for part in _parts()]
        for part, value in zip(_parts(), values, strict=True):
            lines.append(f"  {part.name}: {part.products[number]} = {value:,.0f}")
        both = sum(values[:2])
        terms = " + ".join(f"{value:,.0f}" for value in values[:2])
        lines.append(f"  pre-train + fine-tune: {terms} = {both:,.0f}, or {short_number(both)}")
        lines.append(f"  from random: {values[2]:,.0f}, or {short_number(values[2])}")
    return lines


def _parts() -> list[_Part]:
    images = f"{IMAGENET.images:,}"
    products = (
        f"{IMAGENET_IMAGES:,} images x {IMAGENET_EPOCHS} epochs",
        f"{images} images x 1",
        f"{images} images x {IMAGENET_SIDE} x {IMAGENET_SIDE} px",
    )
    return [
        _Part("ImageNet", products, IMAGENET),
        _coco("COCO, 2x", TUNED),
        _coco("COCO, 6x", SCRATCH),
    ]


def _coco(name: str, iterations: int) -> _Part:
    images = BATCH * iterations
    products = (
        f"{BATCH} images x {iterations:,} iterations",
        f"{images:,} images x {COCO_INSTANCES:,} / {COCO_IMAGES:,}",
        f"{images:,} images x {COCO_SIDES[0]} x {COCO_SIDES[1]} px",
    )
    counts = Samples(images, images * COCO_INSTANCES / COCO_IMAGES, images * math.prod(COCO_SIDES))
    return _Part(name, products, counts)


def _phase(name: str, part: _Part) -> Phase:
    return Phase(name, part.samples, f"{part.name}: {part.products[0]}")
