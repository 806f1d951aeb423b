"""A toy classification set: one object of the detection set's categories per picture, as folders of classes.

A backbone pre-trained on it has seen the shapes, textures and backgrounds of the detection set (`toy`), but
none of its pictures: those are drawn from other random streams. The object is large, as in ImageNet, lies
anywhere as long as most of it is visible, and is turned, stretched and coloured at random.

Every picture depends on nothing but (image size, seed, split, its index), so the bytes are the same for any
number of workers. Its class is its index modulo 8, which balances any number of pictures.
"""

import time
from pathlib import Path

import numpy as np
import shapely
from PIL import Image

from ...files import write_json
from ...progress import progress
from .toy_folder import IN_PROGRESS, JPEG, SPLITS, is_finished, make_set, mapper
from .toy_render import CATEGORIES, ToyObject, draw_object, finish, sample_background, sample_object

GENERATOR = "rethink_pretrain toy classification set"
VERSION = 1  # raise it whenever the same arguments give other bytes
INFO = "info.json"  # written last
CLASSES = [category["name"].replace(" ", "_") for category in CATEGORIES]
"""Folder names by category id from 1; an ImageFolder numbers them from 0 in alphabetical order."""

STREAM = 1  # sets these pictures' random numbers apart from the detection set's
SIZES = (0.45, 0.9)  # object sizes as shares of the image's side
PLACING_TRIES = 16
MIN_VISIBLE = 0.85  # share of the full silhouette


def _place(rng: np.random.Generator, obj: ToyObject, image_size: int) -> ToyObject:
    """`obj`, given in the middle, moved by up to half the image so that `MIN_VISIBLE` of it stays inside."""
    frame = shapely.box(0, 0, image_size, image_size)
    for shift in rng.uniform(-0.5, 0.5, size=(PLACING_TRIES, 2)) * image_size:
        silhouette = shapely.Polygon(obj.outline + shift)
        if silhouette.intersection(frame).area >= MIN_VISIBLE * silhouette.area:
            return obj.moved(shift)
    return obj


def make_picture(seed: int, split: int, index: int, image_size: int) -> tuple[Image.Image, ToyObject]:
    """Picture `index` of split 0 (train) or 1 (val), a square of `image_size` px, and the object on it."""
    # A spawn key is no part of any [seed, split, index], so no detection scene starts from the same numbers.
    rng = np.random.default_rng(np.random.SeedSequence([seed, split, index], spawn_key=(STREAM,)))
    canvas, background, _ = sample_background(rng, image_size, image_size)
    middle = np.full(2, image_size / 2)
    size = image_size * rng.uniform(*SIZES)
    obj = sample_object(rng, index % len(CATEGORIES) + 1, middle, size, background)
    obj = _place(rng, obj, image_size)
    draw_object(canvas, obj)
    return finish(rng, canvas), obj


def picture_path(output: Path, split: int, index: int) -> Path:
    """Where picture `index` of split 0 (train) or 1 (val) lies."""
    return output / SPLITS[split] / CLASSES[index % len(CLASSES)] / f"{index // len(CLASSES) + 1:06d}.jpg"


def _write_picture(task: tuple[Path, int, int, int, int]) -> None:
    output, seed, split, index, image_size = task
    image, _ = make_picture(seed, split, index, image_size)
    image.save(picture_path(output, split, index), **JPEG)


def _indices(info: dict) -> list[tuple[int, int]]:
    """Split and index of every picture of the set."""
    counts = (info["num_train"], info["num_val"])
    return [(split, index) for split, count in enumerate(counts) for index in range(count)]


def _is_complete(output: Path, info: dict) -> bool:
    """Whether the whole set is there. Raises `UserError` if `output` holds anything else than part of it."""
    return is_finished(output, info, [INFO]) and all(
        picture_path(output, *place).is_file() for place in _indices(info)
    )


def _write_set(output: Path, info: dict, num_workers: int) -> None:
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / IN_PROGRESS, {"info": info})
    for split in SPLITS:
        for name in CLASSES:
            (output / split / name).mkdir(parents=True, exist_ok=True)
    tasks = [(output, info["seed"], *place, info["image_size"]) for place in _indices(info)]
    with progress("Drawing", len(tasks)) as task, mapper(num_workers) as run_map:
        for _ in run_map(_write_picture, tasks):
            task.advance()
    write_json(output / INFO, {"info": info, "classes": CLASSES})
    (output / IN_PROGRESS).unlink()


def make_toy_classification(
    output: str | Path,
    num_train: int,
    num_val: int,
    image_size: int,
    seed: int,
    num_workers: int | None = None,
) -> dict:
    """Write info.json and, in `output`/{train,val}, a folder of JPEG files per class, unless already there.

    `num_train` and `num_val` are >= 8, one picture per class; `image_size` is the side, 64..2048 px; `seed`
    >= 0; `num_workers` >= 1 processes, by default one per usable core. Shows how far it is (`progress`). An
    unfinished set with the same arguments is completed. Returns `output`, `already_there`, `images`,
    `classes` and `seconds`. Raises `UserError` for arguments out of range and for a folder that holds
    something else.
    """
    start = time.perf_counter()
    output = Path(output)
    arguments = {"num_train": num_train, "num_val": num_val, "image_size": image_size, "seed": seed}
    already_there = make_set(
        output,
        (GENERATOR, VERSION),
        arguments,
        num_workers,
        _is_complete,
        _write_set,
        min_images=len(CLASSES),
    )
    return {
        "output": str(output),
        "already_there": already_there,
        "images": num_train + num_val,
        "classes": len(CLASSES),
        "seconds": time.perf_counter() - start,
    }
