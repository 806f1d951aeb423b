"""Reading images: whatever a file holds, the outcome is an image or a `UserError` of one line.

Files come from anybody, so the number of pixels is looked at before they are decoded, and nothing but the
formats below is tried: others of PIL's start programs (EPS), or would be a way in for no use.
"""

import contextlib
import lzma
import math
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, BinaryIO

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image, UnidentifiedImageError

from ..errors import UserError, one_line
from .fast_images import decode_jpeg

RAW = "RAW"
MAX_PIXELS = 100_000_000  # as RETHINK.MAX_IMAGE_PIXELS, for readers without a config

_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")  # PIL's names; MPO opens as JPEG
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GRAY = 0  # colour type of the header chunk
# TIFF's numbers of compressions -> the unpacker, and about how many times its input it may give.
_UNPACKERS = {
    8: (zlib.decompressobj, 1032),
    32946: (zlib.decompressobj, 1032),
    34925: (lzma.LZMADecompressor, 7000),
}
_MAX_UNPACKED = 128 * 2**20  # bytes beyond the image's own that a part of a TIFF may unpack to
_MAX_PAGES = 10_000  # of a TIFF
_REASON_LENGTH = 200  # of what a decoder says
_MANY_FILES = ("ome", "mmstack", "ndtiff")  # kinds of TIFF that name other files to read


class RawOnly(UserError):
    """A file that INPUT.FORMAT "RAW" alone may read: of more than 8 bits, or of no format of PIL's."""


def read_image(
    path: str,
    image_format: str,
    channels: int | None = None,
    max_pixels: int = MAX_PIXELS,
    fast_images: bool = False,
) -> np.ndarray:
    """An H x W x C image; C has to be `channels` where that is given.

    The formats of PIL and "BGR" give what the host's `read_image` gives. "RAW" is the file's own values in
    its own channel order, rotated as EXIF says: uint8 for 8-bit files of 1 or 3 channels, which the host
    resizes through PIL, else float32, which it resizes through torch (bilinear without antialiasing).
    `fast_images`: JPEG by libjpeg-turbo, for the same pixels.
    Raises `UserError` for a file that cannot be read, has more than `max_pixels`, another number of channels,
    or, but for "RAW", more than 8 bits.
    """
    if image_format == RAW:
        image = as_input(read_stored(path, max_pixels))
    else:
        image = _read(
            path, lambda file: _read_converted(file, image_format, max_pixels, fast_images), max_pixels
        )
    if channels is not None and image.shape[2] != channels:
        raise UserError(
            one_line(f"{path}: {image.shape[2]} channels found, {channels} expected. ")
            + "Give MODEL.PIXEL_MEAN and MODEL.PIXEL_STD one value per channel, and INPUT.FORMAT "
            f'"{RAW}" for anything but 3 channels of 8 bits.'
        )
    return image


def as_input(image: np.ndarray) -> np.ndarray:
    """`image` in a type that the host's transforms take: uint8 with 1 or 3 channels, else float32."""
    keep = image.dtype == np.uint8 and image.shape[2] in (1, 3)
    return np.ascontiguousarray(image if keep else image.astype(np.float32))


