"""From a labelled picture to a classifier's input: a random crop in training, the middle in testing."""

from typing import Any

import torch
from detectron2.config import CfgNode
from torchvision.transforms import v2

from .images import MAX_PIXELS, RAW, read_image

_MIDDLE = 0.875  # side of the crop as a share of the short side, as for 224 of 256 px


class ClassificationMapper:
    """Records of "file_name" and "label" get an "image", C x `size` x `size`, in the file's own range.

    In training a crop of `min_area` to all of the picture, of aspect 3:4 to 4:3, flipped in half of the
    cases; draws come from torch's generator. `UserError` for a file that cannot be read.
    """

    def __init__(
        self,
        is_train: bool,
        *,
        size: int,
        min_area: float,
        image_format: str,
        num_channels: int,
        max_pixels: int = MAX_PIXELS,
        fast_images: bool = False,
    ):
        """`size` in px; the rest as for `read_image`."""
        crop = v2.RandomResizedCrop(size, scale=(min_area, 1.0), antialias=True)
        middle = [v2.Resize(round(size / _MIDDLE), antialias=True), v2.CenterCrop(size)]
        self._transform = v2.Compose([crop, v2.RandomHorizontalFlip()] if is_train else middle)
        self._read = (image_format, num_channels if image_format == RAW else None, max_pixels, fast_images)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> "ClassificationMapper":
        """By `cfg.RETHINK.CLASSIFIER` and the keys that the detector's mapper goes by."""
        return cls(
            is_train,
            size=cfg.RETHINK.CLASSIFIER.IMAGE_SIZE,
            min_area=cfg.RETHINK.CLASSIFIER.MIN_AREA,
            image_format=cfg.INPUT.FORMAT,
            num_channels=len(cfg.MODEL.PIXEL_MEAN),
            max_pixels=cfg.RETHINK.MAX_IMAGE_PIXELS,
            fast_images=cfg.RETHINK.SPEED.FAST_IMAGES,
        )

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        """A new record; the old one is left as it is."""
        image = torch.from_numpy(read_image(record["file_name"], *self._read).transpose(2, 0, 1).copy())
        return {**record, "image": self._transform(image)}
