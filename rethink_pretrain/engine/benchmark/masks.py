"""Targets of the mask head: the host's, polygon by polygon, and ours, all RoIs at once."""

import math
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from ...data.polygons import SharedPolygonMasks
from ...modeling.mask_targets import mask_targets
from ..setup import pick_device
from .made import HEIGHT, OBJECTS, WIDTH
from .rows import STOCK, speed_row, time_by_turns
from .settings import Settings

_SIDE = 28  # px of a target
_IMAGES = 4
_SHORT_SIDE = 800  # px of an image
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
    """Positive RoIs of an image as the host's RoI heads match them: boxes near the objects that they show."""
    rng = np.random.default_rng(seed)
    scale = _SHORT_SIDE / HEIGHT
    objects = [[outline * scale for outline in _object(rng)] for _ in range(OBJECTS)]
    corners = np.array([[np.vstack(each).min(0), np.vstack(each).max(0)] for each in objects])
    owner = rng.integers(0, OBJECTS, number)
    low, high = corners[owner].transpose(1, 0, 2)
    jitter = rng.normal(0, 0.08, (2, number, 2)) * (high - low)
    boxes = np.hstack([low + jitter[0], np.maximum(high + jitter[1], low + jitter[0] + 1)])
    ret = Instances((_SHORT_SIDE, round(WIDTH * scale)))
    ret.proposal_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32, device=device))
    masks = SharedPolygonMasks([[outline.ravel() for outline in each] for each in objects])
    ret.gt_masks = masks[owner.tolist()]  # what our mapper and the host's heads make of them
    ret.gt_classes = torch.zeros(number, dtype=torch.int64, device=device)
    return ret


def _object(rng: np.random.Generator) -> list[np.ndarray]:
    """Star-shaped polygons, (points, 2) each in px of the image, x and y to 0.01 px.

    1 to 3 of them, 2.2 on average, of 10 to 80 points: an object that others cover in part, as many in COCO.
    """
    # Log-uniform sizes: small, medium and large objects are all there.
    radius = np.exp(rng.uniform(math.log(16), math.log(200)))
    center = rng.uniform((0, 0), (WIDTH, HEIGHT))
    outlines = []
    for _ in range(rng.choice((1, 2, 3), p=(0.2, 0.4, 0.4))):
        middle = center + rng.uniform(-0.5, 0.5, 2) * radius
        angle = np.linspace(0, 2 * np.pi, rng.integers(10, 81), endpoint=False)
        reach = rng.uniform(0.3, 0.7) * radius * rng.uniform(0.8, 1.0, len(angle))
        points = middle + reach[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1)
        outlines.append(np.round(np.clip(points, 0, (WIDTH, HEIGHT)), 2))
    return outlines


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
