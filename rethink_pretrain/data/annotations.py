"""Boxes and polygons of an image transformed at once, for the same bits as the host's one by one."""

from collections.abc import Callable
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

# Of the host: each point is moved by itself. Others, such as a crop, make new polygons.
_POINTWISE = (
    T.ResizeTransform,
    T.HFlipTransform,
    T.VFlipTransform,
    T.PadTransform,
    T.BlendTransform,
    T.NoOpTransform,
)
_BOX_MODES = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
_NUMBERS = {int, float}


def transform_annotations(
    annotations: list[dict[str, Any]], transforms: T.TransformList, image_size: tuple[int, int], masks: bool
) -> list[dict[str, Any]] | None:
    """New annotations as the host's `annotations_to_instances` takes them, boxes XYXY_ABS within the image.

    None where the host has to: for RLE, and boxes of other forms. `image_size` is height, width after the
    transforms; without `masks` segmentations are left out.
    """
    have_masks = [masks and "segmentation" in each for each in annotations]
    segmentations = [each["segmentation"] for each, has in zip(annotations, have_masks, strict=True) if has]
    if not all(map(_has_plain_box, annotations)) or not all(type(each) is list for each in segmentations):
        return None
    boxes = _transform_boxes(annotations, transforms, image_size)
    polygons = iter(_transform_polygons(segmentations, transforms))
    ret = []
    for annotation, box, has_mask in zip(annotations, boxes, have_masks, strict=True):
        ret.append({"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": annotation["category_id"]})
        if has_mask:
            ret[-1]["segmentation"] = next(polygons)
    return ret


def _has_plain_box(annotation: dict[str, Any]) -> bool:
    box = annotation["bbox"]
    known = type(box) is list and len(box) == 4 and annotation["bbox_mode"] in _BOX_MODES
    return known and _NUMBERS.issuperset(map(type, box))


def _transform_boxes(
    annotations: list[dict[str, Any]], transforms: T.TransformList, image_size: tuple[int, int]
) -> list[np.ndarray]:
    arrays = [_corners(each["bbox"], each["bbox_mode"]) for each in annotations]
    upper = list(image_size + image_size)[::-1]
    boxes = _together(arrays, lambda array: np.minimum(transforms.apply_box(array).clip(min=0), upper))
    return [box[0] for box in boxes]


def _corners(box: list[float], mode: BoxMode) -> np.ndarray:
    """x0, y0, x1, y1 in one row. The host adds in float32, unless all four numbers are whole."""
    ret = np.array([box])
    if mode == BoxMode.XYWH_ABS:
        kind = ret.dtype
        with np.errstate(over="ignore"):
            ret = ret.astype(np.float32) if kind == np.float64 else ret
        ret[:, 2:] += ret[:, :2]
        ret = ret.astype(kind, copy=False)
    return ret


def _transform_polygons(
    segmentations: list[list[Any]], transforms: T.TransformList
) -> list[list[np.ndarray]]:
    objects = [[np.array(polygon).reshape(-1, 2) for polygon in each] for each in segmentations]
    if all(type(each) in _POINTWISE for each in transforms.transforms):
        moved = iter(_together([polygon for each in objects for polygon in each], transforms.apply_coords))
        objects = [[next(moved) for _ in each] for each in objects]
    else:
        objects = [transforms.apply_polygons(each) for each in objects]
    return [[polygon.reshape(-1) for polygon in each] for each in objects]


def _together(arrays: list[np.ndarray], transform: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
    """`transform` of each array, called once per type: the host rounds what is given in whole numbers."""
    ret: list[Any] = [None] * len(arrays)
    for dtype in {array.dtype for array in arrays}:
        places = [place for place, array in enumerate(arrays) if array.dtype == dtype]
        rows = transform(np.concatenate([arrays[place] for place in places]))
        start = 0
        for place in places:
            end = start + len(arrays[place])
            ret[place], start = rows[start:end], end
    return ret
