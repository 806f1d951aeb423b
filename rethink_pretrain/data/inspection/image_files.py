"""What can be said of image files: each is opened as one of the expected formats only, and decoded."""

import contextlib
import hashlib
import os
import stat
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.data import detection_utils
from PIL import Image, UnidentifiedImageError

from ...errors import UserError
from ...progress import track
from ..confine import Confinement
from ..images import MAX_PIXELS, read_stored
from .document import name_problem
from .report import Report
from .values import size_of

# Format -> how its names end: those that data/images.py reads.
_SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".mpo"},  # what PIL calls a JPEG with previews behind it
    "PNG": {".png"},
    "BMP": {".bmp", ".dib"},
    "TIFF": {".tif", ".tiff"},
    "WEBP": {".webp"},
    "GIF": {".gif"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
}
# Beginnings of files that are images or documents, but of none of these formats.
_OTHER_FORMATS = {
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"<svg": "SVG",
    b"<?xml": "XML",
    b"\x00\x00\x00\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x89HDF": "HDF5",
    b"\x00\x00\x01\x00": "ICO",
    b"qoif": "QOI",
    b"SIMPLE": "FITS",
}
_FORMATS = [name for name in _SUFFIXES if name != "MPO"]
_CONTAINER = b"ftyp"  # from byte 4 on: AVIF, HEIC
_ORIENTATION, _BITS_PER_SAMPLE = 274, 258  # tags of EXIF and TIFF
_SWAPS_SIDES = (5, 6, 7, 8)  # of the orientations 1 to 8
_BLOCK = 1 << 20  # bytes that are hashed at a time


class ImageFile(NamedTuple):
    """What was found in a file. `size`: width and height in px as it is trained on, None where not known."""

    size: tuple[int, int] | None
    problems: tuple[tuple[str, Any], ...] = ()  # (kind, value)
    rotated: bool = False  # whether EXIF swaps width and height
    num_bytes: int = 0

    def size_problem(self, size: tuple[int, int]) -> str:
        """The kind of what is wrong with a json that says `size`; "" for nothing."""
        if self.size is None or self.size == size:
            return ""
        return "image-size-rotated" if self.rotated and self.size[::-1] == size else "image-size-differs"


def check_images(
    document: dict[str, Any],
    image_root: Path,
    report: Report,
    *,
    max_pixels: int = MAX_PIXELS,
    num_workers: int = 1,
) -> dict[str, ImageFile]:
    """Add to `report` what is wrong with the files of `document`; what was found, by file name.

    Names that lead out of `image_root` are not followed.
    """
    folder = Confinement(image_root)
    records = [r for r in document["images"] if isinstance(r, dict)]
    records = [r for r in records if not name_problem(r.get("file_name"), folder)]
    paths = {record["file_name"]: folder.path(record["file_name"]) for record in records}
    with _limited_pillow(max_pixels), _pool(num_workers) as pool:
        found = pool.map(partial(examine_file, max_pixels=max_pixels), paths.values())
        files = dict(zip(paths, track(found, "Images", len(paths))))
        twins = _find_twins({name: (paths[name], files[name].num_bytes) for name in paths}, pool.map)
    for record in records:
        name = record["file_name"]
        example = {"image_id": record.get("id"), "file": name}
        for kind, value in files[name].problems:
            report.add(kind, **example, **({} if value is None else {"value": value}))
        size = size_of(record)
        kind = size and files[name].size_problem(size)
        if kind:
            report.add(kind, **example, json=_by(size), found=_by(files[name].size))
    for name, first in twins.items():
        report.add("image-content-twice", file=name, same_as=first)
    return files


