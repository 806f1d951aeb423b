"""A small sound data set, and for each kind of problem a function that puts it in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 30  # of every image
NAN, INFINITY = float("nan"), float("inf")


def make_document(number: int = 0, num_images: int = 5) -> dict[str, Any]:
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


def _image_negative(document: dict) -> int:
    last, annotations = document["images"][-1]["id"], document["annotations"]
    shown = next(annotation for annotation in annotations if annotation["image_id"] == last)
    _add_image(document, id=-1, file_name=f"negative_{document['info']['mine']}.jpg")
    annotations.append({**shown, "image_id": -1, "id": max(a["id"] for a in annotations) + 1})
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
    "image-id-negative": _image_negative,
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


def _image(size: tuple[int, int] = (WIDTH, HEIGHT), mode: str = "RGB", seed: int = 9) -> Image.Image:
    shape = (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _file(number: int, document: dict, folder: Path, suffix: str = ".jpg") -> Path:
    """Of the image at place `number`, under a name that ends in `suffix`."""
    record = document["images"][number]
    record["file_name"] = str(Path(record["file_name"]).with_suffix(suffix))
    return folder / record["file_name"]


def _missing(document: dict, folder: Path) -> int:
    for number in (0, 1):
        _file(number, document, folder).unlink()
    return 2


def _empty(document: dict, folder: Path) -> int:
    _file(0, document, folder).write_bytes(b"")
    return 1


def _unreadable(document: dict, folder: Path) -> int:
    whole = _file(0, document, folder).read_bytes()
    _file(0, document, folder).write_bytes(whole[: len(whole) // 2])
    _file(1, document, folder).write_bytes(b"\x01\x02 not an image")
    _file(2, document, folder, ".npy").write_bytes(b"\x93NUMPY\x01\x00 and nothing else")
    _file(3, document, folder).unlink()
    _file(3, document, folder).mkdir()
    return 4


def _format(document: dict, folder: Path) -> int:
    _image().save(_file(0, document, folder, ".eps"))
    _image().save(_file(1, document, folder, ".jpg"), format="JPEG2000")
    return 2


def _huge(document: dict, folder: Path) -> int:
    """A header that speaks of more pixels than the rest of the file has."""
    path = _file(0, document, folder, ".bmp")
    _image().save(path)
    data = bytearray(path.read_bytes())
    data[18:26] = (20_000).to_bytes(4, "little") + (30_000).to_bytes(4, "little")
    path.write_bytes(data)
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({30_000}, {20_000}, 3)}}".encode()
    npy = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n"
    _file(1, document, folder, ".npy").write_bytes(npy)
    return 2


def _size_differs(document: dict, folder: Path) -> int:
    _image((WIDTH // 2, HEIGHT)).save(_file(0, document, folder))
    return 1


def _size_rotated(document: dict, folder: Path) -> int:
    """Counted under image-exif-rotation, too."""
    exif = Image.Exif()
    exif[274] = 6
    _image().save(_file(0, document, folder), exif=exif)
    return 1


def _exif_rotation(document: dict, folder: Path) -> int:
    for number, (orientation, size) in enumerate(((3, (WIDTH, HEIGHT)), (8, (HEIGHT, WIDTH)))):
        exif = Image.Exif()
        exif[274] = orientation
        _image(size).save(_file(number, document, folder), exif=exif)
    return 2


def _extension(document: dict, folder: Path) -> int:
    _image().save(_file(0, document, folder, ".png"), format="JPEG")
    _image(seed=8).save(_file(1, document, folder, ".jpg"), format="PNG")
    return 2


def _cmyk(document: dict, folder: Path) -> int:
    _image(mode="CMYK").save(_file(0, document, folder))
    return 1


def _deep(document: dict, folder: Path) -> int:
    deep = np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    Image.fromarray(deep).save(_file(0, document, folder, ".png"))
    Image.fromarray(deep).save(_file(1, document, folder, ".tif"))
    Image.fromarray(deep.astype(np.float32)).save(_file(2, document, folder, ".tiff"))
    return 3


def _raw_only(document: dict, folder: Path) -> int:
    np.save(_file(0, document, folder, ".npy"), np.ones((HEIGHT, WIDTH, 5), np.uint16))
    return 1


def _alpha(document: dict, folder: Path) -> int:
    _image(mode="RGBA").save(_file(0, document, folder, ".png"))
    _image(mode="P").save(_file(1, document, folder, ".png"), transparency=3)
    _image(mode="LA").save(_file(2, document, folder, ".png"))
    return 3


def _frames(document: dict, folder: Path) -> int:
    for number, suffix in enumerate((".gif", ".webp", ".png")):
        more = [_image(seed=seed) for seed in range(2)]
        _image(seed=5).save(_file(number, document, folder, suffix), save_all=True, append_images=more)
    return 3


def _content_twice(document: dict, folder: Path) -> int:
    data = _file(0, document, folder).read_bytes()
    for number in (1, 2):
        _file(number, document, folder).write_bytes(data)
    return 2


# Kind -> what makes it in the files of `make_document()`, and returns how many there are.
IN_FILES: dict[str, Callable[[dict, Path], int]] = {
    "image-missing": _missing,
    "image-empty": _empty,
    "image-unreadable": _unreadable,
    "image-format": _format,
    "image-huge": _huge,
    "image-size-differs": _size_differs,
    "image-size-rotated": _size_rotated,
    "image-extension": _extension,
    "image-cmyk": _cmyk,
    "image-16-bit": _deep,
    "image-raw-only": _raw_only,
    "image-alpha": _alpha,
    "image-exif-rotation": _exif_rotation,
    "image-frames": _frames,
    "image-content-twice": _content_twice,
}
ALSO = {"image-size-rotated": {"image-exif-rotation": 1}}  # what comes with a kind


def make_everything(folder: Path) -> dict[str, Any]:
    """A document with every kind of problem but "nothing-listed", and its files in `folder`."""
    whole: dict[str, Any] = {"info": {"mine": "kept"}, "images": [], "annotations": [], "categories": []}
    for number, kind in enumerate([*IN_JSON, *IN_FILES]):
        part = make_document(number)
        write_images(part, folder)
        if kind in IN_JSON:
            IN_JSON[kind](part)
        else:
            IN_FILES[kind](part, folder)
        for key in ("images", "annotations", "categories"):
            whole[key] += part[key]
    return whole
