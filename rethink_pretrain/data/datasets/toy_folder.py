"""What the makers of toy sets share: their folder, its state, and workers that draw into it."""

import contextlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ...errors import UserError

SPLITS = ("train", "val")
IN_PROGRESS = "in_progress.json"  # there from before the first picture until after the last json
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 64, 2048
JPEG = {"quality": 92, "subsampling": 0}  # full colour resolution: the finest textures have periods of 4 px


def usable_cores() -> int:
    """Cores this process may use, which a container or a scheduler may have cut down; macOS cannot say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_arguments(
    num_train: int, num_val: int, image_size: int, seed: int, num_workers: int, min_images: int = 0
) -> None:
    """Raise `UserError` for a value out of range; `min_images` is what either split needs."""
    if not MIN_IMAGE_SIZE <= image_size <= MAX_IMAGE_SIZE:
        raise UserError(f"The image size must be {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} px, got {image_size}.")
    for name, value, least in (
        ("training images", num_train, min_images),
        ("validation images", num_val, min_images),
        ("seed", seed, 0),
        ("workers", num_workers, 1),
    ):
        if value < least:
            raise UserError(f"At least {least} is needed for {name}, got {value}.")


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the whole process group; the parent alone answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def mapper(num_workers: int) -> Iterator[Callable[[Callable, Iterable], Iterator]]:
    """An ordered, lazy `map` over `num_workers` processes; with one, the plain `map`."""
    if num_workers == 1:
        yield map
        return
    # A fork starts at once, while a fresh interpreter would first import our package and with it torch and
    # Detectron2 for seconds. It is safe here: the workers use numpy, shapely and PIL alone, no threads and no
    # accelerator. On macOS system libraries do not survive a fork.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_ignore_interrupts)
    try:
        yield lambda function, tasks: pool.map(function, tasks, chunksize=4)
    finally:
        pool.shutdown(cancel_futures=True)


def _read_info(path: Path, generator: str) -> dict | None:
    """The `info` of a json file by `generator`; None if there is no such thing."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"))["info"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return info if isinstance(info, dict) and info.get("generator") == generator else None


def is_finished(output: Path, info: dict, files: Iterable[str]) -> bool:
    """Whether `output` holds all json `files` of the set that `info` describes, none of it in progress.

    `info["generator"]` tells whose sets count. Raises `UserError` if `output` holds anything else than that
    set or a part of it.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    generator = info["generator"]
    unfinished, *found = [_read_info(output / name, generator) for name in (IN_PROGRESS, *files)]
    known = [other for other in (unfinished, *found) if other is not None]
    kind = generator.removeprefix("rethink_pretrain ")
    if not known:
        raise UserError(f"{output} is not an empty folder and not a {kind}; choose another --output.")
    for other in known:
        if other != info:
            there = ", ".join(f"{key}={other.get(key)}" for key in info if key != "generator")
            raise UserError(
                f"{output} holds a {kind} with {there}; choose another --output or delete that folder."
            )
    return unfinished is None and None not in found
