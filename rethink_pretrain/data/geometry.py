"""Whether boxes, polygons, RLE masks and keypoints of COCO's format can be handed to compiled code.

Plain Python and NumPy, which no value can crash: it answers before pycocotools sees the geometry. A problem
is a kind, a word of `KINDS`; "" is none. Lengths are in px, boxes [x, y, width, height].
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from operator import mul
from typing import Any

import numpy as np

# Beyond any image that fits in memory.
MAX_COORDINATE = 1e5
# pycocotools takes five steps per px of a polygon's outline, counts them in a 32-bit int and keeps 16 bytes
# of each: 2e8 px overflow, and crash. The host hands it polygons enlarged, by up to 280 where a box is tiny
# (a mask of 28 px for 0.1 px), so the limits go with the image. In units of its width + height, which become
# some 2,000 px by resizing, an outline of 50 is 1.5e8 steps at worst; objects have outlines of about 1.
_MAX_REACH, _MAX_OUTLINE = 10, 50
# Runs of a mask of so many px fit in six characters of COCO's compressed RLE, and in a 32-bit int.
MAX_PIXELS = 2**29

# Kind -> what it means. The first group crashes compiled code, stops training or evaluation, or gives NaN.
_GRAVE_KINDS = {
    "box-form": "the box is not four numbers",
    "box-not-finite": "the box holds NaN or infinity",
    "box-enormous": f"the box has a number beyond {MAX_COORDINATE:.0f} px",
    "segmentation-form": "the segmentation is neither polygons nor an RLE mask",
    "polygon-form": "a polygon is not a list of x, y pairs of numbers",
    "polygon-not-finite": "a polygon holds NaN or infinity",
    "polygon-enormous": "a polygon is far larger than the image, so that COCO's code could crash",
    "polygon-as-box": "the first polygon has fewer than 3 points: COCO's code takes it for a box, or stops",
    "rle-form": 'the RLE mask has no "size" of two whole numbers or no "counts"',
    "rle-size": "the RLE mask has another size than the image",
    "rle-counts": "the counts of the RLE mask are malformed or do not add up to the image",
    "keypoints-form": "the keypoints are not triples x, y, visibility of numbers, as many as elsewhere",
    "keypoints-not-finite": "the keypoints hold NaN or infinity",
    "keypoints-enormous": f"a keypoint has a number beyond {MAX_COORDINATE:.0f} px",
}
KINDS = {
    **_GRAVE_KINDS,
    "box-empty": "the box has no area",
    "box-outside": "the box lies outside the image",
    "box-beyond-image": "the box sticks out of the image by more than 1 px",
    "polygon-few-points": "a polygon has fewer than 3 points, and is left out",
    "polygon-degenerate": "a polygon has no area",
    "polygon-outside": "a polygon lies outside the image",
}
GRAVE = frozenset(_GRAVE_KINDS)  # what training and evaluation must never see; the rest are oddities

_NUMBERS = {int, float}  # what JSON has; bool is no number
_SLACK = 1.0  # px that rounding may put a box beyond the image
_NO_AREA = 1e-6  # px^2 that rounding leaves of a polygon without area
_MAX_CHARACTERS = 6  # of one run in compressed RLE


def box_problem(box: Any, width: int, height: int) -> str:
    """The kind of what is wrong with `box` in an image of `width` x `height` px; "" for nothing."""
    if type(box) is not list or len(box) != 4 or not _NUMBERS.issuperset(map(type, box)):
        return "box-form"
    problem = _range_problem(box)
    if problem:
        return f"box-{problem}"
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return "box-empty"
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        return "box-outside"
    if min(x, y) < -_SLACK or x + w > width + _SLACK or y + h > height + _SLACK:
        return "box-beyond-image"
    return ""


def segmentation_problem(segmentation: Any, width: int, height: int) -> str:
    """The kind of what is wrong with a list of polygons or an RLE mask; "" for nothing and for None or [].

    A grave kind comes before an oddity of an earlier polygon.
    """
    problem = _grave_segmentation_problem(segmentation, width, height)
    if problem or not isinstance(segmentation, list):
        return problem
    return next(filter(None, (_polygon_oddity(polygon, width, height) for polygon in segmentation)), "")


def keypoints_problem(keypoints: Any, num_keypoints: int | None = None) -> str:
    """The kind of what is wrong with [x, y, visibility, ...] of `num_keypoints` points (None: any)."""
    if keypoints is None or keypoints == []:
        return ""
    if type(keypoints) is not list or not _NUMBERS.issuperset(map(type, keypoints)):
        return "keypoints-form"
    if len(keypoints) % 3 or num_keypoints not in (None, len(keypoints) // 3):
        return "keypoints-form"
    problem = _range_problem(keypoints)
    return problem and f"keypoints-{problem}"


def grave_problems(annotation: dict, width: int, height: int) -> Iterator[str]:
    """The kinds of `GRAVE` in the box of `annotation`, and in its segmentation and keypoints if it has them.

    In half the time of asking for everything, which counts where there are 860,000 of them.
    """
    problem = box_problem(annotation.get("bbox"), width, height)
    if problem in GRAVE:
        yield problem
    yield from filter(None, [_grave_segmentation_problem(annotation.get("segmentation"), width, height)])
    yield from filter(None, [keypoints_problem(annotation.get("keypoints"))])


def _range_problem(numbers: list) -> str:
    """ "not-finite" or "enormous", or "" where all `numbers` can be used. Not empty."""
    if max(numbers) <= MAX_COORDINATE and min(numbers) >= -MAX_COORDINATE:
        total = sum(numbers)  # a minimum may overlook a NaN, a sum does not
        if total == total:
            return ""
    return "enormous" if all(v == v and abs(v) != math.inf for v in numbers) else "not-finite"


def _grave_segmentation_problem(segmentation: Any, width: int, height: int) -> str:
    if segmentation is None or segmentation == []:
        return ""
    if isinstance(segmentation, dict):
        return _rle_problem(segmentation, width, height)
    if not isinstance(segmentation, list):
        return "segmentation-form"
    for polygon in segmentation:
        problem = _grave_polygon_problem(polygon, width + height)
        if problem:
            return problem
    return "polygon-as-box" if len(segmentation[0]) < 6 else ""


def _grave_polygon_problem(polygon: Any, unit: int) -> str:
    # Once per polygon of the set: plain lists are faster than arrays here.
    if type(polygon) is not list or len(polygon) % 2 or not _NUMBERS.issuperset(map(type, polygon)):
        return "polygon-form"
    if not polygon:
        return ""
    problem = _range_problem(polygon)
    if problem:
        return f"polygon-{problem}"
    low, high = min(polygon), max(polygon)
    if low < -_MAX_REACH * unit or high > _MAX_REACH * unit:
        return "polygon-enormous"
    points = len(polygon) // 2
    if points * (high - low) > _MAX_OUTLINE * unit and _outline(polygon) > _MAX_OUTLINE * unit:
        return "polygon-enormous"
    return ""


def _polygon_oddity(polygon: list[float], width: int, height: int) -> str:
    xs, ys = polygon[0::2], polygon[1::2]
    if len(xs) < 3:
        return "polygon-few-points"
    if polygon_area(polygon) < _NO_AREA:
        return "polygon-degenerate"
    if min(xs) >= width or min(ys) >= height or max(xs) <= 0 or max(ys) <= 0:
        return "polygon-outside"
    return ""


def _outline(polygon: list[float]) -> float:
    """Length of the closed outline, the longer side of each edge counted: the steps of COCO's code."""
    points = list(zip(polygon[0::2], polygon[1::2], strict=True))
    return sum(max(abs(x - x0), abs(y - y0)) for (x, y), (x0, y0) in pairwise([points[-1], *points]))


