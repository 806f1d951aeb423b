"""A toy detection set in COCO's format: made in seconds, learned in minutes, hard in COCO's ways.

Eight categories of textured shapes (`toy_render`) lie on textured backgrounds. The set has what breaks a
detection pipeline in real data: occluded, touching, truncated and tiny objects, several polygons for one
object, crowds as RLE, pictures without any object, portrait and landscape formats, and category ids that
start at 1.

Segmentation, box and area describe the *visible* region, as in COCO. Objects have keypoints, and beside every
picture lies a map of semantic labels (`toy_labels`). Every picture depends on nothing but
(image size, seed, split, its index), so the bytes are the same for any number of workers.
"""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import shapely
from PIL import Image

from ...files import write_json
from ...progress import Task, progress
from .toy_folder import IN_PROGRESS, JPEG, SPLITS, is_finished, make_set, mapper
from .toy_labels import KEYPOINT_NAMES, SKELETON, keypoint_annotation, no_keypoints, semantic_labels
from .toy_render import (
    CATEGORIES,
    ToyObject,
    coverage,
    draw_object,
    finish,
    sample_background,
    sample_object,
    window,
)

GENERATOR = "rethink_pretrain toy detection set"
VERSION = 2  # raise it whenever the same arguments give other bytes
LABEL_FOLDERS = tuple(f"sem_seg_{split}" for split in SPLITS)

OBJECT_COUNTS = (0.04, 0.06, 0.10, 0.15, 0.15, 0.15, 0.15, 0.12, 0.08)  # probabilities of 0 to 8 objects
LARGEST, SMALLEST, TINIEST = 1 / 2.2, 1 / 6, 1 / 20  # object sizes as shares of the image's long side
MIN_OBJECT_SIZE = 4.5  # px
TINY_SHARE = 0.05
TOUCHING_SHARE = 0.15
CROWD_SHARE = 0.08
MIN_CROWD = 5
PLACING_TRIES = 12
MIN_VISIBLE = 0.6  # share of the full silhouette
MIN_PART_AREA = 2.0  # px^2; smaller splinters of an occluded object are not annotated
MIN_AREA = 8.0  # px^2


def visible_parts(
    outline: np.ndarray, covered: shapely.Geometry, frame: shapely.Geometry
) -> list[np.ndarray]:
    """Polygons (P, 2) in px, rounded to 0.01, of what `covered` and the image's `frame` leave of `outline`.

    Empty if too little is left to ask a detector for it, or if something in front would punch a hole, which
    COCO's polygons cannot say.
    """
    full = shapely.Polygon(outline)
    region = full.intersection(frame).difference(covered)
    parts = [part for part in shapely.get_parts(region) if part.area >= MIN_PART_AREA]
    area = sum(part.area for part in parts)
    if area < max(MIN_AREA, MIN_VISIBLE * full.area) or any(part.interiors for part in parts):
        return []
    rounded = [np.round(shapely.get_coordinates(part), 2) for part in parts]
    # The ring's last point repeats its first; rounding makes a few more neighbours equal.
    return [points[1:][(points[1:] != points[:-1]).any(axis=1)] for points in rounded]


def _sample_size(rng: np.random.Generator, image_size: int) -> float:
    """Object size in px: log-uniform between the smallest and the largest, now and then tiny."""
    low, high = (TINIEST, SMALLEST) if rng.random() < TINY_SHARE else (SMALLEST, LARGEST)
    return max(MIN_OBJECT_SIZE, image_size * np.exp(rng.uniform(np.log(low), np.log(high))))


def _moved_to_touch(rng: np.random.Generator, obj: ToyObject, other: ToyObject) -> ToyObject:
    """`obj` moved to a random side of `other` so that their silhouettes meet without overlapping."""
    angle = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)])
    obj = obj.moved(other.center + direction * (obj.size + other.size) - obj.center)
    gap = shapely.shortest_line(shapely.Polygon(obj.outline), shapely.Polygon(other.outline))
    start, end = np.asarray(gap.coords)
    return obj.moved(end - start)


