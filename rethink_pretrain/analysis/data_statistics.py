"""What a detector sees of an average training image: its objects, and its pixels after resizing."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from ..files import read_json
from .accounting import TRAINING, Phase, Samples
from .figure_2 import COCO_IMAGES, COCO_INSTANCES, COCO_SIDES


class LabelledImage(NamedTuple):
    """Size in px as in its file, and its objects without crowds."""

    height: int
    width: int
    instances: int


class Resizing(NamedTuple):
    """How training resizes. `style` is the host's "choice" or "range" of short sides, or "square".

    "choice" draws one of `sides`, "range" any whole number from the first to the second; the long side is
    at most `longest` px. "square" is large-scale jitter, which crops and pads every image to one side.
    """

    sides: tuple[int, ...]
    longest: int = 0
    style: str = "choice"

    @property
    def draws(self) -> list[int]:
        """All short sides in px, equally likely; 0 leaves an image as it is."""
        return [*range(self.sides[0], self.sides[-1] + 1)] if self.style == "range" else [*self.sides]


class PerImage(NamedTuple):
    """Means over the images and over the draws of the augmentation; pixels as in `accounting`."""

    instances: float
    pixels: float
    source: str


def read_images(
    path: str | Path, *, only_with_objects: bool = True, min_keypoints: int = 0
) -> list[LabelledImage]:
    """The images of annotations in COCO's format that the host would train on.

    That leaves out images without objects, crowds aside, and images of fewer visible keypoints in all.
    Raises `UserError` where the file is of another form or no image is left.
    """
    path = Path(path)
    document = read_json(path)
    try:
        objects = _count_objects(document["annotations"])
        keypoints = _count_keypoints(document["annotations"])
        images = {int(image["id"]): (image["height"], image["width"]) for image in document["images"]}
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{path} is not in COCO's format ({type(error).__name__}: {error}): it needs images with id, "
            "height and width, and annotations with image_id."
        ) from None
    if not all(type(side) in (int, float) and side > 0 for size in images.values() for side in size):
        raise UserError(f"{path}: an image lacks height or width; tools/validate_dataset.py --fix mends it.")
    least = 1 if only_with_objects else 0
    kept = [i for i in images if objects[i] >= least and keypoints[i] >= min_keypoints]
    if not kept:
        raise UserError(f"{path} has no image to train on: none has an object.")
    return [LabelledImage(*map(int, images[i]), objects[i]) for i in kept]


def _count_objects(annotations: list[dict[str, Any]]) -> Counter[int]:
    return Counter(int(a["image_id"]) for a in annotations if not (a.get("iscrowd") or a.get("ignore")))


def _count_keypoints(annotations: list[dict[str, Any]]) -> Counter[int]:
    """Visible ones of an image; those of crowds count, as in the host."""
    ret: Counter[int] = Counter()
    for annotation in annotations:
        visible = sum(flag > 0 for flag in (annotation.get("keypoints") or ())[2::3])
        ret[int(annotation["image_id"])] += visible
    return ret


def per_image(images: Sequence[LabelledImage], resizing: Resizing, source: str) -> PerImage:
    """The means over `images`; `source` says in words where they are from."""
    instances = sum(image.instances for image in images) / len(images)
    sizes = np.array([(image.height, image.width) for image in images])
    return PerImage(instances, mean_area(sizes, resizing), f"{source}, {_describe(resizing)}")


def per_image_of_paper(resizing: Resizing, name: str) -> PerImage:
    """COCO's objects, and 800 x 1333 px resized as the training does, for a set `name` that is not here."""
    pixels = mean_area(np.array([COCO_SIDES]), resizing)
    source = f"assumed for {name}: the paper's 7.27 instances per image and sides of ratio 800 to 1333"
    return PerImage(COCO_INSTANCES / COCO_IMAGES, pixels, f"{source}, {_describe(resizing)}")


def training_phase(visits: float, mean: PerImage) -> Phase:
    """A training of `visits` images, every visit counted."""
    samples = Samples(visits, visits * mean.instances, visits * mean.pixels)
    return Phase(TRAINING, samples, f"{visits:,.0f} images; {mean.source}")


def mean_area(sizes: np.ndarray, resizing: Resizing) -> float:
    """Expected px^2 of an image of `sizes`, (N, 2) of height and width, as the network gets it."""
    if resizing.style == "square":
        return float(resizing.sides[0] ** 2)
    shapes, counts = np.unique(sizes, axis=0, return_counts=True)
    areas = [resized(shapes, side, resizing.longest).prod(axis=1) for side in resizing.draws]
    return float(np.average(np.mean(areas, axis=0), weights=counts))


def resized(sizes: np.ndarray, short_side: int, longest: int) -> np.ndarray:
    """Height and width, (N, 2) in px, after the host's ResizeShortestEdge, to the same rounding."""
    if short_side == 0:
        return sizes
    # In the host's order of operations: another one rounds some sizes to the next pixel.
    scale = short_side / sizes.min(axis=1, keepdims=True)
    scaled = np.where(sizes == sizes.min(axis=1, keepdims=True), short_side, scale * sizes)
    long_side = scaled.max(axis=1, keepdims=True)
    scaled = np.where(long_side > longest, scaled * (longest / long_side), scaled)
    return np.floor(scaled + 0.5).astype(np.int64)


def _describe(resizing: Resizing) -> str:
    first, last = resizing.sides[0], resizing.sides[-1]
    if resizing.style == "square":
        return f"cropped or padded to {first} x {first} px, padding and cut-off objects counted"
    many = {"choice": f"one of {len(resizing.sides)} sides, {first} to {last}", "range": f"{first} to {last}"}
    short = f"{first}" if len(set(resizing.sides)) == 1 else many[resizing.style]
    return f"short side {short} px, long side at most {resizing.longest} px"