def read_stored(path: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The values of an image, TIFF or .npy file as they are stored, H x W x C; all fit into float32."""
    suffix = PurePath(path).suffix.lower()
    read = {".npy": _read_npy, ".tif": _read_tiff, ".tiff": _read_tiff}.get(suffix, _read_pil)
    image = _read(path, lambda file: read(file, max_pixels), max_pixels)
    with np.errstate(over="ignore"):
        if image.dtype.kind == "f" and not np.isfinite(image.astype(np.float32, copy=False)).all():
            raise UserError(
                one_line(f"{path}: holds NaN or infinite values. Replace them, for example by the mean.")
            )
    return image


def _read(path: str, decode: Callable[[BinaryIO], np.ndarray], max_pixels: int) -> np.ndarray:
    """`decode` of the opened file, H x W x C. Whatever goes wrong in it is a `UserError` with the path."""
    try:
        _check_name(path)
        with PathManager.open(path, "rb") as file, _pixel_limit(max_pixels):
            if not file.read(1):
                raise UserError("the file is empty.")
            file.seek(0)
            image = decode(file)
        if image.ndim == 2:
            image = image[:, :, None]
        _check_values(image.shape, image.dtype)
    except UserError as error:
        raise type(error)(one_line(f"Cannot read {path}: {error}")) from None
    except Exception as error:  # a broken file leads the decoders into errors of every kind
        raise UserError(one_line(f"Cannot read {path}: {_describe(error, max_pixels)}.")) from None
    return image


def _check_name(path: str) -> None:
    if "://" in os.fspath(path):  # the host would fetch it
        raise UserError("names of images are no addresses. Download it, and give the file.")
    if not os.path.isfile(path) and os.path.exists(path):  # opening a pipe would wait for ever
        raise UserError("it is not a file.")


@contextlib.contextmanager
def _pixel_limit(max_pixels: int) -> Iterator[None]:
    """PIL's limit, one for the process, becomes ours: decoders ask it for what they allocate themselves."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _describe(error: Exception, max_pixels: int) -> str:
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return _too_large(max_pixels)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    kind = "" if isinstance(error, ValueError) else type(error).__name__
    return " ".join(filter(None, (kind, str(error))))[:_REASON_LENGTH]  # some quote the file


def _too_large(max_pixels: int) -> str:
    return (
        f"it is larger than RETHINK.MAX_IMAGE_PIXELS {max_pixels} (4 channels counted as one). Make it "
        "smaller, or raise the limit if the memory suffices"
    )


def _check_size(shape: tuple[int, ...], max_pixels: int) -> None:
    """Of an H x W x C image that is not in memory yet. Many channels count as more pixels."""
    if max(math.prod(shape[:2]), math.prod(shape) / 4) > max_pixels:
        raise UserError(f"{_too_large(max_pixels)}.")


def _check_values(shape: tuple[int, ...], dtype: np.dtype) -> None:
    if len(shape) not in (2, 3) or min(shape) < 1 or dtype.kind not in "buif":
        raise UserError(
            "an image is height x width x channels of real numbers, but this is "
            f"{dtype} {' x '.join(map(str, shape))}."
        )


def _open_pil(file: BinaryIO, max_pixels: int) -> Image.Image:
    """The header of the first image in `file`, which is not decoded yet."""
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        raise RawOnly(
            f"it is broken, or of none of the formats {', '.join(_FORMATS)}. For .npy, and TIFF of many "
            f'channels, set INPUT.FORMAT to "{RAW}".'
        ) from None
    _check_size((image.height, image.width), max_pixels)
    return image


def _read_converted(file: BinaryIO, image_format: str, max_pixels: int, fast_images: bool) -> np.ndarray:
    """As the host's `read_image` does from here on, for the same pixels."""
    image = _open_pil(file, max_pixels)
    if image.mode[0] in "IF":
        raise RawOnly(
            "it has more than 8 bits per value, which would be cut off. Images of such depth need "
            f'INPUT.FORMAT "{RAW}"; labels have to be stored with 8 bits.'
        )
    pixels = decode_jpeg(file, image, image_format) if fast_images else None
    if pixels is not None:
        return pixels
    image = detection_utils._apply_exif_orientation(image)
    return detection_utils.convert_PIL_to_numpy(image, image_format)


def _read_npy(file: BinaryIO, max_pixels: int) -> np.ndarray:
    """The header is checked first: the array is allocated by what it says."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise UserError("an image of real numbers is stored in version 1 or 2 of the format.")
    one = version == (1, 0)
    read_header = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise UserError("it holds Python objects, which could run code.")
    _check_values(shape, dtype)
    _check_size(shape, max_pixels)
    start, end = file.tell(), file.seek(0, os.SEEK_END)
    if end - start < math.prod(shape) * dtype.itemsize:
        raise UserError("it ends before its last value.")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _read_tiff(file: BinaryIO, max_pixels: int) -> np.ndarray:
    """The first image of the file; channels may stand in pixels, planes or pages."""
    tifffile = _import_tifffile()
    _check_pages(file)
    alone = {f"is_{kind}": False for kind in _MANY_FILES if kind in tifffile.TIFF.FILE_FLAGS}
    with tifffile.TiffFile(file, **alone) as tiff:
        series = tiff.series[0]
        shape, axes = series.shape, series.axes
        _check_values(shape, series.dtype)
        order = list(range(len(shape)))
        if len(shape) == 3 and "Y" in axes and "X" in axes:
            rows, columns = axes.index("Y"), axes.index("X")
            order = [*sorted((rows, columns)), *(set(order) - {rows, columns})]
        _check_size([shape[axis] for axis in order], max_pixels)
        _check_segments(file, series)
        return series.asarray().transpose(order)


def _check_pages(file: BinaryIO) -> None:
    """A TIFF is a chain of pages, each with the place of the next: tifffile would follow a loop for ever."""
    header = file.read(4)
    order = ">" if header.startswith(b"MM") else "<"
    big = header[2:] == struct.pack(f"{order}H", 43)
    count, place, entry_size = (f"{order}Q", f"{order}Q", 20) if big else (f"{order}H", f"{order}I", 12)
    file.seek(8 if big else 4)
    seen = set()
    while page := _read_number(file, place):
        if page in seen or len(seen) == _MAX_PAGES:
            raise UserError(f"its pages form a loop, or are more than {_MAX_PAGES}.")
        seen.add(page)
        file.seek(page)
        file.seek(_read_number(file, count) * entry_size, os.SEEK_CUR)
    file.seek(0)


def _read_number(file: BinaryIO, kind: str) -> int:
    """0 at the end of the file."""
    content = file.read(struct.calcsize(kind))
    return struct.unpack(kind, content)[0] if len(content) == struct.calcsize(kind) else 0


def _check_segments(file: BinaryIO, series: Any) -> None:
    """A part of a small image may unpack to gigabytes, which tifffile would take whole."""
    first = series.keyframe
    if first.compression not in _UNPACKERS:
        return
    unpacker, ratio = _UNPACKERS[first.compression]
    expected = math.prod(first.chunks) * first.dtype.itemsize
    for page in filter(None, series.pages):
        for start, length in zip(page.dataoffsets, page.databytecounts, strict=False):
            if length * ratio <= expected + _MAX_UNPACKED:  # cannot be much more: spared to be unpacked twice
                continue
            file.seek(start)
            if len(unpacker().decompress(file.read(length), expected + 1)) > expected:
                raise UserError("a part of it unpacks to more than the image has.")


def _import_tifffile() -> Any:
    try:
        import tifffile
    except ImportError:
        raise UserError(f'TIFF as INPUT.FORMAT "{RAW}" needs tifffile: pip install tifffile') from None
    return tifffile


def _read_pil(file: BinaryIO, max_pixels: int) -> np.ndarray:
    _check_png(file)
    image = _open_pil(file, max_pixels)
    if image.mode in ("P", "PA"):
        raise UserError("a palette image has no channels. Save it as gray or RGB.")
    image = detection_utils._apply_exif_orientation(image)
    return np.asarray(image.convert("L") if image.mode == "1" else image)


def _check_png(file: BinaryIO) -> None:
    """PIL keeps 16 bits only where a PNG has one channel, and says nothing where it drops them."""
    header = file.read(26)
    file.seek(0)
    if len(header) < 26 or not header.startswith(_PNG_SIGNATURE):
        return
    bit_depth, color_type = header[24], header[25]
    if bit_depth == 16 and color_type != _PNG_GRAY:
        raise UserError("a 16-bit PNG of several channels would lose 8 bits. Save it as TIFF or .npy.")
