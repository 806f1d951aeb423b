"""Objects drawn on an image: masks, boxes, keypoints and labels, as an array of pixels."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from pycocotools import mask as mask_util

LEGIBLE = 400  # px of the long side below which labels would hide what they name

# Bright ones without grey, which would vanish on a photograph.
_CATEGORY_COLORS = ("#ff4b4b", "#35c759", "#ffd60a", "#4d8dff", "#ff8c1a", "#c44dff", "#32e0e0", "#ff4dc4")
_CROWD_COLOR = "#ffffff"
_TITLE_COLORS = ("#20242a", "#f2f4f7")  # paper, ink
_GAP = 4  # px
_MASK_OPACITY = 0.35
_MIN_KEYPOINT_SCORE = 0.05  # of a prediction, as in the host's drawings; labelled keypoints have 1 or 2

Skeletons = dict[int, list[list[int]]]


def draw_objects(
    pixels: np.ndarray,
    objects: Iterable[dict],
    names: dict[int, str],
    *,
    skeletons: Skeletons | None = None,
    size: int | None = None,
) -> np.ndarray:
    """`pixels`, uint8 RGB (H, W, 3), with COCO annotations or results drawn on them, scaled to `size`.

    An object is drawn with what it has of "segmentation" (any of COCO's forms), "bbox", "keypoints" and
    "score" (0 to 1); a crowd is hatched in white. `names` and `skeletons` go by category id; a skeleton is
    COCO's list of pairs of keypoint numbers from 1. `size` is the long side in px; None is the image's own,
    but at least `LEGIBLE`.
    """
    height, width = pixels.shape[:2]
    scale = (size or max(LEGIBLE, height, width)) / max(height, width)
    shape = max(1, round(height * scale)), max(1, round(width * scale))
    resample = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    canvas = np.array(Image.fromarray(pixels).resize(shape[::-1], resample))
    # The largest first, so that small objects stay in sight.
    objects = sorted(objects, key=lambda item: -np.prod(item.get("bbox", (0, 0, 0, 0))[2:]))
    for item in objects:
        if item.get("segmentation"):
            mask = Image.fromarray(decode_mask(item["segmentation"], height, width))
            _blend(canvas, np.asarray(mask.resize(shape[::-1], Image.Resampling.NEAREST)) > 0, item)
    image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(image)
    line_width = max(2, round(max(shape) / 300))
    for item in objects:
        _draw_keypoints(pen, item, (skeletons or {}).get(item["category_id"], ()), scale, line_width)
        if "bbox" in item:
            x, y, box_width, box_height = (value * scale for value in item["bbox"])
            corners = np.array((x, y, max(x, x + box_width - 1), max(y, y + box_height - 1)))
            # With a black rim it stands out from any photograph.
            pen.rectangle((*(corners[:2] - 1), *(corners[2:] + 1)), outline="black")
            pen.rectangle(tuple(corners), outline=_color(item), width=line_width)
    for item in objects:
        if "bbox" in item:
            _draw_label(image, item, names, scale)
    return np.asarray(image)


def draw_pair(
    pixels: np.ndarray,
    ground_truth: Iterable[dict],
    predictions: Iterable[dict],
    names: dict[int, str],
    *,
    skeletons: Skeletons | None = None,
    size: int | None = None,
) -> list[np.ndarray]:
    """Ground truth and predictions of one image, each with its title above it; see `draw_objects`."""
    return [
        _with_title(draw_objects(pixels, objects, names, skeletons=skeletons, size=size), title)
        for objects, title in ((ground_truth, "ground truth"), (predictions, "predictions"))
    ]


def draw_comparison(
    pixels: np.ndarray,
    ground_truth: Iterable[dict],
    predictions: Iterable[dict],
    names: dict[int, str],
    *,
    skeletons: Skeletons | None = None,
    size: int | None = None,
) -> np.ndarray:
    """Ground truth beside predictions of one image, uint8 RGB (H', 2 W' + gap, 3); see `draw_objects`."""
    return beside(draw_pair(pixels, ground_truth, predictions, names, skeletons=skeletons, size=size))


def beside(panels: list[np.ndarray]) -> np.ndarray:
    """Images of the same height as one: uint8 RGB (H, sum of W + gaps, 3)."""
    gap = np.full((len(panels[0]), _GAP, 3), ImageColor.getrgb(_TITLE_COLORS[0]), dtype=np.uint8)
    return np.hstack([part for panel in panels for part in (gap, panel)][1:])


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Any H x W x C image as uint8 RGB to look at; what it shows of other images than 8-bit RGB is a choice.

    One or two channels: the first, in grey. More: the first three. Values of other types than uint8 are
    stretched so that their 1st percentile is black and their 99th is white.
    """
    image = image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, axis=2)
    if image.dtype != np.uint8:
        low, high = np.percentile(image, (1, 99))
        image = np.clip((image.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1) * 255
    return np.ascontiguousarray(image.astype(np.uint8))


def decode_mask(segmentation: list | dict, height: int, width: int) -> np.ndarray:
    """Mask of 0 and 1, uint8 (H, W), from polygons, uncompressed RLE or compressed RLE."""
    if isinstance(segmentation, list):
        rle = mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        rle = mask_util.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    return mask_util.decode(rle)


def _color(item: dict) -> tuple[int, ...]:
    if item.get("iscrowd"):
        return ImageColor.getrgb(_CROWD_COLOR)
    return ImageColor.getrgb(_CATEGORY_COLORS[item["category_id"] % len(_CATEGORY_COLORS)])


def _blend(canvas: np.ndarray, mask: np.ndarray, item: dict) -> None:
    """Tint `canvas` in place where `mask` (H, W) is; its rim is opaque, and of a crowd stripes."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    opaque = mask & ~inner
    if item.get("iscrowd"):
        rows, columns = np.indices(mask.shape, sparse=True)
        opaque |= mask & ((rows + columns) % 12 < 2)
    opacity = np.where(opaque, 1.0, mask * _MASK_OPACITY)[mask][:, None]
    canvas[mask] = (1 - opacity) * canvas[mask] + opacity * np.array(_color(item))


def _draw_keypoints(
    pen: ImageDraw.ImageDraw, item: dict, skeleton: Iterable, scale: float, width: int
) -> None:
    """Bones, then joints: filled, or hollow for those labelled as hidden."""
    triples = np.reshape(item.get("keypoints", ()), (-1, 3))
    # COCO's keypoints are pixel indices; the middle of pixel 0 is at 0.5.
    points = [tuple(point) for point in (triples[:, :2] + 0.5) * scale]
    shown = triples[:, 2] > _MIN_KEYPOINT_SCORE
    for start, end in skeleton:
        if max(start, end) <= len(points) and shown[start - 1] and shown[end - 1]:
            pen.line((points[start - 1], points[end - 1]), fill=_color(item), width=width)
    for point, (_, _, visibility), is_shown in zip(points, triples, shown, strict=True):
        if is_shown:
            hidden = visibility == 1 and "score" not in item
            fill, outline = (None, _color(item)) if hidden else (_color(item), "black")
            x, y = point
            corners = (x - 1.6 * width, y - 1.6 * width, x + 1.6 * width, y + 1.6 * width)
            pen.ellipse(corners, fill=fill, outline=outline, width=max(1, width // 2))


def _draw_label(image: Image.Image, item: dict, names: dict[int, str], scale: float) -> None:
    label = "crowd" if item.get("iscrowd") else names.get(item["category_id"], f"class {item['category_id']}")
    if "score" in item:
        label += f" {100 * item['score']:.0f}%"
    x, y = (value * scale for value in item["bbox"][:2])
    pen, font = ImageDraw.Draw(image), _font(max(image.size))
    left, top, right, bottom = pen.textbbox((0, 0), label, font=font, stroke_width=2)
    # Above the box or else inside it, and always inside the picture.
    y = y - bottom if y >= bottom - top else y + 2
    x = max(0, min(x, image.width - right))
    pen.text((x - left, y), label, font=font, fill="white", stroke_width=2, stroke_fill="black")


def _with_title(pixels: np.ndarray, title: str) -> np.ndarray:
    paper, ink = _TITLE_COLORS
    font = _font(max(pixels.shape))
    strip = Image.new("RGB", (pixels.shape[1], round(1.7 * font.size)), paper)
    ImageDraw.Draw(strip).text((6, strip.height / 2), title, font=font, fill=ink, anchor="lm")
    return np.vstack([np.asarray(strip), pixels])


@lru_cache
def _font(long_side: int) -> ImageFont.FreeTypeFont:
    """For an image of this long side, px. Matplotlib brings one of more alphabets than Pillow's own."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(path), max(12, round(long_side / 55)))
