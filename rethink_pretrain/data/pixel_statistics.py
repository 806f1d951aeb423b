"""Mean and standard deviation of each channel over the pixels of a sample of images."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from detectron2.data import DatasetCatalog

from ..errors import UserError
from .confine import Confinement
from .datasets import check_datasets, register_named
from .datasets.register import image_id
from .images import RAW, read_image, read_stored


class PixelMoments:
    """Count, mean and sum of squared deviations per channel, merged image by image in float64.

    Merging by Chan, Golub and LeVeque ("Updating formulae and a pairwise algorithm for computing sample
    variances", 1979): no difference of large sums, so 16-bit values lose nothing.
    """

    def __init__(self, channels: int):
        self.count = 0
        self.mean = np.zeros(channels)
        self._squares = np.zeros(channels)

    def add(self, image: np.ndarray) -> None:
        """`image`: H x W x C, of any real type."""
        pixels = image.reshape(-1, image.shape[2]).astype(np.float64)
        count, mean = len(pixels), pixels.mean(axis=0)
        total, shift = self.count + count, mean - self.mean
        self._squares += ((pixels - mean) ** 2).sum(axis=0) + shift**2 * self.count * count / total
        self.mean += shift * count / total
        self.count = total

    @property
    def std(self) -> np.ndarray:
        """Of the population: divided by the count."""
        return np.sqrt(self._squares / self.count)


class PixelStatistics(NamedTuple):
    """In the values of the files, channels in the order of the format; a large image weighs more."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_images: int
    num_pixels: int
    types: tuple[str, ...]  # what the files store, such as ("uint16", "uint8")


def sample_files(files: dict[int | str, str], num_images: int, seed: int) -> list[str]:
    """At most `num_images` of `files` (image id -> path), drawn without replacement over the sorted ids."""
    if num_images < 1:
        raise UserError(f"The number of images to measure has to be 1 or more, not {num_images}.")
    ids = sorted(files)
    if len(ids) > num_images:
        chosen = np.random.default_rng(seed).choice(len(ids), size=num_images, replace=False)
        ids = [ids[index] for index in sorted(chosen)]
    return [files[image_id] for image_id in ids]


def measure_pixels(files: Iterable[str], image_format: str) -> PixelStatistics:
    """Statistics over all pixels of `files`, at their original size.

    Raises `UserError` without files, and where the files differ in their number of channels.
    """
    num_images, moments, types = 0, None, set()
    for path in files:
        image = read_stored(path) if image_format == RAW else read_image(path, image_format)
        moments = moments or PixelMoments(image.shape[2])
        if image.shape[2] != len(moments.mean):
            raise UserError(
                f"{path}: {image.shape[2]} channels, but the images before it have {len(moments.mean)}. "
                "Give all images the same channels, or read them as BGR."
            )
        moments.add(image)
        types.add(image.dtype.name)
        num_images += 1
    if not num_images:
        raise UserError("There are no images to measure.")
    mean, std = (tuple(values.tolist()) for values in (moments.mean, moments.std))
    return PixelStatistics(mean, std, num_images, moments.count, tuple(sorted(types)))


def list_images_of_json(json_file: str | Path, image_root: str | Path) -> dict[int | str, str]:
    """Image id -> path of the images that a COCO-format file lists."""
    try:
        images, folder = json.loads(Path(json_file).read_bytes())["images"], Confinement(image_root)
        return {image["id"]: str(folder.path(image["file_name"])) for image in images}
    except UserError as error:
        raise UserError(f"{json_file}: {error}.") from None
    except OSError as error:
        raise UserError(f"Cannot read {json_file}: {error.strerror}.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{json_file} is not in COCO\'s format: "images" has to list "id" and "file_name" ({error!r}).'
        ) from None


def list_images_of_dataset(name: str) -> dict[int | str, str]:
    """Image id -> path of a registered data set, of the toy set, or of a subset such as `toy_train@1k`."""
    register_named([name])
    check_datasets([name])
    return {image_id(record): record["file_name"] for record in DatasetCatalog.get(name)}
