"""What can be said of a COCO-format json without its images."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from ...progress import track
from ..confine import Confinement
from ..geometry import MAX_COORDINATE, box_problem, keypoints_problem, segmentation_problem
from ..quote import is_text
from .report import Report
from .values import (
    area_of,
    area_problem,
    count_is_wrong,
    has_keypoint_names,
    iscrowd_is_wrong,
    number_of_keypoints,
    size_of,
    whole,
)

_AREA_SLACK = 4  # px^2 that drawing a small mask adds or takes


_Sizes = dict[int, tuple[int, int] | None]  # image id -> width, height; None is not known


class _Listed(NamedTuple):
    """What annotations refer to."""

    sizes: _Sizes
    keypoints: dict[int, int | None]  # category id -> number of keypoints; None is any


def check_document(document: dict[str, Any], image_root: Path, report: Report) -> None:
    """Add to `report` what is wrong with the records of `document`, whose three lists are there."""
    categories, images, annotations = (
        list(_objects(document, key, report)) for key in ("categories", "images", "annotations")
    )
    for key, records in (("images", images), ("categories", categories)):
        if not records:
            report.add("nothing-listed", list=key)
    sizes = _check_images(images, Confinement(image_root), report)
    listed = _Listed(sizes, _check_categories(categories, report))
    used = _check_annotations(annotations, listed, report)
    for image in images:
        if whole(image.get("id")) not in used.images:
            report.add("image-without-objects", image_id=image.get("id"), file=image.get("file_name"))
    for category in categories:
        if whole(category.get("id")) not in used.categories:
            report.add("category-without-objects", category_id=category.get("id"), name=category.get("name"))


def _objects(document: dict, key: str, report: Report) -> Iterator[dict]:
    for index, record in enumerate(document[key]):
        if isinstance(record, dict):
            yield record
        else:
            report.add("record-form", list=key, index=index, value=record)


def _check_id(record: dict, key: str, report: Report, **example: Any) -> int | None:
    """The whole number of `record[key]`; None where there is none."""
    value = record.get(key)
    number = whole(value)
    if number is None:
        report.add("id-form", **example, **{key: value})
    elif type(value) is not int:
        report.add("id-type", **example, **{key: repr(value)})
    return number


def _check_categories(categories: list[dict], report: Report) -> dict[int, int | None]:
    keypoints: dict[int, int | None] = {}
    names: set[str] = set()
    for category in categories:
        number = _check_id(category, "id", report, list="categories")
        name = category.get("name")
        if number in keypoints:
            report.add("category-id-twice", category_id=number, name=name)
        elif number is not None:
            keypoints[number] = number_of_keypoints(category)
        if category.get("keypoints") is not None and not has_keypoint_names(category):
            report.add("keypoint-names-form", category_id=category.get("id"), value=category["keypoints"])
        if not is_text(name) or not name:
            report.add("category-name-form", category_id=category.get("id"), name=name)
        elif name in names:
            report.add("category-name-twice", category_id=category.get("id"), name=name)
        else:
            names.add(name)
    for before, after in pairwise(sorted(keypoints)):
        if after - before > 1:
            gap = f"{before + 1} to {after - 1}" if after - before > 2 else before + 1
            report.add("category-id-gap", after - before - 1, ids=gap)
    return keypoints


def _check_images(images: list[dict], folder: Confinement, report: Report) -> _Sizes:
    sizes: _Sizes = {}
    names: set[str] = set()
    for image in images:
        number = _check_id(image, "id", report, list="images")
        example = {"image_id": image.get("id"), "file": image.get("file_name")}
        if number is not None and number < 0:
            report.add("image-id-negative", **example)
        size = size_of(image)
        if size is None:
            report.add("image-size-form", **example, width=image.get("width"), height=image.get("height"))
        if number in sizes:
            report.add("image-id-twice", **example)
        elif number is not None:
            sizes[number] = size
        name = image.get("file_name")
        kind = name_problem(name, folder)
        if kind:
            report.add(kind, **example)
        elif name in names:
            report.add("file-name-twice", **example)
        else:
            names.add(name)
    return sizes


def name_problem(name: Any, folder: Confinement) -> str:
    """The kind of what is wrong with a file name; "" for nothing."""
    if not isinstance(name, str) or not name:
        return "file-name-missing"
    try:
        folder.check(name)
    except UserError:
        return "file-name-unsafe"
    return ""


class _Used(NamedTuple):
    images: set[int]
    categories: set[int]


def _check_annotations(annotations: list[dict], listed: _Listed, report: Report) -> _Used:
    used = _Used(set(), set())
    numbers: set[int] = set()
    boxes: set[tuple] = set()
    has = {key: sum(bool(a.get(key)) for a in annotations) for key in ("segmentation", "keypoints")}
    mixed = [key for key, count in has.items() if count]
    for annotation in track(annotations, "Annotations"):
        example = {"annotation_id": annotation.get("id"), "image_id": annotation.get("image_id")}
        _check_number(annotation, numbers, report)
        image_id = _check_id(annotation, "image_id", report, annotation_id=annotation.get("id"))
        category_id = _check_id(annotation, "category_id", report, annotation_id=annotation.get("id"))
        used.images.add(image_id)
        used.categories.add(category_id)
        if category_id is not None and category_id not in listed.keypoints:
            report.add("category-unknown", **example, category_id=category_id)
        if image_id is not None and image_id not in listed.sizes:
            report.add("image-unlisted", **example)
        num_keypoints = listed.keypoints.get(category_id)
        sound = _check_geometry(annotation, listed.sizes.get(image_id), num_keypoints, report, example)
        _check_extras(annotation, sound, report, example)
        for key in mixed:
            if not annotation.get(key):
                report.add(f"{key}-missing", **example)
        if sound:
            box = (image_id, category_id, *annotation["bbox"])
            if box in boxes:
                report.add("annotation-twice", **example, bbox=annotation["bbox"])
            boxes.add(box)
    return used


def _check_number(annotation: dict, numbers: set[int], report: Report) -> None:
    number = _check_id(annotation, "id", report, list="annotations", image_id=annotation.get("image_id"))
    if number is None:
        return
    if number < 1:
        report.add("annotation-id-below-1", annotation_id=number, image_id=annotation.get("image_id"))
    if number in numbers:
        report.add("annotation-id-twice", annotation_id=number, image_id=annotation.get("image_id"))
    numbers.add(number)


def _check_geometry(
    annotation: dict, size: tuple[int, int] | None, num_keypoints: int | None, report: Report, example: dict
) -> bool:
    """Whether box and segmentation can be computed with, and mean something."""
    kinds = geometry_problems(annotation, size, num_keypoints)
    for key, kind in kinds.items():
        if kind:
            report.add(kind, **example, **{key: annotation.get(key)})
    return kinds["bbox"] in ("", "box-beyond-image") and not kinds["segmentation"]


def geometry_problems(
    annotation: dict, size: tuple[int, int] | None, num_keypoints: int | None
) -> dict[str, str]:
    """Field -> the kind of what is wrong with it, "" for nothing. `size` None: of the image is not known."""
    segmentation = annotation.get("segmentation")
    width, height = size or _size_of_mask(segmentation)
    box = annotation.get("bbox")
    return {
        "bbox": "box-missing" if box is None or box == [] else box_problem(box, width, height),
        "segmentation": segmentation_problem(segmentation, width, height),
        "keypoints": keypoints_problem(annotation.get("keypoints"), num_keypoints),
    }


def _size_of_mask(segmentation: Any) -> tuple[int, int]:
    """The one with which an RLE mask can be judged by itself."""
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    if isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size):
        return size[1], size[0]
    return int(MAX_COORDINATE), int(MAX_COORDINATE)


def _check_extras(annotation: dict, sound: bool, report: Report, example: dict) -> None:
    """Area, iscrowd, ignore, num_keypoints."""
    area, kind = annotation.get("area"), area_problem(annotation)
    if kind:
        report.add(kind, **example, **({} if kind == "area-missing" else {"area": area}))
    elif sound and area_is_wrong(annotation):
        report.add("area-wrong", **example, area=area, expected=f"{area_of(annotation):g}")
    if iscrowd_is_wrong(annotation):
        report.add("iscrowd-form", **example, iscrowd=annotation["iscrowd"])
    if annotation.get("ignore", 0) != 0:
        report.add("ignore-set", **example, ignore=annotation["ignore"])
    if count_is_wrong(annotation):
        report.add("num-keypoints-form", **example, num_keypoints=annotation["num_keypoints"])


def area_is_wrong(annotation: dict) -> bool:
    """Whether "area" is far from the mask. Without a mask it may be less than the box, but not more."""
    area, expected = annotation["area"], area_of(annotation)
    if annotation.get("segmentation"):
        return abs(area - expected) > expected / 2 + _AREA_SLACK
    return area <= 0 or area > 1.5 * expected + _AREA_SLACK
