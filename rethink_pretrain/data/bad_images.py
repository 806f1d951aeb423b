"""Training images that cannot be used: which others stand in for them, and when there are too many."""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import UserError
from .sampler import derive_seed

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 10  # images that are tried for one place in a batch

_REPLACEMENT = 2  # what a derived seed is for, beside those of sampler.py
_ALWAYS_ALLOWED = 3  # one percent of a small set is less than one image


class BadImage(NamedTuple):
    """An image of the training set, and in one line why it cannot be used."""

    image_id: int | str
    file_name: str
    reason: str


def describe_bad(record: dict[str, Any], error: UserError) -> BadImage:
    """Of the host's `record`; sets without image ids go by their file names."""
    file_name = str(record["file_name"])
    return BadImage(record.get("image_id", file_name), file_name, str(error))


def replacement(seed: int, position: int, attempt: int, num_images: int) -> int:
    """The index of the image to try next at `position` of a run, after `attempt` >= 1 bad ones."""
    return derive_seed(seed, _REPLACEMENT, position, attempt) % num_images


class BadImages:
    """Counts the different bad images of a run, and logs each of them once.

    on_new: called with every `BadImage` when it is met for the first time.
    """

    def __init__(self, num_images: int, max_share: float):
        """More than `max_share` of `num_images`, and more than 3, raise `UserError`; with 0 the first one."""
        self._num_images, self._max_share = num_images, max_share
        self._allowed = max(_ALWAYS_ALLOWED, int(max_share * num_images + 1e-9)) if max_share else 0
        self._seen: set[tuple[int | str, str]] = set()
        self.on_new: Callable[[BadImage], None] | None = None

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, bad: BadImage) -> None:
        """Raises `UserError` when there are too many."""
        key = (bad.image_id, bad.file_name)
        if key in self._seen:
            return
        self._seen.add(key)
        logger.warning("Another image is trained on in place of image %s. %s", bad.image_id, bad.reason)
        if self.on_new is not None:
            self.on_new(bad)
        if len(self) > self._allowed:
            raise UserError(
                f"{len(self)} of {self._num_images} training images cannot be used, more than "
                f"RETHINK.MAX_BAD_IMAGES {self._max_share:g} allows. tools/validate_dataset.py finds them "
                f"all. The last: {bad.reason}"
            )