@contextlib.contextmanager
def _limited_pillow(max_pixels: int) -> Iterator[None]:
    """PIL's own limit, which also holds for parts of a file, becomes ours. It warns of what we count."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextlib.contextmanager
def _pool(num_workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads, because decoding lets others run. On Ctrl-C, what has not begun is left."""
    pool = ThreadPoolExecutor(max(1, num_workers))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def examine_file(path: Path, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Open and decode `path`; whatever is wrong with it is in the result and never an exception."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return ImageFile(None, (("image-missing", getattr(error, "strerror", None)),))
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for ever
        return ImageFile(None, (("image-unreadable", "it is no regular file"),))
    if not status.st_size:
        return ImageFile(None, (("image-empty", None),))
    try:
        examine = _examine_stored if path.suffix.lower() == ".npy" else _examine
        found = examine(path, max_pixels)
    except Image.DecompressionBombError as error:
        found = ImageFile(None, (("image-huge", str(error)),))
    except Exception as error:  # on broken files the decoders raise anything at all
        found = ImageFile(None, (("image-unreadable", str(error) or type(error).__name__),))
    return found._replace(num_bytes=status.st_size)


def _examine(path: Path, max_pixels: int) -> ImageFile:
    with path.open("rb") as file:
        start = file.read(32)
        file.seek(0)
        try:
            image = Image.open(file, formats=_FORMATS)
        except UnidentifiedImageError:
            return _examine_unidentified(path, start, max_pixels)
        if image.width * image.height > max_pixels:
            return ImageFile(image.size, (("image-huge", _by(image.size)),))
        orientation = _orientation(image)
        problems = list(_oddities(image, path, start))
        if orientation != 1:
            problems.append(("image-exif-rotation", f"orientation {orientation}"))
        turned = detection_utils._apply_exif_orientation(image)  # as in training, mistakes included
        turned.load()
        num_frames = _num_frames(image)
        if num_frames > 1 and image.format != "MPO":
            problems.append(("image-frames", f"{num_frames} frames"))
        return ImageFile(turned.size, tuple(problems), rotated=orientation in _SWAPS_SIDES)


def _oddities(image: Image.Image, path: Path, start: bytes) -> Iterator[tuple[str, Any]]:
    if path.suffix.lower() not in _SUFFIXES[image.format]:
        yield "image-extension", f"content is {image.format}"
    if image.mode == "CMYK":
        yield "image-cmyk", None
    if _bits(image, start) > 8:
        yield "image-16-bit", f"{_bits(image, start)} bits"
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        yield "image-alpha", f"mode {image.mode}"


def _bits(image: Image.Image, start: bytes) -> int:
    """Of a channel as the file stores it: PIL halves those of some formats without a word."""
    if image.format == "PNG":
        return start[24]
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    return 32 if image.mode in ("I", "F") else 16 if image.mode.startswith("I;16") else 8


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF; the host reads on without it, too
        return 1
    return value if value in range(1, 9) else 1


def _num_frames(image: Image.Image) -> int:
    try:
        return getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) else 1
    except Exception:  # frames that nobody reads may be broken
        return 1


def _examine_unidentified(path: Path, start: bytes, max_pixels: int) -> ImageFile:
    """Not PIL's: a TIFF of other channels, another format, or no image at all."""
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _examine_stored(path, max_pixels)
    known = next((name for magic, name in _OTHER_FORMATS.items() if start.startswith(magic)), None)
    if start[4:8] == _CONTAINER:
        known = start[8:12].decode("ascii", "replace")
    if known:
        return ImageFile(None, (("image-format", known),))
    return ImageFile(None, (("image-unreadable", f"no image begins with {start[:8]!r}"),))


def _examine_stored(path: Path, max_pixels: int) -> ImageFile:
    """A file for INPUT.FORMAT RAW."""
    try:
        image = read_stored(str(path), max_pixels)
    except UserError as error:
        reason = str(error).removeprefix(f"Cannot read {path}: ").removeprefix(f"{path}: ")
        kind = "image-huge" if "MAX_IMAGE_PIXELS" in reason else "image-unreadable"
        return ImageFile(None, ((kind, reason),))
    height, width, channels = image.shape
    return ImageFile((width, height), (("image-raw-only", f"{channels} channels of {image.dtype}"),))


def _find_twins(files: dict[str, tuple[Path, int]], run: Callable[..., Iterable]) -> dict[str, str]:
    """Name -> the first name of the same content. Only files of equal length (path, bytes) are compared."""
    by_length = defaultdict(list)
    for name, (_, num_bytes) in files.items():
        if num_bytes:
            by_length[num_bytes].append(name)
    names = [name for group in by_length.values() if len(group) > 1 for name in group]
    digests = track(run(_digest, [files[name][0] for name in names]), "Equal lengths", len(names))
    first: dict[bytes, str] = {}
    twins = {}
    for name, digest in zip(names, digests):
        if first.setdefault(digest, name) != name:
            twins[name] = first[digest]
    return twins


def _digest(path: Path) -> bytes:
    digest = hashlib.blake2b()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError:  # equal to none
        digest.update(os.urandom(32))
    return digest.digest()


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
