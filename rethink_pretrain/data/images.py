"""Reading images: the host's formats, and "RAW", which keeps the file's own channels and bit depth."""

import warnings
from pathlib import PurePath
from typing import Any, BinaryIO

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps

from ..errors import UserError

RAW = "RAW"

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GRAY = 0  # colour type of the header chunk


def read_image(path: str, image_format: str, channels: int | None = None) -> np.ndarray:
    """An H x W x C image; C has to be `channels` where that is given.

    The formats of PIL and "BGR" are the host's `read_image`. "RAW" is the file's own values in its own
    channel order, rotated as EXIF says: uint8 for 8-bit files of 1 or 3 channels, which the host resizes
    through PIL, else float32, which it resizes through torch (bilinear without antialiasing).
    Raises `UserError` for a file that cannot be read or has another number of channels.
    """
    if image_format != RAW:
        image = detection_utils.read_image(path, format=image_format)
    else:
        image = as_input(read_stored(path))
    if channels is not None and image.shape[2] != channels:
        raise UserError(
            f"{path}: {image.shape[2]} channels found, {channels} expected. Give MODEL.PIXEL_MEAN and "
            f'MODEL.PIXEL_STD one value per channel, and INPUT.FORMAT "{RAW}" for anything but 3 channels '
            "of 8 bits."
        )
    return image


def as_input(image: np.ndarray) -> np.ndarray:
    """`image` in a type that the host's transforms take: uint8 with 1 or 3 channels, else float32."""
    keep = image.dtype == np.uint8 and image.shape[2] in (1, 3)
    return np.ascontiguousarray(image if keep else image.astype(np.float32))


def read_stored(path: str) -> np.ndarray:
    """The values of a PNG, JPEG, TIFF or .npy file as they are stored, H x W x C."""
    suffix = PurePath(path).suffix.lower()
    read = {".npy": _read_npy, ".tif": _read_tiff, ".tiff": _read_tiff}.get(suffix, _read_pil)
    try:
        with PathManager.open(path, "rb") as file:
            image = read(file)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"Cannot read {path}: {error}") from None
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or 0 in image.shape or image.dtype.kind not in "buif":
        raise UserError(
            f"{path}: an image is height x width x channels of real numbers, but this is "
            f"{image.dtype} {' x '.join(map(str, image.shape))}."
        )
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise UserError(f"{path}: holds NaN or infinite values. Replace them, for example by the mean.")
    return image


def _read_npy(file: BinaryIO) -> np.ndarray:
    return np.load(file, allow_pickle=False)


def _read_tiff(file: BinaryIO) -> np.ndarray:
    """The first image of the file; channels may stand in pixels, planes or pages."""
    tifffile = _import_tifffile()
    with tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        image, axes = series.asarray(), series.axes
    if image.ndim == 3 and "Y" in axes and "X" in axes:
        (channel_axis,) = set(range(3)) - {axes.index("Y"), axes.index("X")}
        image = np.moveaxis(image, channel_axis, 2)
    return image


def _import_tifffile() -> Any:
    try:
        import tifffile
    except ImportError:
        raise UserError(f'TIFF as INPUT.FORMAT "{RAW}" needs tifffile: pip install tifffile') from None
    return tifffile


def _read_pil(file: BinaryIO) -> np.ndarray:
    _check_png(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # satellite images are this large
        image = ImageOps.exif_transpose(Image.open(file))
    if image.mode in ("P", "PA"):
        raise UserError("a palette image has no channels. Save it as gray or RGB.")
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
