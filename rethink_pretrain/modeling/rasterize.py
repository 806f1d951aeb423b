"""Polygons of many RoIs to masks at once, on their device, pixel by pixel the host's.

The host rasterises the polygons of one RoI after the other on the CPU, by pycocotools. Its rule: in pixels of
the target, vertices are rounded to a grid of 1/5 px and joined by Bresenham's lines. Where a line goes from
grid column 5c + 2 to 5c + 3, the middle of column c, it turns the pixels of that column over from the row
`_cells` of its upper end on. What a polygon turns over an odd number of times is inside of it; what is
inside of any of its polygons is inside of an object.
"""

import numpy as np
import torch
from torch import Tensor

from .rasterize_cpu import GRID, RATIO_DTYPE, rasterize_in_numpy

_RATIO_DTYPE = torch.float32 if RATIO_DTYPE is np.float32 else torch.float64


def rasterize_polygons(polygons: list[list[np.ndarray]], boxes: Tensor, size: int) -> Tensor:
    """The inside of each RoI's polygons in its box, bool (R, size, size) on the device of `boxes` (R, 4), px.

    `polygons`: for each RoI those of its object, (x0, y0, x1, y1, ...) in px of the image.
    """
    if boxes.device.type == "cpu":
        return torch.from_numpy(rasterize_in_numpy(polygons, boxes.detach().float().numpy(), size))
    return rasterize_in_torch(polygons, boxes, size)


def rasterize_in_torch(polygons: list[list[np.ndarray]], boxes: Tensor, size: int) -> Tensor:
    """`rasterize_polygons` by operations of torch alone, none of which a GPU has to finish before the next.

    Where RoIs of one object share one list, as `SharedPolygonMasks` lets them, it is read and sent once.
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
        vertex = torch.arange(total, device=boxes.device) + (first + length + 1 - behind)[polygon]
        vertex[behind - 1] = first
        x, y = (_to_grid(vertices[axis, vertex], boxes[:, axis::2], roi[polygon], size) for axis in (0, 1))
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


def _to_grid(values: Tensor, ends: Tensor, roi: Tensor, size: int) -> Tensor:
    # One coordinate of the vertices of RoIs `roi`, `ends` (R, 2) of the boxes on its axis. Whole numbers in
    # float64, rounded as C's (int) rounds.
    side = (ends[:, 1] - ends[:, 0]).to(_RATIO_DTYPE).clamp(min=0.1)
    ratio = torch.full_like(side, size) / side  # size / side is size * (1 / side) in torch, and rounds twice
    return torch.trunc((values - ends[roi, 0].double()) * ratio.double()[roi] * GRID + 0.5)


def _cells(points: Tensor, size: int) -> Tensor:
    # The first pixel whose middle is not before `points` of the grid, 0 to `size`.
    return ((points + GRID // 2) / GRID).floor().clamp(0, size)


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
    slope.nan_to_num_(0.0)  # of lines without length, whose row would be none
    # All pairs of an edge and a column: how many of them cross a GPU would have to tell the CPU first.
    columns = torch.arange(size, device=x.device)
    cells = _cells(x, size)
    first, last = torch.minimum(cells[:-1], cells[1:]), torch.maximum(cells[:-1], cells[1:])
    last[gaps] = first[gaps]
    crosses = (columns >= first[:, None]) & (columns < last[:, None])
    lines = (each[:, None] for each in (x0, y0, slope, wide))
    row = _cells(_upper_ends(*lines, columns * float(GRID) + GRID // 2), size).long()
    cell = (polygon[:-1, None] * (size + 1) + row) * size + columns
    turned = torch.zeros(num_polygons * (size + 1) * size, dtype=torch.uint8, device=x.device)
    # Odd stays odd where 256 becomes 0.
    turned.index_add_(0, cell.flatten(), crosses.flatten().to(torch.uint8))
    turned = turned.view(num_polygons, size + 1, size)[:, :size]
    return turned.cumsum(1, dtype=torch.uint8).bitwise_and_(1).view(num_polygons, -1)


def _upper_ends(x0: Tensor, y0: Tensor, slope: Tensor, wide: Tensor, left: Tensor) -> Tensor:
    """The smaller y of the two points of Bresenham's lines between which they leave grid column `left`.

    (lines, columns), of lines (lines, 1) and columns (columns,). The operations and their order are
    pycocotools', so that float64 rounds the same ties.
    """
    right = left - x0
    flat = (y0 + slope * (right + (slope < 0)) + 0.5).trunc()
    # A steep line has many points in a column. Of those around the crossing, the nearest is not beyond doubt.
    near = ((right + 0.5) / slope).round()
    steep = y0 + near - 1 + ((x0 + slope * near + 0.5 >= left + 1) == (slope < 0))
    return torch.where(wide, flat, steep)
