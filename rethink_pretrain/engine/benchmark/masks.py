"""Targets of the mask head: the host's, polygon by polygon, and ours, all RoIs at once."""

from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances, PolygonMasks

from ...modeling.mask_targets import mask_targets
from ..setup import pick_device
from .made import HEIGHT, WIDTH, outlines_of
from .rows import STOCK, speed_row, time_by_turns
from .settings import Settings

_SIDE = 28  # px of a target
_IMAGES = 4
_SAME = 0.999  # of all pixels, at least


def measure_masks(settings: Settings) -> list[dict[str, Any]]:
    """A row: targets of the RoIs of four images. AssertionError where too many pixels are not the host's."""
    device = torch.device(pick_device("auto"))
    instances = [make_instances(settings.mask_rois // _IMAGES, seed, device) for seed in range(_IMAGES)]
    contestants = {"ours": lambda: _finished(mask_targets(instances, _SIDE))}
    facts = {"device": device.type}
    if settings.stock:
        contestants[STOCK] = lambda: _finished(host_targets(instances, _SIDE))
        facts["equal_pixels"] = equal_pixels(instances)
        assert facts["equal_pixels"] >= _SAME, facts
    seconds = time_by_turns(contestants, settings.mask_rounds, warm_up=2)
    rois = sum(len(image) for image in instances)
    bars = {"ours": 5.0} if settings.stock else {}
    return [speed_row(f"mask targets, {rois} RoIs", seconds, work=rois, unit="RoIs/s", bars=bars, **facts)]


def make_instances(number: int, seed: int, device: torch.device) -> Instances:
    """Positive RoIs of an image as the host's RoI heads match them: boxes near their objects."""
    rng = np.random.default_rng(seed)
    objects = outlines_of(rng, 7) * (800 / HEIGHT)
    chosen = objects[rng.integers(0, len(objects), number)]
    low, high = chosen.min(1), chosen.max(1)
    jitter = rng.normal(0, 0.08, (2, number, 2)) * (high - low)
    boxes = np.hstack([low + jitter[0], np.maximum(high + jitter[1], low + jitter[0] + 1)])
    ret = Instances((800, round(WIDTH * 800 / HEIGHT)))
    ret.proposal_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32, device=device))
    ret.gt_masks = PolygonMasks([[outline.ravel()] for outline in chosen])
    ret.gt_classes = torch.zeros(number, dtype=torch.int64, device=device)
    return ret


def host_targets(instances: list[Instances], size: int) -> torch.Tensor:
    """Bool (RoIs, size, size), as the host's `mask_rcnn_loss` has them."""
    device = instances[0].proposal_boxes.device
    return torch.cat(
        [image.gt_masks.crop_and_resize(image.proposal_boxes.tensor, size).to(device) for image in instances]
    )


def equal_pixels(instances: list[Instances]) -> float:
    """The share of pixels in which the host's targets and ours are the same."""
    ours, theirs = mask_targets(instances, _SIDE), host_targets(instances, _SIDE)
    return float(((ours > 0.5) == (theirs > 0.5)).double().mean())


def _finished(targets: torch.Tensor) -> None:
    if targets.is_cuda:
        torch.cuda.synchronize()
