"""A small sound data set, and for each kind of problem a function that puts it in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 30  # of every image
NAN, INFINITY = float("nan"), float("inf")


def make_document(number: int = 0, num_images: int = 4) -> dict[str, Any]:
    """Two objects in each image, with box, polygon and two keypoints; ids and names differ by `number`."""
    categories = [
        {"id": 10 * number + k, "name": f"part {number} {k}", "keypoints": ["top", "tail"]} for k in (1, 2)
    ]
    images, annotations = [], []
    for index in range(1, num_images + 1):
        image_id = 100 * number + index
        file_name = f"{number}_{index}.jpg"
        images.append({"id": image_id, "file_name": file_name, "width": WIDTH, "height": HEIGHT, "mine": 1})
        for category, x in zip(categories, (2, 12)):
            annotations.append(
                {
                    "id": len(annotations) + 1 + 100 * number,
                    "image_id": image_id,
                    "category_id": category["id"],
                    "bbox": [x, 3, 8, 5],
                    "segmentation": [[x, 3, x + 8, 3, x + 8, 8, x, 8]],
                    "keypoints": [x, 4, 2, 0, 0, 0],
                    "num_keypoints": 1,
                    "area": 40.0,
                    "iscrowd": 0,
                    "mine": "kept",
                }
            )
    return {"info": {"mine": number}, "images": images, "annotations": annotations, "categories": categories}


def write_images(document: dict[str, Any], folder: Path) -> None:
    """A JPEG of its own for each record."""
    for image in document["images"]:
        pixels = np.random.default_rng(image["id"]).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / image["file_name"])


def _set(key: str, field: str, *values: Any) -> Callable[[dict], int]:
    """Puts `values` into `field` of the first records of the list `key`; returns how many."""

    def put(document: dict) -> int:
        for record, value in zip(document[key], values):
            record[field] = value
        return len(values)

    return put


def _remove(key: str, field: str, number: int) -> Callable[[dict], int]:
    def put(document: dict) -> int:
        for record in document[key][:number]:
            del record[field]
        return number

    return put


def _annotations(field: str, *values: Any) -> Callable[[dict], int]:
    return _set("annotations", field, *values)


def _append(key: str, *records: Any) -> Callable[[dict], int]:
    def put(document: dict) -> int:
        document[key] += records
        return len(records)

    return put


def _again(key: str, field: str) -> Callable[[dict], int]:
    """The second and third record get the value of the first."""

    def put(document: dict) -> int:
        for record in document[key][1:3]:
            record[field] = document[key][0][field]
        return len(document[key][1:3])

    return put


def _add_image(document: dict, **fields: Any) -> dict:
    image = {**document["images"][-1], "id": document["images"][-1]["id"] + 50, **fields}
    document["images"].append(image)
    return image


def _image_twice(document: dict) -> int:
    _add_image(document, id=document["images"][0]["id"], file_name=f"twice_{document['info']['mine']}.jpg")
    return 1


def _category_twice(document: dict) -> int:
    document["categories"].append({**document["categories"][0], "name": f"other {document['info']['mine']}"})
    return 1


def _without_objects(document: dict) -> int:
    _add_image(document, file_name=f"bare_{document['info']['mine']}.jpg")
    return 1


def _category_gap(document: dict) -> int:
    for annotation in document["annotations"]:
        annotation["category_id"] += 3 * (annotation["category_id"] % 10 == 2)
    document["categories"][1]["id"] += 3
    return 3


def _category_without_objects(document: dict) -> int:
    document["categories"].append(
        {**document["categories"][0], "id": document["categories"][1]["id"] + 1, "name": "none such"}
    )
    return 1


def _annotation_twice(document: dict) -> int:
    first = document["annotations"][0]
    document["annotations"].append({**first, "id": first["id"] + 90})
    return 1


def _rle(counts: Any, height: int = HEIGHT) -> dict:
    return {"size": [height, WIDTH], "counts": counts}


_PAIR = [1, 1, 9, 1, 9, 9]
# Kind -> what makes it, in `make_document()`, and returns how many there are.
IN_JSON: dict[str, Callable[[dict], int]] = {
    "record-form": _append("annotations", 7, None, "text"),
    "id-form": _annotations("id", None, "seven", 1.5, True, [1]),
    "id-type": _annotations("image_id", "1", 1.0),
    "image-id-twice": _image_twice,
    "annotation-id-twice": _again("annotations", "id"),
    "annotation-id-below-1": _annotations("id", 0, -3),
    "category-id-twice": _category_twice,
    "category-name-form": _set("categories", "name", None, "\ud800"),
    "category-name-twice": _again("categories", "name"),
    "keypoint-names-form": _set("categories", "keypoints", "top"),
    "category-unknown": _annotations("category_id", 10**6, 10**6),
    "file-name-missing": _set("images", "file_name", None, ""),
    "file-name-unsafe": _set("images", "file_name", "../a.jpg", "/etc/passwd", "https://x.org/a.jpg", "a\0"),
    "image-size-form": _set("images", "width", 0, -1, "40", NAN),
    "box-missing": _annotations("bbox", None, []),
    "area-form": _annotations("area", None, NAN, "40", 1e300),
    "iscrowd-form": _annotations("iscrowd", 2, "1", True),
    "ignore-set": _annotations("ignore", 1, None),
    "num-keypoints-form": _annotations("num_keypoints", 0.5, "1"),
    "box-form": _annotations("bbox", [1, 2, 3], "box", [1, 2, 3, None]),
    "box-not-finite": _annotations("bbox", [NAN, 1, 2, 3], [1, 1, INFINITY, 3]),
    "box-enormous": _annotations("bbox", [1, 1, 1e7, 3]),
    "segmentation-form": _annotations("segmentation", "mask", 7),
    "polygon-form": _annotations("segmentation", [[1, 1, 5, 1, 5]], [["a"] * 6], [1, 1, 9, 1, 9, 9]),
    "polygon-not-finite": _annotations("segmentation", [_PAIR, [1, 1, NAN, 1, 5, 5]]),
    "polygon-enormous": _annotations("segmentation", [[1, 1, 2e8, 1, 5, 5]]),
    "polygon-as-box": _annotations("segmentation", [[1, 1, 9, 9]], [[]]),
    "rle-form": _annotations("segmentation", {"counts": []}, {"size": [HEIGHT, WIDTH]}),
    "rle-size": _annotations("segmentation", _rle([0, 40 * 31], height=31)),
    "rle-counts": _annotations("segmentation", _rle([0, 7]), _rle("~~~"), _rle([-1, 1201])),
    "keypoints-form": _annotations("keypoints", [1, 2], [1, 2, 2], ["a"] * 6),
    "keypoints-not-finite": _annotations("keypoints", [NAN, 1, 2, 0, 0, 0]),
    "keypoints-enormous": _annotations("keypoints", [1e9, 1, 2, 0, 0, 0]),
    "image-unlisted": _annotations("image_id", 10**6),
    "image-without-objects": _without_objects,
    "category-id-gap": _category_gap,
    "category-without-objects": _category_without_objects,
    "file-name-twice": _again("images", "file_name"),
    "segmentation-missing": _remove("annotations", "segmentation", 2),
    "keypoints-missing": _remove("annotations", "keypoints", 3),
    "area-missing": _remove("annotations", "area", 2),
    "area-wrong": _annotations("area", 80.0, 0, 9.5),
    "annotation-twice": _annotation_twice,
    "box-empty": _annotations("bbox", [1, 1, 0, 4], [1, 1, 4, -4]),
    "box-outside": _annotations("bbox", [41, 1, 5, 5], [-9, 1, 5, 5]),
    "box-beyond-image": _annotations("bbox", [-4, 3, 8, 5], [35, 3, 8, 5], [2, 28, 8, 5]),
    "polygon-few-points": _annotations("segmentation", [[2, 3, 10, 3, 10, 8, 2, 8], [1, 1, 2, 2]]),
    "polygon-degenerate": _annotations("segmentation", [[1, 1, 5, 1, 9, 1]]),
    "polygon-outside": _annotations("segmentation", [[41, 1, 45, 1, 45, 5]]),
}
