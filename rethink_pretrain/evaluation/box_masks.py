"""Masks from the mask head to RLE, without an image per mask in between."""

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.layers.mask_ops import _do_paste_mask  # the host pastes by it: the same bits
from detectron2.modeling import GeneralizedRCNN, PanopticFPN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances, ROIMasks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

FIELD = "box_masks"  # of Instances: (N, M, M), probabilities within pred_boxes
_THRESHOLD = 0.5  # the host's


def encode_box_masks(masks: torch.Tensor, boxes: Boxes, height: int, width: int) -> list[dict]:
    """COCO's RLE of masks (N, M, M), probabilities within `boxes`, in an image of `height` x `width`.

    On a CPU bit for bit what the host's paste_masks_in_image and pycocotools' encode make of them.
    """
    rles = []
    for mask, box in zip(masks[:, None, None], boxes.tensor[:, None], strict=True):
        pasted, (rows, columns) = _do_paste_mask(mask, box, height, width, skip_empty=True)
        crop = (pasted[0] >= _THRESHOLD).cpu().numpy()
        counts = count_runs(crop, int(rows.start), int(columns.start), height, width)
        rles.append({"size": [height, width], "counts": counts})
    return [mask_util.frPyObjects(rle, height, width) for rle in rles]


def count_runs(crop: np.ndarray, top: int, left: int, height: int, width: int) -> list[int]:
    """Lengths of the runs, column by column, of an empty image into which a boolean `crop` is put.

    They begin with zeros, of which there may be none.
    """
    rows = len(crop)
    if rows < height:  # what is between two columns of the crop is empty
        crop = np.pad(crop, ((0, 1), (0, 0)))
    flat = crop.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    if flat.size and flat[0]:
        changes = np.concatenate([[0], changes])
    column, row = np.divmod(changes, max(len(crop), 1))
    positions = (left + column) * height + top + row
    ends = [height * width]
    if flat.size and flat[-1]:  # only where the crop is as high as the image
        ends = [(left + crop.shape[1]) * height, *ends]
    positions = np.concatenate([[0], positions[positions < height * width], np.unique(ends)])
    return np.diff(positions).tolist()


class WithBoxMasks(nn.Module):
    """An R-CNN that leaves its masks in their boxes, in the field `box_masks` and without `pred_masks`."""

    def __init__(self, model: GeneralizedRCNN):
        super().__init__()
        self.model = model
        self.train(model.training)  # which the host's evaluation restores

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """As the model's in evaluation mode: one {"instances": ...} per image, in the image's own size."""
        results = self.model.inference(batched_inputs, do_postprocess=False)
        return [
            {"instances": _postprocess(instances, image.get("height"), image.get("width"))}
            for instances, image in zip(results, batched_inputs, strict=True)
        ]


def _postprocess(instances: Instances, height: int | None, width: int | None) -> Instances:
    if instances.has("pred_masks"):
        masks = instances.pred_masks
        instances.set(FIELD, masks.tensor if isinstance(masks, ROIMasks) else masks[:, 0])
        instances.remove("pred_masks")
    rows, columns = instances.image_size
    return detector_postprocess(instances, height or rows, width or columns)


def with_box_masks(model: nn.Module) -> nn.Module:
    """`model`, whose masks `RethinkCOCOEvaluator` then encodes itself; as it is where it is no R-CNN."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    # A model with a forward or inference of its own is not looked into, nor are panoptic outputs.
    plain = isinstance(inner, GeneralizedRCNN) and type(inner).forward is GeneralizedRCNN.forward
    masks = plain and not isinstance(inner, PanopticFPN) and getattr(inner.roi_heads, "mask_on", False)
    return WithBoxMasks(inner) if masks else model
