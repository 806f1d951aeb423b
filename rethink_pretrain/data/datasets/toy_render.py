"""Pictures of toy objects: eight categories made of four shapes and four textures.

Every texture is worn by two shapes and every shape wears two textures, so neither names the category alone: a
category's texture carries information that its shape does not. A classifier pre-trained on single objects
therefore has something to teach a detector, which is what the toy experiments compare with random weights.
Colours are drawn at random and carry no information.

Coordinates are (x, y) in px, y downwards; the centre of the first pixel is (0.5, 0.5). Colours are RGB of
0..255. Nothing here knows about datasets: a detection scene and a single-object picture are painted with the
same calls.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

Field = np.ndarray  # float32 (H, W)

MASK_SUPERSAMPLING = 8
MIN_LUMINANCE_CONTRAST = 80.0
MIN_BACKGROUND_DISTANCE = 70.0
LUMINANCE = np.array([0.299, 0.587, 0.114])
SENSOR_NOISE = 3.0


def _regular(points: int, radius: float, start: float = 0.0) -> np.ndarray:
    angles = 2 * np.pi * np.arange(points) / points + start
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star(points: int, radius: float, inner: float) -> np.ndarray:
    outline = _regular(2 * points, radius)
    outline[1::2] *= inner
    return outline


# Unit outlines (P, 2) around the origin, scaled so that objects of one `size` look about equally large.
SHAPES: dict[str, np.ndarray] = {
    "disc": _regular(36, 0.5),
    "square": _regular(4, 0.6),
    "triangle": _regular(3, 0.65),
    "star": _star(5, 0.62, 0.45),
}


def _stripe_distance(u: np.ndarray, period: float) -> np.ndarray:
    """Signed distance (px) to the nearest stripe edge; positive inside the stripes, half of the plane."""
    return period * (0.25 - np.abs((u / period) % 1.0 - 0.5))


def _striped(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    return _stripe_distance(u, period) + 0.5


def _ringed(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    return 0.28 * period - np.hypot(u, v) + 0.5


def _shaded(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    return u / period + 0.5


def _checked(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    du, dv = _stripe_distance(u, period), _stripe_distance(v, period)
    return np.sign(du * dv) * np.minimum(np.abs(du), np.abs(dv)) + 0.5


@dataclasses.dataclass(frozen=True)
class Texture:
    """How two colours share a surface.

    `pattern(u, v, period)` takes surface coordinates in px and returns the second colour's share, to be
    clipped to 0..1; its edges are 1 px soft, which stands in for antialiasing. The period is `period` times
    the object's size, but at least `min_period` px, below which the pattern would drown in the pixel grid.
    A `centred` pattern fits its object only in the middle of it; the others start at a random phase.
    """

    pattern: Callable[[np.ndarray, np.ndarray, float], np.ndarray]
    period: float
    min_period: float
    centred: bool = False


TEXTURES: dict[str, Texture] = {
    "striped": Texture(_striped, period=0.24, min_period=4.0),
    "ringed": Texture(_ringed, period=1.0, min_period=4.0, centred=True),
    "shaded": Texture(_shaded, period=1.0, min_period=4.0, centred=True),
    "checked": Texture(_checked, period=0.55, min_period=6.0),
}


def _latin_square() -> list[dict]:
    """Shape s wears textures s and s + 1 (mod 4)."""
    textures = list(TEXTURES)
    pairs = [(shape, textures[(s + k) % len(textures)]) for s, shape in enumerate(SHAPES) for k in (0, 1)]
    return [
        {"id": i, "name": f"{texture} {shape}", "supercategory": shape}
        for i, (shape, texture) in enumerate(pairs, start=1)
    ]


CATEGORIES: list[dict] = _latin_square()
"""COCO's `categories`: ids 1..8, the name is "<texture> <shape>", the supercategory is the shape."""


