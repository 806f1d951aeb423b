"""What of a COCO document training and evaluation must never see, found before any compiled code sees it."""

import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..confine import Confinement
from ..geometry import KINDS, MAX_COORDINATE, MAX_PIXELS, grave_problems, keypoints_problem
from ..quote import is_text, quoted

_MAX_AREA = MAX_COORDINATE**2

Sizes = dict[int, tuple[int, int]]  # image id -> width, height


def check_document(document: dict, path: Path, image_root: str | Path) -> None:
    """Raises `UserError` that tells the first problem of `document` (of `path`), and how many there are."""
    found = problems(document, image_root, unique_annotations="minival" not in str(path))
    first = next(found, None)
    if first is None:
        return
    more = sum(1 for _ in found)
    also = f" (and {more} more problem{'s' if more > 1 else ''})" if more else ""
    raise UserError(f"{path}: {first}{also}. Mend it: {how_to_mend(path, image_root)}")


def how_to_mend(path: Path, image_root: str | Path) -> str:
    """The command that writes a repaired copy of `path`."""
    where = f"--json {shlex.quote(str(path))} --images {shlex.quote(str(image_root))}"
    return f"python tools/validate_dataset.py {where} --fix repaired.json"


def problems(document: dict, image_root: str | Path, *, unique_annotations: bool = True) -> Iterator[str]:
    """Everything grave in the three lists of `document`, in words.

    `unique_annotations` False accepts annotation ids that stand twice, as in COCO's minival2014.
    """
    yield from _problems_of_categories(document["categories"])
    sizes: Sizes = {}
    yield from _problems_of_images(document["images"], image_root, sizes)
    categories = {c.get("id") for c in document["categories"] if is_id(c.get("id"))}
    for annotation in document["annotations"]:
        for problem in _problems_of_annotation(annotation, sizes, categories):
            ids = f"annotation {quoted(annotation.get('id'))} of image {quoted(annotation.get('image_id'))}"
            yield f"{ids}: {problem}"
    if unique_annotations:
        yield from _twins(document["annotations"], "annotation")


def is_id(value: Any) -> bool:
    """Whether `value` is a whole number of 64 bits."""
    return type(value) is int and -(2**63) <= value < 2**63


def is_size(width: Any, height: Any) -> bool:
    """Whether an image can have so many px."""
    return (
        type(width) is type(height) is int
        and 0 < width <= MAX_COORDINATE
        and 0 < height <= MAX_COORDINATE
        and width * height <= MAX_PIXELS
    )


def _problems_of_categories(categories: list[dict]) -> Iterator[str]:
    if not categories:
        yield "it lists no categories"
    for category in categories:
        which = f"category {quoted(category.get('id'))}"
        if not is_id(category.get("id")):
            yield f"{which}: the id is not a whole number"
        if not is_text(category.get("name")):
            yield f"{which}: the name {quoted(category.get('name'))} is not a text"
        keypoints = category.get("keypoints")
        if keypoints is not None and not (isinstance(keypoints, list) and all(map(is_text, keypoints))):
            yield f"{which}: its keypoints are not a list of names"
    yield from _twins(categories, "category")


def _problems_of_images(images: list[dict], image_root: str | Path, sizes: Sizes) -> Iterator[str]:
    """Fills `sizes` with those that can be used."""
    if not images:
        yield "it lists no images"
    folder = Confinement(image_root)
    for image in images:
        number, width, height = image.get("id"), image.get("width"), image.get("height")
        if not is_id(number):
            yield f"image {quoted(number)}: the id is not a whole number"
        elif number < 0:
            yield f"image {quoted(number)}: the id is negative, which the compiled evaluation cannot take"
        if not is_size(width, height):
            yield f"image {quoted(number)}: {quoted(width)} x {quoted(height)} is no width x height in px"
        elif is_id(number):
            sizes[number] = width, height
        try:
            folder.check(image.get("file_name"))
        except UserError as error:
            yield f"image {quoted(number)}: {error}"
    yield from _twins(images, "image")


def _problems_of_annotation(annotation: dict, sizes: Sizes, categories: set[int]) -> Iterator[str]:
    for key in ("id", "image_id", "category_id"):
        if not is_id(annotation.get(key)):
            yield f"the {key} {quoted(annotation.get(key))} is not a whole number"
            return
    if annotation["category_id"] not in categories:
        yield f"category_id {annotation['category_id']} is not among the categories"
    yield from _problems_of_fields(annotation)
    size = sizes.get(annotation["image_id"])
    if size is None:  # of an unlisted image: nobody looks at its shapes
        kinds = [keypoints_problem(annotation.get("keypoints"))]
    else:
        kinds = grave_problems(annotation, *size)
    yield from (KINDS[kind] for kind in kinds if kind)


def _problems_of_fields(annotation: dict) -> Iterator[str]:
    if annotation["id"] < 0:
        yield "COCO's evaluation takes a negative id for no object"
    if annotation.get("iscrowd", 0) not in (0, 1):
        yield f"iscrowd {quoted(annotation['iscrowd'])} is neither 0 nor 1"
    if annotation.get("ignore", 0) != 0:
        yield '"ignore" is not supported: make it iscrowd 1'
    area = annotation.get("area", 0)
    if type(area) not in (int, float) or not abs(area) <= _MAX_AREA:
        yield f"the area {quoted(area)} is not a number of px^2"
    visible = annotation.get("num_keypoints", 0)
    if visible is not None and not is_id(visible):
        yield f"num_keypoints {quoted(visible)} is not a whole number"


def _twins(records: list[dict], kind: str) -> Iterator[str]:
    ids = [record["id"] for record in records if is_id(record.get("id"))]
    if len(set(ids)) < len(ids):
        for number, count in Counter(ids).items():
            if count > 1:
                yield f"{kind} id {number} is used {count} times"