def _place_objects(
    rng: np.random.Generator, frame: shapely.Geometry, image_size: int, background: np.ndarray
) -> list[tuple[ToyObject, dict]]:
    """Objects and their annotations, front to back: a new one goes behind and leaves the others alone."""
    width, height = frame.bounds[2:]
    placed: list[tuple[ToyObject, dict]] = []
    covered = shapely.Polygon()
    for _ in range(rng.choice(len(OBJECT_COUNTS), p=OBJECT_COUNTS)):
        for _ in range(PLACING_TRIES):
            size = _sample_size(rng, image_size)
            center = rng.uniform(0.4 * size, np.array([width, height]) - 0.4 * size)
            obj = sample_object(rng, int(rng.integers(1, len(CATEGORIES) + 1)), center, size, background)
            if placed and rng.random() < TOUCHING_SHARE:
                obj = _moved_to_touch(rng, obj, placed[int(rng.integers(len(placed)))][0])
            parts = visible_parts(obj.outline, covered, frame)
            if parts:
                annotation = polygon_annotation(obj.category_id, parts)
                placed.append((obj, annotation | keypoint_annotation(obj.outline, covered, frame)))
                covered = covered.union(shapely.Polygon(obj.outline))
                break
    return placed


def _place_crowd(
    rng: np.random.Generator,
    placed: list[ToyObject],
    frame: shapely.Geometry,
    image_size: int,
    background: np.ndarray,
) -> list[ToyObject]:
    """A cluster of tiny objects of one category in free space; empty if there is no room for `MIN_CROWD`."""
    category_id = int(rng.integers(1, len(CATEGORIES) + 1))
    middle = rng.uniform(0.2, 0.8, size=2) * frame.bounds[2:]
    covered = shapely.union_all([shapely.Polygon(obj.outline) for obj in placed])
    members = []
    for _ in range(int(rng.integers(12, 30))):
        size = max(MIN_OBJECT_SIZE, image_size * rng.uniform(TINIEST, 1.6 * TINIEST))
        center = middle + rng.uniform(-0.14, 0.14, size=2) * image_size
        member = sample_object(rng, category_id, center, size, background)
        silhouette = shapely.Polygon(member.outline)
        if frame.contains(silhouette) and not covered.intersects(silhouette):
            members.append(member)
            covered = covered.union(silhouette)
    return members if len(members) >= MIN_CROWD else []


def polygon_annotation(category_id: int, parts: list[np.ndarray]) -> dict:
    """COCO's annotation of one object, without ids; box and area follow from the polygons `parts` (P, 2)."""
    points = np.concatenate(parts)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return {
        "segmentation": [part.ravel().tolist() for part in parts],
        "area": round(float(sum(shapely.Polygon(part).area for part in parts)), 2),
        "iscrowd": 0,
        "bbox": [round(float(value), 2) for value in (x0, y0, x1 - x0, y1 - y0)],
        "category_id": category_id,
    }


def uncompressed_rle(mask: np.ndarray) -> dict:
    """COCO's run lengths of a boolean mask (H, W): down the columns, the first run is of zeros."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    starts = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], starts, [mask.size]]))
    return {"counts": runs.tolist(), "size": list(mask.shape)}


def crowd_annotation(members: list[ToyObject], height: int, width: int) -> dict:
    """COCO's annotation, without ids, of a crowd as the union of its members' pixels."""
    mask = np.zeros((height, width), dtype=bool)
    for member in members:
        x0, y0, x1, y1 = window(member.outline, height, width)
        mask[y0:y1, x0:x1] |= coverage(member.outline, x0, y0, x1, y1) >= 0.5
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "segmentation": uncompressed_rle(mask),
        "area": float(mask.sum()),
        "iscrowd": 1,
        "bbox": [float(x), float(y), float(columns[-1] + 1 - x), float(rows[-1] + 1 - y)],
        "category_id": members[0].category_id,
        **no_keypoints(),
    }


def make_scene(
    seed: int, split: int, index: int, image_size: int
) -> tuple[Image.Image, list[dict], np.ndarray]:
    """Picture `index` of split 0 (train) or 1 (val), its annotations without ids, its semantic labels (H, W).

    `image_size` is the long side in px; the short side is 3/4, 7/8 or all of it.
    """
    rng = np.random.default_rng([seed, split, index])
    short_side = round(image_size * rng.choice((1.0, 0.875, 0.75)))
    height, width = (image_size, short_side) if rng.random() < 0.5 else (short_side, image_size)
    frame = shapely.box(0, 0, width, height)
    canvas, background, kind = sample_background(rng, height, width)
    placed = _place_objects(rng, frame, image_size, background)
    objects = [obj for obj, _ in placed]
    wants_crowd = rng.random() < CROWD_SHARE
    crowd = _place_crowd(rng, objects, frame, image_size, background) if wants_crowd else []
    drawn = [draw_object(canvas, obj) for obj in itertools.chain(crowd, reversed(objects))]
    annotations = [annotation for _, annotation in placed]
    if crowd:
        annotations.append(crowd_annotation(crowd, height, width))
    return finish(rng, canvas), annotations, semantic_labels(height, width, kind, drawn)


def _write_scene(task: tuple[str, int, int, int, int]) -> tuple[dict, list[dict]]:
    """Write picture and labels; COCO's image record and its annotations, whose own ids the parent gives."""
    output, seed, split, index, image_size = task
    image, annotations, labels = make_scene(seed, split, index, image_size)
    name = f"{index + 1:06d}.jpg"
    image.save(Path(output, SPLITS[split], name), **JPEG)
    Image.fromarray(labels).save(Path(output, LABEL_FOLDERS[split], name).with_suffix(".png"))
    record = {"id": index + 1, "file_name": name, "height": image.height, "width": image.width}
    return record, [{**annotation, "image_id": record["id"]} for annotation in annotations]