@dataclasses.dataclass(frozen=True)
class ToyObject:
    """One object, ready to be drawn. `outline` is its full silhouette, whatever lies in front of it."""

    category_id: int
    center: np.ndarray  # (2,) px
    size: float  # px, the diameter of a disc of this size
    outline: np.ndarray  # (P, 2) px
    colors: np.ndarray  # (2, 3)
    texture_angle: float  # rad
    texture_phase: np.ndarray  # (2,) px

    @property
    def texture(self) -> str:
        """The name of its texture in `TEXTURES`."""
        return CATEGORIES[self.category_id - 1]["name"].split()[0]

    def moved(self, shift: np.ndarray) -> "ToyObject":
        """The same object `shift` (2,) px further."""
        return dataclasses.replace(self, center=self.center + shift, outline=self.outline + shift)


def sample_colors(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
    """Two random colours (2, 3), contrasting in luminance, that both differ from `background` (3,)."""
    pairs = rng.uniform(15, 240, size=(24, 2, 3))
    contrast = np.abs(((pairs[:, 0] - pairs[:, 1]) * LUMINANCE).sum(axis=1))
    # Their mixture too must not vanish: it is the middle of a ramp, and what is left of fine textures.
    colors = np.concatenate([pairs, pairs.mean(axis=1, keepdims=True)], axis=1)
    distance = np.sqrt(((colors - background) ** 2).sum(axis=2)).min(axis=1)
    quality = np.minimum(contrast / MIN_LUMINANCE_CONTRAST, distance / MIN_BACKGROUND_DISTANCE)
    # The first pair that is good enough; all good ones count as equal (argmax of the capped quality).
    return pairs[np.argmax(np.minimum(quality, 1.0))]


def sample_object(
    rng: np.random.Generator, category_id: int, center: np.ndarray, size: float, background: np.ndarray
) -> ToyObject:
    """An object of category 1..8 at `center` (2,) px with random rotation, aspect, colours and texture phase.

    `size` is in px; `background` (3,) is the mean colour that the object should stand out from.
    """
    stretch = np.exp(rng.uniform(-0.14, 0.14))
    angle, texture_angle = rng.uniform(0, 2 * np.pi, size=2)
    x, y = (SHAPES[CATEGORIES[category_id - 1]["supercategory"]] * size).T * [[stretch], [1 / stretch]]
    cos, sin = np.cos(angle), np.sin(angle)
    outline = np.stack([cos * x - sin * y, sin * x + cos * y], axis=1) + center
    phase = rng.uniform(0, size, size=2)
    colors = sample_colors(rng, background)
    return ToyObject(category_id, np.asarray(center), size, outline, colors, texture_angle, phase)


def coverage(outline: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> Field:
    """Share 0..1 of every pixel of the window [x0, x1) x [y0, y1) that `outline` (P, 2) covers."""
    scale = MASK_SUPERSAMPLING
    mask = Image.new("L", ((x1 - x0) * scale, (y1 - y0) * scale))
    # PIL's integer coordinates are pixel centres, ours are pixel corners: hence the half.
    points = np.rint((outline - (x0, y0)) * scale - 0.5)
    ImageDraw.Draw(mask).polygon(points.ravel().tolist(), fill=255)
    return np.asarray(mask.reduce(scale), dtype=np.float32) / 255


def window(outline: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """The smallest window x0, y0, x1, y1 (px, half open) around `outline` in the image; may be empty."""
    x0, y0 = np.maximum(np.floor(outline.min(axis=0)), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(outline.max(axis=0)), (width, height)).astype(int)
    return int(x0), int(y0), int(x1), int(y1)


def draw_object(canvas: np.ndarray, obj: ToyObject) -> tuple[tuple[int, int, int, int], Field]:
    """Paint `obj` over `canvas`, float32 (H, W, 3) of 0..255, in place.

    Returns the object's window x0, y0, x1, y1 and the share of each of its pixels that was painted.
    """
    x0, y0, x1, y1 = window(obj.outline, *canvas.shape[:2])
    if x0 >= x1 or y0 >= y1:
        return (0, 0, 0, 0), np.zeros((0, 0), dtype=np.float32)
    texture = TEXTURES[obj.texture]
    x = (np.arange(x0, x1, dtype=np.float32) + 0.5 - np.float32(obj.center[0]))[None, :]
    y = (np.arange(y0, y1, dtype=np.float32) + 0.5 - np.float32(obj.center[1]))[:, None]
    cos, sin = np.float32(np.cos(obj.texture_angle)), np.float32(np.sin(obj.texture_angle))
    phase = np.zeros(2) if texture.centred else obj.texture_phase
    u, v = cos * x + sin * y + np.float32(phase[0]), cos * y - sin * x + np.float32(phase[1])
    period = max(texture.period * obj.size, texture.min_period)
    share = np.clip(texture.pattern(u, v, period), 0, 1)[..., None]
    first, second = obj.colors.astype(np.float32)
    patch = canvas[y0:y1, x0:x1]
    painted = coverage(obj.outline, x0, y0, x1, y1)
    patch += painted[..., None] * (first + share * (second - first) - patch)
    return (x0, y0, x1, y1), painted


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """x (1, W) and y (H, 1) in units of the long side, 0 in the middle."""
    long_side = max(height, width)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / long_side
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / long_side
    return x[None, :], y[:, None]


def _smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> Field:
    """Noise of -1..1 whose spots measure about a `cells`-th of the image."""
    coarse = rng.uniform(-1, 1, size=(cells, cells)).astype(np.float32)
    return np.clip(
        np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)), -1, 1
    )


def _gradient(rng: np.random.Generator, height: int, width: int) -> Field:
    x, y = _grid(height, width)
    angle = rng.uniform(0, 2 * np.pi)
    return np.float32(1.6 * np.cos(angle)) * x + np.float32(1.6 * np.sin(angle)) * y


def _clouds(rng: np.random.Generator, height: int, width: int) -> Field:
    return 0.6 * _smooth_noise(rng, height, width, 5) + 0.4 * _smooth_noise(rng, height, width, 11)


def _grain(rng: np.random.Generator, height: int, width: int) -> Field:
    return _smooth_noise(rng, height, width, int(rng.integers(24, 48)))


def _faint_stripes(rng: np.random.Generator, height: int, width: int) -> Field:
    x, y = _grid(height, width)
    angle, waves = rng.uniform(0, 2 * np.pi), rng.uniform(4, 14)
    u = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    return np.sin(np.float32(2 * np.pi * waves) * u)


def _blobs(rng: np.random.Generator, height: int, width: int) -> Field:
    x, y = _grid(height, width)
    field = np.zeros((height, width), dtype=np.float32)
    for _ in range(int(rng.integers(3, 8))):
        cx, cy, radius = (
            np.float32(rng.uniform(*limits)) for limits in ((-0.5, 0.5), (-0.5, 0.5), (0.04, 0.18))
        )
        field += (
            np.float32(rng.choice((-1, 1)))
            * np.exp(-((x - cx) ** 2) / radius**2)
            * np.exp(-((y - cy) ** 2) / radius**2)
        )
    return np.clip(field, -1, 1)


BACKGROUNDS: dict[str, Callable[[np.random.Generator, int, int], Field]] = {
    "gradient": _gradient,
    "clouds": _clouds,
    "grain": _grain,
    "stripes": _faint_stripes,
    "blobs": _blobs,
}


def sample_background(
    rng: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """A textured, low-contrast canvas, float32 (H, W, 3) of 0..255, its mean colour (3,), and its kind."""
    base = rng.uniform(50, 205, size=3)
    tint = rng.uniform(0.5, 1.0, size=3) * rng.uniform(8, 20)
    kind = str(rng.choice(list(BACKGROUNDS)))
    field = BACKGROUNDS[kind](rng, height, width)
    return base.astype(np.float32) + field[..., None] * tint.astype(np.float32), base, kind


def finish(rng: np.random.Generator, canvas: np.ndarray) -> Image.Image:
    """The canvas, float32 (H, W, 3), with a little sensor noise, as an 8-bit RGB image."""
    noisy = canvas + np.float32(SENSOR_NOISE) * rng.standard_normal(canvas.shape, dtype=np.float32)
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))
