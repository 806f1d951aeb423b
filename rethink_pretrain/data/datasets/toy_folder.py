"""What the makers of toy sets share: their folder, its state, and workers that draw into it."""

import contextlib
import json
import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ...cores import usable_cores
from ...errors import UserError

SPLITS = ("train", "val")
IN_PROGRESS = "in_progress.json"  # there from before the first picture until after the last json
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 64, 2048
JPEG = {"quality": 92, "subsampling": 0}  # full colour resolution: the finest textures have periods of 4 px


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


def make_set(
    output: Path,
    generator: tuple[str, int],
    arguments: dict[str, int],
    num_workers: int | None,
    is_complete: Callable[[Path, dict], bool],
    write: Callable[[Path, dict, int], None],
    min_images: int = 0,
) -> bool:
    """Write a set unless `is_complete(output, info)`; whether it was.

    `generator` is its name and version; with them, `arguments` (num_train, num_val, image_size, seed) make
    the `info` that tells sets apart. `write(output, info, num_workers)` draws it. Raises `UserError` for
    arguments out of range and for a folder that cannot be written.
    """
    num_workers = usable_cores() if num_workers is None else num_workers
    check_arguments(**arguments, num_workers=num_workers, min_images=min_images)
    order = ("seed", "image_size", "num_train", "num_val")
    info = {"generator": generator[0], "version": generator[1], **{key: arguments[key] for key in order}}
    try:
        already_there = is_complete(output, info)
        if not already_there:
            write(output, info, num_workers)
    except OSError as error:
        raise UserError(f"Cannot write the toy set to {output}: {error}.") from error
    return already_there


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
