"""Made data of the size and form of COCO: photographs with polygons, annotations, detections."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ...data import register_coco

WIDTH, HEIGHT = 640, 480  # px
OBJECTS = 7  # per image, as in COCO
CATEGORIES = [{"id": number, "name": f"thing {number}"} for number in range(1, 81)]
_POINTS = 24  # of a polygon
_CHUNK = 1000  # images whose objects are drawn at once
_NOISE = 12  # grey levels: a JPEG of 640x480 is then about as long as COCO's


def make_images(folder: Path, number: int, seed: int = 0) -> tuple[Path, Path]:
    """`number` JPEG files below `folder` and their annotations; (json, folder of images)."""
    images = folder / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for index in range(number):
        Image.fromarray(_photograph(rng)).save(images / _file_name(index), quality=90)
    path = folder / "annotations.json"
    path.write_text(json.dumps(make_document(number, seed)), encoding="utf-8")
    return path, images


def register_made(name: str, annotations: Path, images: Path) -> None:
    """Register a set as `name`, in the place of one that an earlier measurement has made."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog.list():
            catalog.remove(name)
    register_coco(name, annotations, images)


def _file_name(index: int) -> str:
    return f"{index:012d}.jpg"


def _photograph(rng: np.random.Generator) -> np.ndarray:
    """Smooth colours with grain, uint8 (HEIGHT, WIDTH, 3)."""
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float32)
    return np.clip(smooth + rng.normal(0, _NOISE, smooth.shape), 0, 255).astype(np.uint8)


def make_document(num_images: int, seed: int = 0) -> dict[str, Any]:
    """A COCO document of `num_images` images with `OBJECTS` polygons each."""
    images = [
        {"id": index + 1, "file_name": _file_name(index), "width": WIDTH, "height": HEIGHT}
        for index in range(num_images)
    ]
    annotations = list(_annotations(num_images, seed))
    return {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES}


def _annotations(num_images: int, seed: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    for start in range(0, num_images, _CHUNK):
        number = OBJECTS * min(_CHUNK, num_images - start)
        outlines = outlines_of(rng, number)
        low, size = outlines.min(1), np.ptp(outlines, axis=1)
        columns = (
            outlines.reshape(number, -1).tolist(),
            np.round(np.hstack([low, size]), 2).tolist(),
            np.round(_areas(outlines), 2).tolist(),
            rng.integers(1, len(CATEGORIES) + 1, number).tolist(),
        )
        for index, (outline, box, area, category) in enumerate(zip(*columns, strict=True)):
            yield {
                "id": start * OBJECTS + index + 1,
                "image_id": start + index // OBJECTS + 1,
                "category_id": category,
                "bbox": box,
                "area": area,
                "segmentation": [outline],
                "iscrowd": 0,
            }


def outlines_of(rng: np.random.Generator, number: int) -> np.ndarray:
    """`number` star-shaped polygons inside the image, x and y to 0.01 px: (number, points, 2)."""
    # Log-uniform sizes: small, medium and large objects are all there.
    radius = np.exp(rng.uniform(math.log(8), math.log(200), (number, 1)))
    center = rng.uniform((0, 0), (WIDTH, HEIGHT), (number, 1, 2))
    angle = np.linspace(0, 2 * np.pi, _POINTS, endpoint=False)
    reach = radius * rng.uniform(0.6, 1.0, (number, _POINTS))
    points = center + reach[..., None] * np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    # No side is shorter than 2 px, wherever the object was cut.
    low, high = np.zeros(2), np.array((WIDTH, HEIGHT), dtype=float)
    center = np.clip(center, low + 2, high - 2)
    points[:, :4] = center + np.array(((1, 1), (-1, 1), (-1, -1), (1, -1)))
    return np.round(np.clip(points, low, high), 2)


def _areas(outlines: np.ndarray) -> np.ndarray:
    """In px^2, by the shoelace formula."""
    x, y = outlines[..., 0], outlines[..., 1]
    return abs((x * np.roll(y, 1, axis=1) - y * np.roll(x, 1, axis=1)).sum(1)) / 2


def make_detections(document: dict[str, Any], per_image: int, seed: int = 1) -> list[dict[str, Any]]:
    """COCO results with scores, boxes and masks (compressed RLE): objects of `document`, moved, and others.

    Half are near an object and mostly of its category, the others anywhere: AP is neither 0 nor 1.
    """
    from pycocotools import mask as mask_util

    rng = np.random.default_rng(seed)
    objects: dict[int, list[dict]] = {}
    for annotation in document["annotations"]:
        objects.setdefault(annotation["image_id"], []).append(annotation)
    results = []
    for image_id, known in objects.items():
        near = [known[i] for i in rng.integers(0, len(known), per_image // 2)]
        outlines = [_moved(rng, annotation) for annotation in near]
        outlines += list(outlines_of(rng, per_image - len(near)))
        labels = [a["category_id"] if rng.random() < 0.8 else int(rng.integers(1, 81)) for a in near]
        labels += rng.integers(1, 81, per_image - len(near)).tolist()
        masks = mask_util.frPyObjects([outline.ravel().tolist() for outline in outlines], HEIGHT, WIDTH)
        boxes = [[*outline.min(0).tolist(), *np.ptp(outline, axis=0).tolist()] for outline in outlines]
        # Equal scores would leave the order, and so the last digits, to each implementation.
        scores = rng.random(per_image).tolist()
        for label, box, mask, score in zip(labels, boxes, masks, scores, strict=True):
            rle = {"size": mask["size"], "counts": mask["counts"].decode()}
            results.append(
                {
                    "image_id": image_id,
                    "category_id": label,
                    "bbox": box,
                    "segmentation": rle,
                    "score": score,
                }
            )
    return results


def _moved(rng: np.random.Generator, annotation: dict) -> np.ndarray:
    outline = np.reshape(annotation["segmentation"][0], (-1, 2))
    shift = rng.normal(0, 0.05, 2) * np.ptp(outline, axis=0)
    return np.round(np.clip(outline + shift, 0, (WIDTH, HEIGHT)), 2)
