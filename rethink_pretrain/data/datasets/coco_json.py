"""Reading COCO-format json files as people write them: small differences are mended, the rest is refused.

What is mended: ids as "7" or 7.0; annotations without id, iscrowd, area, box or num_keypoints; annotation ids
that are below 1 or stand twice; "ignore", which becomes iscrowd; images without size; a polygon that is in no
list. What is dropped, and counted: annotations of images that the file does not list, and boxes without area.
The file itself is never touched.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import UserError
from ...files import read_json
from ..confine import confined
from ..geometry import GRAVE, MAX_COORDINATE, keypoints_problem, polygon_area, segmentation_problem
from ..quote import quoted
from .coco_checks import check_document

_LISTS = ("images", "annotations", "categories")
_MAX_DIGITS = 20  # of an id that is written as text
# What a file may be; others of PIL's readers start programs.
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
_ORIENTATION, _TURNED = 0x0112, range(5, 9)  # of EXIF: the values that swap width and height


def read_coco_json(path: Path, image_root: Path) -> tuple[dict[str, Any], Counter]:
    """The mended document of `path`, and how often which mend was needed.

    `image_root` is asked for the size of images whose record lacks it. Raises `UserError` that names the file
    and the first thing that cannot be mended.
    """
    document = read_lists(path)
    if not document["categories"] or not document["images"]:
        raise UserError(f"{path} lists no images or no categories: there is nothing to learn from.")
    mends: Counter = Counter()
    names = _mend_categories(document, path, mends)
    image_ids = _mend_images(document, path, image_root, mends)
    _mend_annotations(document, path, image_ids, names, mends)
    check_document(document, path, image_root)
    return document, mends


def read_lists(path: Path, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """The document of `path`. Raises `UserError` unless it holds the three lists of COCO's format.

    `optional` names lists that may be missing, and are empty then.
    """
    document = read_json(path)
    if isinstance(document, dict):
        document = {**{key: [] for key in optional}, **document}
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in _LISTS):
        raise UserError(f"{path} is not in COCO's format: it needs the lists {', '.join(_LISTS)}.")
    for key in _LISTS:
        if not all(isinstance(record, dict) for record in document[key]):
            raise UserError(f"{path} is not in COCO's format: {key} has to be a list of objects {{...}}.")
    return document


def _mend_categories(document: dict, path: Path, mends: Counter) -> dict[int, str]:
    for category in document["categories"]:
        _mend_id(category, "id", "category", path, mends)
        if not isinstance(category.get("name"), str):
            raise UserError(f"{path}: category {quoted(category['id'])} has no name.")
    names = {category["id"]: category["name"] for category in document["categories"]}
    _refuse_twins(document["categories"], "category", path)
    if len(set(names.values())) < len(names):
        twice = next(name for name, count in Counter(names.values()).items() if count > 1)
        raise UserError(f"{path}: two categories are called {quoted(twice)}. Merge or rename them.")
    return names


def _mend_images(document: dict, path: Path, image_root: Path, mends: Counter) -> set[int]:
    for image in document["images"]:
        _mend_id(image, "id", "image", path, mends)
        if not isinstance(image.get("file_name"), str):
            raise UserError(f"{path}: image {quoted(image['id'])} has no file_name.")
        size = [image.get("width"), image.get("height")]
        if not all(type(side) in (int, float) and side > 0 and side % 1 == 0 for side in size):
            size = _size_of_file(image["file_name"], image_root, path)
            mends["image sizes read from the files"] += 1
        elif float in map(type, size):
            mends["image sizes made whole numbers"] += 1
        image["width"], image["height"] = map(int, size)
    _refuse_twins(document["images"], "image", path)
    return {image["id"] for image in document["images"]}


def _mend_annotations(
    document: dict, path: Path, image_ids: set[int], names: dict[int, str], mends: Counter
) -> None:
    kept = []
    for annotation in document["annotations"]:
        for key in ("image_id", "category_id"):
            _mend_id(annotation, key, "annotation", path, mends)
        if annotation["category_id"] not in names:
            raise UserError(
                f"{path}: an annotation of image {quoted(annotation['image_id'])} has category_id "
                f"{quoted(annotation['category_id'])}, which is none of: {_list(names)}."
            )
        if annotation["image_id"] not in image_ids:
            mends["annotations of unlisted images dropped"] += 1
            continue
        _mend_form(annotation, mends)
        if not _has_box(annotation, path, mends):
            mends["annotations without a box of positive size dropped"] += 1
            continue
        _fill(annotation, "iscrowd", lambda a: 0, mends)
        _fill(annotation, "area", _area, mends)
        if annotation.get("keypoints"):
            _fill(annotation, "num_keypoints", _count_visible, mends)
        kept.append(annotation)
    for annotation in kept:
        if "id" in annotation:
            _mend_id(annotation, "id", "annotation", path, mends)
    # COCO's evaluation takes the id 0 of a matched object for "no match", and so it does with negative ones.
    if len({annotation["id"] for annotation in kept if annotation.get("id", 0) > 0}) < len(kept):
        mends["annotation ids numbered anew"] += len(kept)
        for number, annotation in enumerate(kept, 1):
            annotation["id"] = number
    document["annotations"] = kept


def _mend_id(record: dict, key: str, kind: str, path: Path, mends: Counter) -> None:
    value = record.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        if kind == "image" and value < 0:  # faster-coco-eval takes none
            raise UserError(f"{path}: the {key} {value} of an image is negative. Number them from 1.")
        return
    whole = value.is_integer() if isinstance(value, float) else _is_decimal(value)
    if not whole:
        article = "a" if kind == "category" else "an"
        raise UserError(
            f"{path}: the {key} {quoted(value)} of {article} {kind} is not a whole number. "
            "Number them from 1."
        )
    record[key] = int(value)
    mends[f"{kind} ids made whole numbers"] += 1


def _is_decimal(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_DIGITS and value.strip().isdecimal()


def _list(names: dict[int, str]) -> str:
    """ "1 cat, 2 dog" for a message."""
    first = [f"{i} {name if name.isprintable() else quoted(name)}"[:40] for i, name in [*names.items()][:10]]
    return ", ".join(first + ["..."] * (len(names) > len(first)))


def _refuse_twins(records: list[dict], kind: str, path: Path) -> None:
    twins = [number for number, count in Counter(record["id"] for record in records).items() if count > 1]
    if twins:
        raise UserError(f"{path}: {len(twins)} {kind} ids are used twice, the first is {twins[0]}.")


def _fill(annotation: dict, key: str, value: Callable[[dict], Any], mends: Counter) -> None:
    if annotation.get(key) is None:
        annotation[key] = value(annotation)
        mends[f"{key} of annotations filled in"] += 1


def _mend_form(annotation: dict, mends: Counter) -> None:
    """What the host would stop at without a word of help."""
    if annotation.pop("ignore", 0):
        annotation["iscrowd"] = 1
        mends["annotations to ignore made crowds"] += 1
    if isinstance(annotation.get("iscrowd"), bool):
        annotation["iscrowd"] = int(annotation["iscrowd"])
        mends["iscrowd made 0 or 1"] += 1
    polygon = annotation.get("segmentation")
    if isinstance(polygon, list) and polygon and all(isinstance(v, (int, float)) for v in polygon):
        annotation["segmentation"] = [polygon]
        mends["polygons put into lists"] += 1


def _area(annotation: dict) -> float:
    """Of the polygons where there are some, else of the box, in px^2."""
    polygons = annotation.get("segmentation")
    if not isinstance(polygons, list) or not polygons or _are_grave(polygons):
        return annotation["bbox"][2] * annotation["bbox"][3]
    return sum(map(polygon_area, polygons))


def _are_grave(polygons: list) -> bool:
    return segmentation_problem(polygons, MAX_COORDINATE, MAX_COORDINATE) in GRAVE


def _count_visible(annotation: dict) -> int:
    keypoints = annotation["keypoints"]
    return 0 if keypoints_problem(keypoints) else sum(v > 0 for v in keypoints[2::3])


def _has_box(annotation: dict, path: Path, mends: Counter) -> bool:
    """Whether there is a box of positive size, taken from the polygons where it is missing."""
    if not annotation.get("bbox"):
        polygons = annotation.get("segmentation")
        if not isinstance(polygons, list) or not polygons:
            return False
        points = [_numbers(polygon, path) for polygon in polygons]
        xs, ys = ([v for p in points for v in p[start::2]] for start in (0, 1))
        if not xs:
            return False
        annotation["bbox"] = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        mends["boxes taken from polygons"] += 1
    box = _numbers(annotation["bbox"], path)
    if len(box) != 4:
        raise UserError(f"{path}: bbox {quoted(annotation['bbox'])} is not [x, y, width, height].")
    return all(abs(number) < float("inf") for number in box) and box[2] > 0 and box[3] > 0


def _numbers(values: Any, path: Path) -> list[float]:
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise UserError(f"{path}: a bbox or polygon is {quoted(values)} and not a list of numbers.")
    return values


def _size_of_file(name: str, image_root: Path, path: Path) -> tuple[int, int]:
    """Width and height as training sees them."""
    try:
        file = confined(image_root, name)
    except UserError as error:
        raise UserError(f"{path}: {error}.") from None
    try:
        if not file.is_file():  # opening a pipe would wait for ever
            raise FileNotFoundError
        with Image.open(file, formats=_FORMATS) as image:
            turned = image.getexif().get(_ORIENTATION) in _TURNED
            return image.size[::-1] if turned else image.size
    except Exception:  # a broken file leads the decoders into errors of every kind
        raise UserError(
            f"{path} gives no width and height for {quoted(name)}, and that file cannot be read."
        ) from None
