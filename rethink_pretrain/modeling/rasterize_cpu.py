"""`rasterize_polygons` in NumPy, by the rule that modeling/rasterize.py tells.

A CPU is fast with few numbers, a GPU with few steps. Here only lines that cross the middle of a column are
followed, in none but the columns that they cross, and a row of all RoIs at a time turns over the next one.
"""

import numpy as np
import torch

GRID = 5  # points of pycocotools' grid per pixel
# The host divides the side of the target by that of the box: in NumPy 2 by float32, before by float64.
RATIO_DTYPE = np.float32 if isinstance(1 / np.float32(3), np.float32) else np.float64
_CHUNK = 128  # RoIs at once: their arrays stay in the cache


def rasterize_in_numpy(polygons: list[list[np.ndarray]], boxes: np.ndarray, size: int) -> np.ndarray:
    """The inside of each RoI's polygons in its box, bool (R, size, size); `boxes` (R, 4) are float32, px."""
    ret = np.zeros((len(polygons), size, size), dtype=bool)
    for start in range(0, len(polygons), _CHUNK):
        part = slice(start, start + _CHUNK)
        if any(polygons[part]):
            ret[part] = _rasterize(polygons[part], boxes[part], size)
    return ret


def _rasterize(polygons: list[list[np.ndarray]], boxes: np.ndarray, size: int) -> np.ndarray:
    counts = np.fromiter(map(len, polygons), dtype=np.int64, count=len(polygons))
    flat = [polygon for each in polygons for polygon in each]
    lengths = np.fromiter(map(len, flat), dtype=np.int64, count=len(flat)) // 2
    layers, place, slots = _layers(counts)
    polygon = np.repeat(np.arange(len(flat)), lengths)  # of each vertex
    vertices = np.concatenate(flat).reshape(-1, 2)
    points = _to_grid(vertices, boxes.repeat(counts, axis=0), polygon, size)
    width = layers.sum() * size
    cells = torch.from_numpy(_turned_cells(points, lengths, (slots * size)[polygon], width, size))
    turned = np.zeros((size + 1) * width, dtype=np.uint8)
    # Odd stays odd where 256 becomes 0.
    torch.from_numpy(turned).index_add_(0, cells, torch.ones(len(cells), dtype=torch.uint8))
    rows = turned.reshape(size + 1, width)[:size]
    for row in range(1, size):
        rows[row] ^= rows[row - 1]
    inside = rows.reshape(size, -1, size)
    start = layers[0]
    for layer in layers[1:]:
        inside[:, :layer] |= inside[:, start : start + layer]
        start += layer
    return inside.transpose(1, 0, 2)[place] & 1


def _layers(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the polygons of R RoIs, `counts` (R,) each, are scanned: a place for each RoI in the first layer.

    RoIs with more polygons are in front, so that the second polygons are a shorter layer behind it, and so
    on. The lengths of the layers, the places of the RoIs (R,), and for each polygon its place in all layers.
    """
    place = np.empty_like(counts)
    place[np.argsort(-counts, kind="stable")] = np.arange(len(counts))
    layer = np.arange(counts.sum()) - (counts.cumsum() - counts).repeat(counts)
    sizes = np.bincount(layer)
    sizes[0] = len(counts)
    return sizes, place, (sizes.cumsum() - sizes)[layer] + place.repeat(counts)


def _to_grid(vertices: np.ndarray, boxes: np.ndarray, polygon: np.ndarray, size: int) -> np.ndarray:
    """`vertices` (V, 2) in px of the image on the grid of the box of their polygon, whole numbers in float64.

    `boxes` (P, 4) for the polygons, of which `polygon` (V,) are those of the vertices.
    """
    sides = np.maximum((boxes[:, 2:] - boxes[:, :2]).astype(RATIO_DTYPE), RATIO_DTYPE(0.1))
    ret = vertices - boxes[:, :2].astype(np.float64).take(polygon, axis=0)
    ret *= (size / sides).astype(np.float64).take(polygon, axis=0)
    ret *= GRID
    ret += 0.5
    return np.trunc(ret, out=ret)


def _cells(points: np.ndarray, size: int) -> np.ndarray:
    """The first pixel whose middle is not before `points` of the grid, 0 to `size`, int64."""
    ret = points + GRID // 2
    ret *= 1 / GRID  # of a whole number never less than the quotient, and far less than the next one
    return np.minimum(np.maximum(ret, 0, out=ret), size, out=ret).astype(np.int64)


def _turned_cells(
    points: np.ndarray, lengths: np.ndarray, slots: np.ndarray, width: int, size: int
) -> np.ndarray:
    """Indices in (size + 1, width) of the cells that the lines turn over, some of them more than once.

    `points` (V, 2) on the grid, of polygons with `lengths` (P,); `slots` (V,): their polygon's first column.
    """
    following = np.arange(1, len(points) + 1)
    last = lengths.cumsum() - 1
    following[last] = last + 1 - lengths
    columns = _cells(points[:, 0], size)
    crossing = np.flatnonzero(columns != columns[following])
    following = following[crossing]
    start, slots = points.take(crossing, axis=0), slots[crossing]
    way = points.take(following, axis=0) - start
    columns, others = columns[crossing], columns[following]
    first, number = np.minimum(columns, others), np.abs(columns - others)
    wide = np.abs(way[:, 0]) >= np.abs(way[:, 1])
    cells = []
    for axis, lines in enumerate((np.flatnonzero(wide), np.flatnonzero(~wide))):
        edges = [each.take(lines, axis=0) for each in (start, way)]
        times = number[lines]
        slot = slots[lines].repeat(times)
        column = (first[lines] - (times.cumsum() - times)).repeat(times)
        column += np.arange(len(column))
        cells.append(_cells(_upper_ends(*edges, column, times, axis), size) * width + slot + column)
    return np.concatenate(cells)


def _upper_ends(
    start: np.ndarray, way: np.ndarray, column: np.ndarray, times: np.ndarray, axis: int
) -> np.ndarray:
    """The smaller y of the two points of Bresenham's lines between which they cross the middle of `column`.

    Lines from `start` (N, 2) by `way` (N, 2), longer along `axis` than across; each crosses `times` (N,) of
    the columns. The operations and their order are pycocotools', so that float64 rounds the same ties.
    """
    slope = way[:, 1 - axis] / way[:, axis]
    start = start + way * (way[:, axis : axis + 1] < 0)  # lines go right, those steeper than 45 degrees down
    left = column * float(GRID) + GRID // 2
    x, y, slope = (each.repeat(times) for each in (start[:, 0], start[:, 1], slope))
    if axis == 0:
        return np.trunc(y + slope * (left - x + (slope < 0)) + 0.5)
    # Many points are in a column. Of the points around the crossing one, the nearest, is not beyond doubt.
    near = np.rint((left + 0.5 - x) / slope)
    return y + near - 1 + ((x + slope * near + 0.5 >= left + 1) == (slope < 0))
