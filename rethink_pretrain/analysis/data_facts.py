"""What a data set in COCO's format holds, counted without looking at its images."""

from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError, one_line
from ..files import read_json

_LISTS = ("images", "annotations", "categories")


class CategoryFacts(NamedTuple):
    """Images that show a category, and its objects in them, crowds left out."""

    name: str
    images: int
    objects: int


class DataFacts(NamedTuple):
    """Counts of one set. Crowds are no objects; training leaves images without objects out.

    sizes: (width, height) of the images with objects, in px, where the file tells them.
    masks: whether every object has a segmentation.
    """

    images: int
    images_with_objects: int
    objects: int
    crowds: int
    categories: list[CategoryFacts]
    sizes: list[tuple[float, float]]
    masks: bool

    @property
    def objects_per_image(self) -> float:
        """Of the images that training uses."""
        return self.objects / self.images_with_objects

    @property
    def used_categories(self) -> int:
        """Those that have an object."""
        return sum(category.objects > 0 for category in self.categories)

    def rare_categories(self, below: int = 10) -> list[CategoryFacts]:
        """Those with objects, but in fewer than `below` images; the rarest first."""
        return sorted((c for c in self.categories if 0 < c.images < below), key=lambda c: (c.images, c.name))

    def resized(self, short_side: int, long_side: int) -> tuple[int, int] | None:
        """Mean (height, width) in px of images resized to `short_side`, at most `long_side` long."""
        if not self.sizes:
            return None
        scales = [min(short_side / min(size), long_side / max(size)) for size in self.sizes]
        width, height = (
            sum(size[axis] * scale for size, scale in zip(self.sizes, scales, strict=True)) / len(scales)
            for axis in (0, 1)
        )
        return round(height), round(width)


def read_facts(path: str | Path) -> DataFacts:
    """Raises `UserError` for what cannot be read, is not in COCO's format, or has no objects."""
    return count_facts(read_document(path), str(path))


def read_document(path: str | Path) -> dict[str, Any]:
    """The three lists of a file in COCO's format, and what else it holds. Raises `UserError`."""
    document = read_json(Path(path))
    if not isinstance(document, dict) or not all(isinstance(document.get(key), list) for key in _LISTS):
        raise UserError(f"{path} is not in COCO's format: it needs the lists {', '.join(_LISTS)}.")
    if not all(isinstance(record, dict) for key in _LISTS for record in document[key]):
        raise UserError(f"{path} is not in COCO's format: its lists have to hold objects {{...}}.")
    return document


def count_facts(document: dict[str, Any], where: str) -> DataFacts:
    """Of a document with COCO's lists; `where` it comes from stands in errors. Raises `UserError`.

    Annotations of images that are not listed are left out, as training does.
    """
    sizes = {_key(image, "id", "image", where): _size(image) for image in document["images"]}
    names = {_key(c, "id", "category", where): str(c.get("name", c["id"])) for c in document["categories"]}
    shown: set[tuple[Hashable, Hashable]] = set()
    objects: Counter = Counter()
    crowds, masks = 0, True
    for annotation in document["annotations"]:
        image = _key(annotation, "image_id", "annotation", where)
        category = _key(annotation, "category_id", "annotation", where)
        if category not in names:
            unknown = one_line(repr(annotation["category_id"]))[:40]
            raise UserError(f"{where}: an annotation has category_id {unknown}, which no category has.")
        if image not in sizes:
            continue
        if annotation.get("iscrowd") or annotation.get("ignore"):
            crowds += 1
            continue
        shown.add((image, category))
        objects[category] += 1
        masks = masks and bool(annotation.get("segmentation"))
    if not objects:
        raise UserError(f"{where} has no objects in its images: there is nothing to plan for.")
    with_objects = {image for image, _ in shown}
    images_of = Counter(category for _, category in shown)
    return DataFacts(
        images=len(sizes),
        images_with_objects=len(with_objects),
        objects=objects.total(),
        crowds=crowds,
        categories=[CategoryFacts(name, images_of[key], objects[key]) for key, name in names.items()],
        sizes=[size for image, size in sizes.items() if size and image in with_objects],
        masks=masks,
    )


def _key(record: dict[str, Any], field: str, kind: str, where: str) -> Hashable:
    """An id as training takes it: 7, 7.0 and "7" are one."""
    value = record.get(field)
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{where}: {kind} with {field} {one_line(repr(value))[:40]}, which is no number.")
    return value


def _size(image: dict[str, Any]) -> tuple[float, float] | None:
    sides = image.get("width"), image.get("height")
    known = all(type(side) in (int, float) and 0 < side < float("inf") for side in sides)
    return sides if known else None
