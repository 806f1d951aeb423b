"""Training schedules of the paper as arithmetic: lengths, learning-rate drops, the linear rule.

Plain Python: no torch, no config. Section numbers are those of "Rethinking ImageNet Pre-training"
(He, Girshick, Dollar, arXiv 1811.08883).
"""

import re
from typing import NamedTuple

from ..errors import UserError

REFERENCE_BATCH = 16  # images per iteration everywhere in the paper: 8 GPUs x 2 images
ITERATIONS_1X = 90_000  # of 16 images; Detectron's name for its shortest standard schedule
COCO_TRAIN2017_IMAGES = 118_287

# From 2x up the LR drops at fixed distances from the end (section 4). Shorter schedules, 1x among
# them (60k and 80k of 90k), drop at these shares of their length; at 2x the two rules agree.
_TAILS = (60_000, 20_000)  # iterations of 16 images
_SHARES = (2 / 3, 8 / 9)

_LENGTH = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>x|ep|(?P<prefix>[kM]?)\s*images)")
_PREFIXES = {"": 1, "k": 1_000, "M": 1_000_000}


class Schedule(NamedTuple):
    """What a solver needs, in iterations of `images_per_batch` images."""

    max_iter: int
    steps: tuple[int, int]
    base_lr: float
    warmup_iters: int


def parse_length(text: str, images_per_epoch: int = COCO_TRAIN2017_IMAGES) -> float:
    """Training images, every visit counted, in a length such as "6x", "73ep" or "8.6M images".

    "1x" is 90k iterations of 16 images, whatever the data set; "ep" counts passes over
    `images_per_epoch` images. Fractions are fine: "0.5x". Raises `UserError` for anything else.
    """
    match = _LENGTH.fullmatch(text.strip())
    if match is None or float(match["number"]) == 0:
        raise UserError(
            f"Unknown training length {text!r} in RETHINK.SCHEDULE. "
            'Write a multiple such as "6x", epochs such as "73ep", or images such as "8.6M images".'
        )
    number, unit = float(match["number"]), match["unit"]
    if unit == "x":
        return number * ITERATIONS_1X * REFERENCE_BATCH
    if unit == "ep":
        return number * images_per_epoch
    return number * _PREFIXES[match["prefix"]]


def build_schedule(
    length: str,
    images_per_batch: int = REFERENCE_BATCH,
    *,
    images_per_epoch: int = COCO_TRAIN2017_IMAGES,
    reference_lr: float = 0.02,
    reference_warmup_iters: int = 500,
) -> Schedule:
    """The schedule of `length` for any batch size.

    A batch of k x 16 images has k times the `reference_lr` and 1/k of all iteration counts, so that
    every batch size sees the same images at the same learning rate per image (linear rule of Goyal
    et al., arXiv 1706.02677, which the paper cites). The warm-up therefore spans the same images too.

    Raises `UserError` for an unknown length or one too short for two drops (five iterations).
    """
    images = parse_length(length, images_per_epoch)
    scale = REFERENCE_BATCH / images_per_batch
    max_iter = round(images / images_per_batch)
    if images >= 2 * ITERATIONS_1X * REFERENCE_BATCH:
        steps = tuple(max_iter - round(tail * scale) for tail in _TAILS)
    else:
        steps = tuple(round(share * max_iter) for share in _SHARES)
    if not 0 < steps[0] < steps[1] < max_iter:
        raise UserError(
            f"RETHINK.SCHEDULE {length!r} is {max_iter} iterations of {images_per_batch} images: too short "
            "for two learning-rate drops. Give a longer one, or a smaller SOLVER.IMS_PER_BATCH."
        )
    base_lr = reference_lr * images_per_batch / REFERENCE_BATCH
    # Whoever asks for a warm-up gets at least one iteration of it, however large the batch.
    warmup_iters = max(round(reference_warmup_iters * scale), min(1, reference_warmup_iters))
    return Schedule(max_iter, steps, base_lr, warmup_iters)
