"""What numbers and sizes of a json are worth, asked by the checks and by the repair alike."""

import re
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import read_json
from ..datasets.coco_checks import is_id, is_size
from ..geometry import MAX_COORDINATE, decode_runs, keypoints_problem, polygon_area
from ..quote import is_text

LISTS = ("images", "annotations", "categories")


def read_document(path: Path) -> dict[str, Any]:
    """The content of `path`. Raises `UserError` unless it is an object with the three lists of COCO."""
    document = read_json(path)
    missing = [key for key in LISTS if not isinstance(document, dict) or type(document.get(key)) is not list]
    if missing:
        raise UserError(f"{path} is not in COCO's format: it has no list of {', '.join(missing)}.")
    return document


def whole(value: Any) -> int | None:
    """The whole number that `value` is, also as "7" or 7.0; None for anything else."""
    if type(value) is str and re.fullmatch(r"\s*-?[0-9]{1,19}\s*", value):
        value = int(value)
    elif type(value) is float:
        value = int(value) if value.is_integer() else None
    return value if is_id(value) else None


def size_of(image: dict) -> tuple[int, int] | None:
    """Width and height in px; None where the record does not give them as whole numbers that can be."""
    size = image.get("width"), image.get("height")
    return size if is_size(*size) else None


def has_keypoint_names(category: dict) -> bool:
    """Whether "keypoints" of `category` is a list of texts."""
    names = category.get("keypoints")
    return isinstance(names, list) and all(map(is_text, names))


def number_of_keypoints(category: dict) -> int | None:
    """How many `category` names; None where it names none."""
    return len(category["keypoints"]) or None if has_keypoint_names(category) else None


def area_of(annotation: dict) -> float:
    """Of the mask where there is one, else of the box, in px^2. Their geometry has to be sound."""
    segmentation = annotation.get("segmentation")
    if not segmentation:
        return annotation["bbox"][2] * annotation["bbox"][3]
    if isinstance(segmentation, list):
        return sum(map(polygon_area, segmentation))
    runs = segmentation["counts"]
    return sum((decode_runs(runs) if isinstance(runs, str) else runs)[1::2])


def area_problem(annotation: dict) -> str:
    """The kind of what is wrong with "area" by itself; "" for nothing."""
    if "area" not in annotation:
        return "area-missing"
    area = annotation["area"]
    return "" if type(area) in (int, float) and abs(area) <= MAX_COORDINATE**2 else "area-form"


def iscrowd_is_wrong(annotation: dict) -> bool:
    """Missing is 0."""
    crowd = annotation.get("iscrowd", 0)
    return isinstance(crowd, bool) or crowd not in (0, 1)


def count_is_wrong(annotation: dict) -> bool:
    """Whether "num_keypoints" is given as something else than a whole number."""
    number = annotation.get("num_keypoints")
    return number is not None and not is_id(number)


def count_visible(annotation: dict) -> int:
    """Of the keypoints, those that are labelled."""
    keypoints = annotation.get("keypoints") or []
    return 0 if keypoints_problem(keypoints) else sum(v > 0 for v in keypoints[2::3])
