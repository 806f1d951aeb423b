"""Masks from the mask head to RLE, without an image per mask in between."""

from collections.abc import Iterator

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.modeling import GeneralizedRCNN, PanopticFPN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances, ROIMasks
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

FIELD = "box_masks"  # of Instances: (N, M, M), probabilities within pred_boxes
_THRESHOLD = 0.5  # the host's
_TILE = 512  # px of one mask that are sampled in a row; more would be sampled in vain, fewer copy more masks
_AT_ONCE = 1 << 20  # px, of all masks that are sampled by one call: 20 MB
_OUTSIDE = 3.0  # a place, in units where a mask is from -1 to 1, at which it is 0


def encode_box_masks(masks: torch.Tensor, boxes: Boxes, height: int, width: int) -> list[dict]:
    """COCO's RLE of masks (N, M, M), probabilities within `boxes`, in an image of `height` x `width`.

    On a CPU bit for bit what the host's paste_masks_in_image and pycocotools' encode make of them. The
    pixels near all boxes are sampled together, column by column, because the host's dozen calls per mask
    take longer than their arithmetic.
    """
    masks = masks if masks.dtype.is_floating_point else masks.float()
    corners = boxes.tensor.float().cpu().numpy()
    # The pixels that the host looks at: those of the box, and one beyond on each side.
    start = np.maximum(np.floor(corners[:, :2]) - 1, 0).astype(np.int64)
    end = np.minimum(np.ceil(corners[:, 2:]) + 1, (width, height)).astype(np.int64)
    size = np.maximum(end - start, 0)
    rles = []
    for part in _in_parts((size[:, 0] * (size[:, 1] + 1)).tolist()):
        for counts in _count_runs(masks[part], corners[part], start[part], size[part], height, width):
            rles.append({"size": [height, width], "counts": counts})
    return [mask_util.frPyObjects(rle, height, width) for rle in rles]


def _in_parts(areas: list[int]) -> Iterator[slice]:
    """Consecutive masks that have at most `_AT_ONCE` px together, or one that has more alone."""
    first = total = 0
    for index, area in enumerate(areas):
        if total and total + area > _AT_ONCE:
            yield slice(first, index)
            first, total = index, 0
        total += area
    if areas:
        yield slice(first, len(areas))


def _count_runs(
    masks: torch.Tensor, corners: np.ndarray, start: np.ndarray, size: np.ndarray, height: int, width: int
) -> list[np.ndarray]:
    """Lengths of the runs of each mask, column by column, which begin with zeros. See `_lay_out`."""
    left, top = start.T
    rows = size[:, 1]
    grid, first = _lay_out(corners, start, size)
    positions = owners = np.zeros(0, dtype=np.int64)
    if len(grid):
        tiles = np.diff(np.append(first, len(grid))) // _TILE
        repeated = masks[:, None].repeat_interleave(torch.as_tensor(tiles, device=masks.device), dim=0)
        places = torch.from_numpy(grid).to(masks).view(-1, 1, _TILE, 2)
        sampled = F.grid_sample(repeated, places, align_corners=False)
        inside = (sampled >= _THRESHOLD).flatten().cpu().numpy()
        # Runs begin and end by turns, and all in their own column, behind which a place outside stands.
        changes = np.flatnonzero(np.diff(inside, prepend=False))
        owners = np.searchsorted(first, changes, side="right") - 1
        column, row = np.divmod(changes - first[owners], rows[owners] + 1)
        positions = (left[owners] + column) * height + top[owners] + row
        # Where a box is as high as the image, a run goes on in the next column.
        goes_on = (positions[1:-1:2] == positions[2::2]) & (owners[1:-1:2] == owners[2::2])
        kept = ~np.pad(goes_on.repeat(2), 1) if len(positions) else slice(None)
        positions, owners = positions[kept], owners[kept]
    each = np.split(positions, np.searchsorted(owners, np.arange(1, len(masks))))
    ends = [[height * width] if not len(p) or p[-1] < height * width else [] for p in each]
    return [np.diff(np.concatenate([[0], p, end])) for p, end in zip(each, ends, strict=True)]


def _lay_out(corners: np.ndarray, start: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels are in their masks: (P, 2), x and y, -1 to 1; and the first of each mask, (N,).

    `corners` are boxes in px, float32 (N, 4); `start` and `size` are x and y of their pixels, (N, 2). Behind
    each column, and up to a multiple of `_TILE` behind each mask, are places outside of it.
    """
    areas = size[:, 0] * (size[:, 1] + 1)
    lengths = -(-areas // _TILE) * _TILE
    first = np.cumsum(lengths) - lengths
    grid = np.full((lengths.sum(), 2), _OUTSIDE, dtype=np.float32)
    half = np.float32(0.5)
    for corner, (left, top), (columns, rows), begin in zip(corners, start, size, first, strict=True):
        x0, y0, x1, y1 = corner
        # The host's arithmetic, in its order, for the same bits.
        x = (np.arange(left, left + columns, dtype=np.float32) + half - x0) / (x1 - x0) * 2 - 1
        y = (np.arange(top, top + rows, dtype=np.float32) + half - y0) / (y1 - y0) * 2 - 1
        places = grid[begin : begin + columns * (rows + 1)].reshape(columns, rows + 1, 2)
        places[:, :rows, 0] = x[:, None]
        places[:, :rows, 1] = y
    return grid, first


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
    plain = isinstance(inner, GeneralizedRCNN) and all(
        getattr(type(inner), name) is getattr(GeneralizedRCNN, name) for name in ("forward", "inference")
    )
    masks = plain and not isinstance(inner, PanopticFPN) and getattr(inner.roi_heads, "mask_on", False)
    return WithBoxMasks(inner) if masks else model
