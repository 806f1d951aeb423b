"""Targets of the mask head for the RoIs of all images at once, on their device, pixel by pixel the host's.

The host rasterises the polygons of one RoI after the other on the CPU, by pycocotools. Its rule: in pixels of
the target, vertices are rounded to a grid of 1/5 px and joined by Bresenham's lines. Where a line goes from
grid column 5c + 2 to 5c + 3, the middle of column c, it turns the pixels of that column over from the row
`_cells` of its upper end on. What is turned over an odd number of times is inside, of any
polygon of the object.
"""

import numpy as np
import torch
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
from detectron2.structures import Instances, PolygonMasks
from detectron2.utils.events import get_event_storage
from torch import Tensor
from torch.nn import functional as F

_GRID = 5  # points of pycocotools' grid per pixel
# The host divides the side of the target by that of the box: in NumPy 2 by float32, before by float64.
_RATIO_DTYPE = torch.float32 if isinstance(1 / np.float32(3), np.float32) else torch.float64


def mask_loss(logits: Tensor, instances: list[Instances], vis_period: int = 0) -> Tensor:
    """The host's `mask_rcnn_loss` in fp32 with `mask_targets`, a scalar.

    `logits` (R, classes or 1, side, side) for the R instances of all images. The statistics go to the event
    storage as tensors. Every `vis_period` iterations the host's own function draws and computes.
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
    for name, value in _statistics(logits.detach() > 0, targets).items():
        storage.put_scalar(f"mask_rcnn/{name}", value)
    return F.binary_cross_entropy_with_logits(logits, targets.float())


def _statistics(predicted: Tensor, targets: Tensor) -> dict[str, Tensor]:
    wrong, positive = (predicted != targets).sum(), targets.sum()
    missed = (targets & ~predicted).sum()
    return {
        "accuracy": 1 - wrong / targets.numel(),
        "false_positive": (wrong - missed) / (targets.numel() - positive).clamp(min=1),
        "false_negative": missed / positive.clamp(min=1),
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
    crops = [m.crop_and_resize(b, size).to(b.device) for m, b in zip(masks, boxes, strict=True)]
    return torch.cat([crop if crop.dtype == torch.bool else crop > 0.5 for crop in crops])


def rasterize_polygons(polygons: list[list[np.ndarray]], boxes: Tensor, size: int) -> Tensor:
    """The inside of each RoI's polygons in its box, bool (R, size, size) on the device of `boxes` (R, 4), px.

    `polygons`: for each RoI those of its object, (x0, y0, x1, y1, ...) in px of the image. RoIs of one object
    share one list, which is read once.
    """
    vertices, first, length, roi, most = _pack(polygons)
    # How many of an object's polygons hold a pixel is counted: more than a byte can count are not to be seen.
    mask = boxes.new_zeros((len(boxes), size * size), dtype=torch.uint8 if most < 256 else torch.int32)
    total = int(length.sum()) + len(roi)
    if len(roi):
        vertices, first, length, roi = (_send(each, boxes.device) for each in (vertices, first, length, roi))
        # One row for each vertex of each polygon of each RoI; the first vertex closes its polygon, once more.
        polygon = torch.repeat_interleave(length + 1, output_size=total)
        behind = (length + 1).cumsum(0)
        vertex = torch.arange(total, device=boxes.device) + _pick(first + length + 1 - behind, polygon)
        vertex[behind - 1] = first
        x, y = (
            _to_grid(_pick(vertices[axis], vertex), boxes[:, axis::2], roi, polygon, size) for axis in (0, 1)
        )
        inside = _scan(x, y, behind[:-1] - 1, polygon, len(roi), size)
        mask.index_add_(0, roi, inside.to(mask.dtype))
    return (mask > 0).view(-1, size, size)


def _pack(polygons: list[list[np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    # The vertices of all objects, (2, V); of each polygon of each RoI the index of its first vertex, their
    # number and its RoI; the most polygons of an object.
    objects = {id(each): each for each in polygons}
    order = dict(zip(objects, range(len(objects)), strict=True))
    object_of = np.fromiter((order[id(each)] for each in polygons), dtype=np.int64, count=len(polygons))
    flat = [polygon for each in objects.values() for polygon in each]
    lengths = np.array([len(polygon) // 2 for polygon in flat], dtype=np.int64)
    counts = np.array([len(each) for each in objects.values()], dtype=np.int64)
    starts, firsts = lengths.cumsum() - lengths, counts.cumsum() - counts
    most, counts, firsts = max(counts, default=0), counts[object_of], firsts[object_of]
    index = np.arange(counts.sum()) + np.repeat(firsts - (counts.cumsum() - counts), counts)
    vertices = np.ascontiguousarray(np.concatenate([*flat, np.empty(0)]).reshape(-1, 2).T)
    return vertices, starts[index], lengths[index], np.repeat(np.arange(len(polygons)), counts), int(most)


def _send(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _pick(values: Tensor, index: Tensor) -> Tensor:
    return values.index_select(0, index)  # on a CPU faster than values[index]


def _to_grid(values: Tensor, ends: Tensor, roi: Tensor, polygon: Tensor, size: int) -> Tensor:
    # One coordinate of the vertices, `ends` (R, 2) of the boxes on its axis. Whole numbers in float64, which
    # is as exact as int and faster, rounded as C's (int) rounds.
    ratio = size / (ends[:, 1] - ends[:, 0]).to(_RATIO_DTYPE).clamp(min=0.1)
    start, ratio = (_pick(each.double()[roi], polygon) for each in (ends[:, 0], ratio))
    return torch.trunc((values - start) * ratio * _GRID + 0.5)


def _cells(points: Tensor, size: int) -> Tensor:
    # The first pixel whose middle is not before `points` of the grid, 0 to `size`.
    return ((points + _GRID // 2) / _GRID).floor().clamp(0, size)


def _scan(x: Tensor, y: Tensor, gaps: Tensor, polygon: Tensor, num_polygons: int, size: int) -> Tensor:
    """Inside of each closed polygon, uint8 0 or 1, (polygons, size * size).

    `x` and `y` (V,): vertices on the grid, of the polygons `polygon`; those at `gaps` are the last of theirs.
    """
    wide = (x[1:] - x[:-1]).abs() >= (y[1:] - y[:-1]).abs()
    # Lines go right, those steeper than 45 degrees down.
    flip = torch.where(wide, x[:-1] > x[1:], y[:-1] > y[1:])
    x0, x1 = torch.where(flip, x[1:], x[:-1]), torch.where(flip, x[:-1], x[1:])
    y0, y1 = torch.where(flip, y[1:], y[:-1]), torch.where(flip, y[:-1], y[1:])
    slope = torch.where(wide, (y1 - y0) / (x1 - x0), (x1 - x0) / (y1 - y0))
    edge, column, crosses = _crossed_columns(x, gaps, size)
    lines = (_pick(each, edge) for each in (x0, y0, slope, wide))
    row = _cells(_upper_end(*lines, column * _GRID + float(_GRID // 2)), size).long()
    cell = (_pick(polygon, edge) * (size + 1) + row) * size + column
    turned = torch.zeros(num_polygons * (size + 1) * size, dtype=torch.uint8, device=x.device)
    turned.index_add_(0, cell, crosses)  # odd stays odd where 256 becomes 0
    turned = turned.view(num_polygons, size + 1, size)[:, :size]
    return turned.cumsum(1, dtype=torch.uint8).bitwise_and_(1).view(num_polygons, -1)


def _crossed_columns(x: Tensor, gaps: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    # Pairs of an edge and a column whose middle it crosses. How many there are a GPU would have to tell the
    # CPU first: it goes through all pairs, and `crosses` (uint8) is 0 where they do not cross.
    cells = _cells(x, size).long()
    first, last = torch.minimum(cells[:-1], cells[1:]), torch.maximum(cells[:-1], cells[1:])
    last[gaps] = first[gaps]
    if x.device.type == "cpu":
        count = last - first
        edge = torch.repeat_interleave(count)
        column = torch.arange(len(edge)) + _pick(first + count - count.cumsum(0), edge)
        return edge, column, torch.ones(len(edge), dtype=torch.uint8)
    columns = torch.arange(size, device=x.device)
    edge = torch.arange(len(first), device=x.device).repeat_interleave(size, output_size=len(first) * size)
    crosses = (columns >= first[:, None]) & (columns < last[:, None])
    return edge, columns.repeat(len(first)), crosses.flatten().to(torch.uint8)


def _upper_end(x0: Tensor, y0: Tensor, slope: Tensor, wide: Tensor, left: Tensor) -> Tensor:
    """The smaller y of the two points of Bresenham's lines between which they leave grid column `left`, (N,).

    The operations and their order are pycocotools', so that float64 rounds the same ties.
    """
    step = left - x0
    low = (y0 + slope * step + 0.5).trunc()
    high = (y0 + slope * (step + 1) + 0.5).trunc()
    # A steep line has many points in a column: its last before the crossing, `near` to within one.
    near = ((step + 0.5) / slope).floor()
    from_right = step < 0

    def before(step: Tensor) -> Tensor:
        return (x0 + slope * step + 0.5 >= left + 1) == from_right

    steep = y0 + near - 1 + before(near).double() + before(near + 1).double()
    return torch.where(wide, torch.minimum(low, high), steep)
