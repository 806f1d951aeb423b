"""What the toy set knows besides boxes and masks: keypoints of objects, kinds of background."""

from collections.abc import Iterable

import numpy as np
import shapely

from .toy_render import BACKGROUNDS

# The extreme points of the full outline in the picture, and its centre of gravity: defined for every shape
# however it is turned, and left and right change places in a mirrored picture.
KEYPOINT_NAMES = ("top", "right", "bottom", "left", "centre")
KEYPOINT_FLIP_MAP = (("left", "right"),)
SKELETON = ((1, 3), (2, 4))  # COCO's, names counted from 1

# Of the semantic labels: 0 is any object, then the kinds of background (Panoptic FPN's "things" and stuff).
STUFF_NAMES = ("things", *BACKGROUNDS)

_ABSENT, _OCCLUDED, _VISIBLE = 0, 1, 2  # COCO's v


def keypoint_points(outline: np.ndarray) -> np.ndarray:
    """The points (5, 2) in px of an `outline` (P, 2), in the order of `KEYPOINT_NAMES`."""
    x, y = outline.T
    extremes = outline[[y.argmin(), x.argmax(), y.argmax(), x.argmin()]]
    return np.vstack([extremes, shapely.get_coordinates(shapely.centroid(shapely.Polygon(outline)))])


def keypoint_annotation(
    outline: np.ndarray, in_front: shapely.Geometry, frame: shapely.Geometry
) -> dict[str, list[int] | int]:
    """COCO's `keypoints` (x, y, v for each, x and y the pixel they lie in) and `num_keypoints` of one object.

    v is 2, 1 where `in_front` covers the point, and 0 with x = y = 0 outside `frame`, the picture.
    """
    width, height = frame.bounds[2:]
    keypoints = []
    for x, y in keypoint_points(outline):
        if not (0 <= x < width and 0 <= y < height):
            keypoints += [0, 0, _ABSENT]
            continue
        hidden = in_front.contains(shapely.Point(x, y))
        keypoints += [int(x), int(y), _OCCLUDED if hidden else _VISIBLE]
    return _with_count(keypoints)


def no_keypoints() -> dict[str, list[int] | int]:
    """Of a crowd."""
    return _with_count([0, 0, _ABSENT] * len(KEYPOINT_NAMES))


def _with_count(keypoints: list[int]) -> dict[str, list[int] | int]:
    return {"keypoints": keypoints, "num_keypoints": sum(v > _ABSENT for v in keypoints[2::3])}


def semantic_labels(
    height: int, width: int, background: str, drawn: Iterable[tuple[tuple[int, int, int, int], np.ndarray]]
) -> np.ndarray:
    """uint8 (H, W) of indices into `STUFF_NAMES`; `drawn` has window and coverage of every object in it."""
    labels = np.full((height, width), STUFF_NAMES.index(background), dtype=np.uint8)
    for (x0, y0, x1, y1), share in drawn:
        labels[y0:y1, x0:x1][share >= 0.5] = 0
    return labels