def polygon_area(polygon: list[float]) -> float:
    """In px^2, of [x, y, x, y, ...]; parts that the outline runs around twice, or backwards, count so."""
    xs, ys = polygon[0::2], polygon[1::2]
    return abs(sum(map(mul, xs, ys[1:] + ys[:1])) - sum(map(mul, xs[1:] + xs[:1], ys))) / 2


def _rle_problem(rle: dict, width: int, height: int) -> str:
    size, counts = rle.get("size"), rle.get("counts")
    if type(size) is not list or [type(side) for side in size] != [int, int]:
        return "rle-form"
    if type(counts) not in (list, str):
        return "rle-form"
    if size != [height, width]:
        return "rle-size"
    runs = counts if type(counts) is list else decode_runs(counts)
    if not runs or not all(type(run) is int for run in runs):
        return "rle-counts"
    return "" if min(runs) >= 0 and sum(runs) == width * height else "rle-counts"


def decode_runs(counts: str) -> list[int]:
    """Lengths of the runs, background first, of COCO's compressed RLE; [] where it is malformed.

    A run is up to six characters of 5 bits each, from 48 on, the lowest bits first; 32 marks that more
    follow, and 16 in the last one a negative number. From the fourth on, runs are differences to the one
    before last.
    """
    try:
        values = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        return []
    if not len(values) or values.min() < 0 or values.max() > 63 or values[-1] & 32:
        return []
    ends = np.flatnonzero(values & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS:
        return []
    place = np.arange(len(values)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((values & 31) << (5 * place), starts)
    runs -= ((values[ends] & 16) != 0).astype(np.int64) << (5 * lengths)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs.tolist()
