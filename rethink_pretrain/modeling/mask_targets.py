"""Targets of the mask head for the RoIs of all images at once, on their device, pixel by pixel the host's."""

import torch
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
from detectron2.structures import Instances, PolygonMasks
from detectron2.utils.events import get_event_storage
from torch import Tensor
from torch.nn import functional as F

from .rasterize import rasterize_polygons


def mask_loss(logits: Tensor, instances: list[Instances], vis_period: int = 0) -> Tensor:
    """The host's `mask_rcnn_loss` in fp32 with `mask_targets`, a scalar.

    `logits` (R, classes or 1, side, side) for the R instances of all images. Every `vis_period` iterations
    the host's own function draws and computes.
    """
    storage = get_event_storage()
    if vis_period > 0 and storage.iter % vis_period == 0:
        return mask_rcnn_loss(logits.float(), instances, vis_period)
    instances = [each for each in instances if len(each)]
    if not instances:
        return logits.float().sum() * 0
    targets = mask_targets(instances, logits.shape[-1])
    if logits.shape[1] == 1:
        logits = logits[:, 0]
    else:
        classes = torch.cat([each.gt_classes for each in instances]).long()
        logits = logits[torch.arange(len(classes), device=logits.device), classes]
    logits = logits.float()
    loss = F.binary_cross_entropy_with_logits(logits, targets.float())
    for name, value in _statistics(logits.detach() > 0, targets).items():
        storage.put_scalar(f"mask_rcnn/{name}", value)
    return loss


def _statistics(predicted: Tensor, targets: Tensor) -> dict[str, float]:
    # A GPU is waited for once, and not for each number.
    counts = ((predicted != targets).sum(), (targets & ~predicted).sum(), targets.sum())
    wrong, missed, positive = torch.stack(counts).tolist()
    return {
        "accuracy": 1 - wrong / targets.numel(),
        "false_positive": (wrong - missed) / max(targets.numel() - positive, 1),
        "false_negative": missed / max(positive, 1),
    }


def mask_targets(instances: list[Instances], size: int) -> Tensor:
    """`gt_masks` of each instance in its proposal box, bool (R, size, size) on the boxes' device.

    Every image has an instance. Masks other than polygons go through the host's `crop_and_resize`.
    """
    boxes = [each.proposal_boxes.tensor for each in instances]
    masks = [each.gt_masks for each in instances]
    if all(isinstance(each, PolygonMasks) for each in masks):
        polygons = [polygons for each in masks for polygons in each.polygons]
        return rasterize_polygons(polygons, torch.cat(boxes), size)
    return torch.cat([m.crop_and_resize(b, size).to(b.device) for m, b in zip(masks, boxes, strict=True)])