def _is_complete(output: Path, info: dict) -> bool:
    """Whether `output` holds the whole set that `info` describes.

    Raises `UserError` if it holds anything else than that set or a part of it.
    """
    finished = is_finished(output, info, [f"{split}.json" for split in SPLITS])
    wanted = [info["num_train"], info["num_val"]] * 2
    files = [len(list((output / folder).glob("*.*"))) for folder in (*SPLITS, *LABEL_FOLDERS)]
    return finished and all(there >= needed for there, needed in zip(files, wanted))


def _write_split(
    output: Path, split: int, num_images: int, info: dict, run_map: Callable, task: Task
) -> dict:
    """Draw one split and return its COCO document, annotation ids counted from 1."""
    for folder in (SPLITS[split], LABEL_FOLDERS[split]):
        (output / folder).mkdir(exist_ok=True)
    images, annotations = [], []
    tasks = [(str(output), info["seed"], split, index, info["image_size"]) for index in range(num_images)]
    for record, found in run_map(_write_scene, tasks):
        images.append(record)
        annotations += [
            {"id": len(annotations) + i, **annotation} for i, annotation in enumerate(found, start=1)
        ]
        task.advance()
    return {
        "info": info,
        "licenses": [{"id": 1, "name": "Drawn by a program, free for any use", "url": ""}],
        "images": images,
        "annotations": annotations,
        "categories": [
            {**category, "keypoints": KEYPOINT_NAMES, "skeleton": SKELETON} for category in CATEGORIES
        ],
    }


def _write_set(output: Path, info: dict, num_workers: int) -> None:
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / IN_PROGRESS, {"info": info})
    counts = (info["num_train"], info["num_val"])
    with progress("Drawing", sum(counts)) as task, mapper(num_workers) as run_map:
        documents = [_write_split(output, split, counts[split], info, run_map, task) for split in range(2)]
    for split, document in zip(SPLITS, documents, strict=True):
        write_json(output / f"{split}.json", document, indent=None)
    (output / IN_PROGRESS).unlink()


def make_toy_dataset(
    output: str | Path,
    num_train: int,
    num_val: int,
    image_size: int,
    seed: int,
    num_workers: int | None = None,
) -> dict:
    """Write `output`/{train,val}.json, {train,val}/*.jpg and sem_seg_{train,val}/*.png, unless already there.

    `num_train` and `num_val` are >= 0; `image_size` is the long side, 64..2048 px; `seed` >= 0; `num_workers`
    >= 1 processes, by default one per usable core. Shows how far it is (`progress`). An unfinished set with
    the same arguments is completed. Returns `output`, `already_there`, `images`, `objects`, `crowds` and
    `seconds`. Raises `UserError` for arguments out of range and for a folder that holds something else.
    """
    start = time.perf_counter()
    output = Path(output)
    arguments = {"num_train": num_train, "num_val": num_val, "image_size": image_size, "seed": seed}
    already_there = make_set(output, (GENERATOR, VERSION), arguments, num_workers, _is_complete, _write_set)
    documents = [json.loads((output / f"{split}.json").read_text(encoding="utf-8")) for split in SPLITS]
    annotations = [annotation for document in documents for annotation in document["annotations"]]
    crowds = sum(annotation["iscrowd"] for annotation in annotations)
    return {
        "output": str(output),
        "already_there": already_there,
        "images": num_train + num_val,
        "objects": len(annotations) - crowds,
        "crowds": crowds,
        "seconds": time.perf_counter() - start,
    }
