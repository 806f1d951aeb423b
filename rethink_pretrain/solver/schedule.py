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
IMAGES_1X = ITERATIONS_1X * REFERENCE_BATCH

# From 2x up the LR drops at fixed distances from the end (section 4), 60k and 20k iterations. Shorter
# schedules, 1x among them (60k and 80k of 90k), drop at these shares of their length; at 2x both rules agree.
_TAILS = (2 / 3, 2 / 9)  # of 1x
_SHARES = (2 / 3, 8 / 9)

_LENGTH = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<prefix>[kM]?)\s*(?P<unit>x|ep|images|iterations)")
_PREFIXES = {"": 1, "k": 1_000, "M": 1_000_000}


class Schedule(NamedTuple):
    """What a solver needs, in iterations of `images_per_batch` images."""

    max_iter: int
    steps: tuple[int, ...]
    base_lr: float
    warmup_iters: int


def parse_length(
    text: str, images_per_epoch: int = COCO_TRAIN2017_IMAGES, images_1x: int = IMAGES_1X
) -> float:
    """Training images, every visit counted, in "6x", "220k iterations", "73ep", "8.6M images" and the like.

    "1x" is `images_1x`, in the paper 90k iterations, and iterations have 16 images, whatever the batch and
    the data set; "ep" counts passes over `images_per_epoch` images. Fractions are fine: "0.5x". Raises
    `UserError` for anything else.
    """
    match = _LENGTH.fullmatch(text.strip())
    prefixed_unit = match is not None and match["prefix"] and match["unit"] in ("x", "ep")
    if match is None or prefixed_unit or float(match["number"]) == 0:
        raise UserError(
            f"Unknown training length {text!r} in RETHINK.SCHEDULE. "
            'Write a multiple such as "6x", iterations of 16 images such as "220k iterations", epochs such '
            'as "73ep", or images such as "8.6M images".'
        )
    number, unit = float(match["number"]), match["unit"]
    if unit == "x":
        return number * images_1x
    if unit == "ep":
        return number * images_per_epoch
    return number * _PREFIXES[match["prefix"]] * (REFERENCE_BATCH if unit == "iterations" else 1)


def build_schedule(
    length: str,
    images_per_batch: int = REFERENCE_BATCH,
    *,
    images_per_epoch: int = COCO_TRAIN2017_IMAGES,
    images_1x: int = IMAGES_1X,
    reference_lr: float = 0.02,
    reference_warmup_iters: int = 500,
    drops: tuple[float, ...] = (),
) -> Schedule:
    """The schedule of `length` for any batch size.

    A batch of k x 16 images has k times the `reference_lr` and 1/k of all iteration counts, so that
    every batch size sees the same images at the same learning rate per image (linear rule of Goyal
    et al., arXiv 1706.02677, which the paper cites). The warm-up therefore spans the same images too.

    `drops` are iterations of 16 images before the end, or below 1 shares of the length; none is the
    paper's rule, scaled to `images_1x`. Raises `UserError` for an unknown length and for one too short for
    its drops.
    """
    images = parse_length(length, images_per_epoch, images_1x)
    scale = REFERENCE_BATCH / images_per_batch
    max_iter = round(images / images_per_batch)
    tails = tuple(tail * images_1x / REFERENCE_BATCH for tail in _TAILS)
    drops = drops or (tails if images >= 2 * images_1x else _SHARES)
    steps = tuple(round(drop * max_iter) if drop < 1 else max_iter - round(drop * scale) for drop in drops)
    if not all(before < after for before, after in zip((0, *steps), (*steps, max_iter))):
        raise UserError(
            f"RETHINK.SCHEDULE {length!r} is {max_iter} iterations of {images_per_batch} images: too short "
            f"for learning-rate drops at {', '.join(map(str, steps))}. Give a longer one, a smaller "
            "SOLVER.IMS_PER_BATCH, or other RETHINK.DROPS."
        )
    base_lr = reference_lr * images_per_batch / REFERENCE_BATCH
    # Whoever asks for a warm-up gets at least one iteration of it, however large the batch.
    warmup_iters = max(round(reference_warmup_iters * scale), min(1, reference_warmup_iters))
    return Schedule(max_iter, steps, base_lr, warmup_iters)
