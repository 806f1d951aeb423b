"""Images in less time than through PIL: JPEG by libjpeg-turbo, resizing by torchvision, flips by torch.

JPEG gives PIL's pixels, and resizing is within 1 grey level of PIL's; whatever these cannot do, PIL does.
"""

from typing import BinaryIO

import numpy as np
import simplejpeg
import torch
from detectron2.data import transforms as T
from PIL import Image
from torchvision.transforms.v2 import functional

_FORMATS = ("RGB", "BGR")
_ORIENTATION = 274  # EXIF's tag
_OVERHEAD = 2**20  # bytes of a file beyond its pixels: a larger one is not read whole


def decode_jpeg(file: BinaryIO, image: Image.Image, image_format: str) -> np.ndarray | None:
    """The H x W x 3 uint8 pixels of `file`, of which `image` is the header; None where PIL has to decode it.

    That is all but upright RGB JPEG without a flaw: PIL knows which flaws can be lived with.
    """
    upright_rgb = image.format == "JPEG" and image.mode == "RGB" and not _is_turned(image)
    if image_format not in _FORMATS or not upright_rgb:
        return None
    limit = 3 * image.width * image.height + _OVERHEAD
    file.seek(0)
    content = file.read(limit + 1)
    if len(content) > limit:
        return None
    try:
        if simplejpeg.decode_jpeg_header(content)[:2] != (image.height, image.width):
            return None  # two headers: only PIL's was checked
        return simplejpeg.decode_jpeg(content, image_format, strict=True)
    except ValueError:
        return None


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # broken EXIF raises errors of every kind
        return True


class FastAugInput(T.AugInput):
    """The host's, whose image is resized and flipped by torch; labels and boxes go the host's way."""

    def transform(self, tfm: T.Transform) -> None:
        """In place, as in the host."""
        super().transform(_faster(tfm))


class _Resize(T.ResizeTransform):
    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """H x W x 3 uint8 by torchvision, bilinear with antialiasing; everything else as in the host."""
        interp = self.interp if interp is None else interp
        if img.dtype != np.uint8 or img.shape[2:] != (3,) or interp != Image.BILINEAR:
            return super().apply_image(img, interp)
        assert img.shape[:2] == (self.h, self.w)
        # The kernel of uint8 is fast where channels stand last in memory, as they do here.
        pixels = torch.from_numpy(np.require(img, requirements="CW")).permute(2, 0, 1)
        resized = functional.resize(pixels, [self.new_h, self.new_w], antialias=True)
        return resized.permute(1, 2, 0).numpy()


class _HFlip(T.HFlipTransform):
    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """H x W x C. A copy without negative strides, which would slow down the next step."""
        pixels = torch.from_numpy(np.require(img, requirements="CW"))
        return torch.flip(pixels, [1]).numpy()


def _faster(tfm: T.Transform) -> T.Transform:
    if isinstance(tfm, T.TransformList):
        return T.TransformList([_faster(each) for each in tfm.transforms])
    if type(tfm) is T.ResizeTransform:
        return _Resize(tfm.h, tfm.w, tfm.new_h, tfm.new_w, tfm.interp)
    return _HFlip(tfm.width) if type(tfm) is T.HFlipTransform else tfm
