"""What to show of a data set, and of the mistakes of a detector, as sections of a page."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure

from .detection_errors import KINDS, Error, ImageResult, count_errors, find_errors
from .draw import Skeletons, draw_objects, draw_pair
from .page import Chart, Grid, Picture, Section, Table, Text

Read = Callable[[str], np.ndarray]  # file_name of a json's image -> uint8 RGB (H, W, 3)

EXPLANATIONS = {
    "classification": "right place (IoU of 0.5 or more with an object), wrong category",
    "localisation": "right category, poor place (IoU of 0.1 to 0.5)",
    "both": "wrong category and poor place",
    "duplicate": "an object that a prediction with a higher score has found already",
    "background": "nothing is there (no IoU above 0.1)",
    "missed": "an object that nothing found, nor met by a mistake of place or category alone",
}
_KIND_COLORS = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7")
_SIZE = 340  # px of the long side of a drawing: two beside each other are half a page wide
_CROP_MARGIN = 0.75  # of the sides of what is cropped, on each side


class Album:
    """The images of a COCO json as drawings."""

    def __init__(self, dataset: dict, read: Read):
        self.images = {image["id"]: image for image in dataset["images"]}
        self.names = {category["id"]: category["name"] for category in dataset["categories"]}
        self.skeletons: Skeletons = {
            c["id"]: c["skeleton"] for c in dataset["categories"] if c.get("skeleton")
        }
        self.objects: dict[int, list[dict]] = defaultdict(list)
        for annotation in dataset["annotations"]:
            self.objects[annotation["image_id"]].append(annotation)
        self._read = read

    def draw(self, image_id: int) -> np.ndarray:
        """The image with its ground truth."""
        pixels, objects = self._read(self.file(image_id)), self.objects[image_id]
        return draw_objects(pixels, objects, self.names, skeletons=self.skeletons, size=_SIZE)

    def draw_pair(self, image_id: int, predictions: Iterable[dict]) -> list[np.ndarray]:
        """Ground truth and `predictions`."""
        pixels, objects = self._read(self.file(image_id)), self.objects[image_id]
        return draw_pair(pixels, objects, predictions, self.names, skeletons=self.skeletons, size=_SIZE)

    def draw_error(self, error: Error) -> list[np.ndarray]:
        """Ground truth and the wrong prediction, if there is one, with what is around it."""
        pixels = self._read(self.file(error.image_id))
        items = [item for item in (error.prediction, error.ground_truth) if item]
        x0, y0, x1, y1 = _window([item["bbox"] for item in items], *pixels.shape[:2])
        near = (item for item in self.objects[error.image_id] if _is_inside(item["bbox"], x0, y0, x1, y1))
        shown = [_moved(item, x0, y0) for item in near]
        wrong = [_moved(error.prediction, x0, y0)] if error.prediction else []
        return draw_pair(pixels[y0:y1, x0:x1], shown, wrong, self.names, size=_SIZE)

    def file(self, image_id: int) -> str:
        """Its file_name."""
        return self.images[image_id]["file_name"]


def look_at_data(dataset: dict, read: Read, num_images: int) -> list[Section]:
    """Counts per category, and `num_images` images evenly spaced over the json, with their annotations."""
    album = Album(dataset, read)
    ids = list(album.images)
    chosen = [ids[i] for i in np.linspace(0, len(ids) - 1, min(num_images, len(ids))).round().astype(int)]
    pictures = [Picture([album.draw(i)], f"{album.file(i)}, {_count(album.objects[i])}") for i in chosen]
    return [Section("Categories", [count_objects(dataset)]), Section("Images", [Grid(pictures)])]


def describe(dataset: dict) -> str:
    """How many images, objects and categories, in words."""
    num_objects = sum(not annotation.get("iscrowd") for annotation in dataset["annotations"])
    numbers = (len(dataset["images"]), num_objects, len(dataset["categories"]))
    return "{:,} images, {:,} objects, {:,} categories".format(*numbers)


def count_objects(dataset: dict) -> Table:
    """Objects, crowds, images and sizes per category, the most frequent first."""
    objects, crowds = defaultdict(list), Counter()
    for annotation in dataset["annotations"]:
        if annotation.get("iscrowd"):
            crowds[annotation["category_id"]] += 1
        else:
            objects[annotation["category_id"]].append(annotation)
    rows = []
    for category in dataset["categories"]:
        found = objects[category["id"]]
        sizes = np.sqrt([a["bbox"][2] * a["bbox"][3] for a in found])
        size = round(float(np.median(sizes)), 1) if found else None
        num_images = len({a["image_id"] for a in found})
        rows.append((category["name"], len(found), num_images, crowds[category["id"]], size))
    rows.sort(key=lambda row: -row[1])
    return Table(
        ("category", "objects", "images", "crowds", "median size, px"),
        rows,
        "Size is the square root of the box's area. Crowds are not counted as objects.",
    )


def look_at_predictions(
    dataset: dict, results: Sequence[dict], read: Read, *, num_images: int, min_score: float
) -> list[Section]:
    """Mistakes by kind and category, the worst and the best images, and some mistakes of each kind.

    A third of `num_images` are the worst, a sixth the best; the rest shows mistakes, at least one of a kind.
    """
    judged = find_errors(dataset, results, min_score=min_score)
    album = Album(dataset, read)
    num_worst, num_best = num_images // 3, num_images // 6
    worst, best = rank_images(judged, num_worst, num_best)
    sections = [
        _summary(judged, dataset, min_score),
        Section("Worst images", _pairs(album, judged, worst)),
        Section("Best images", _pairs(album, judged, best)),
    ]
    per_kind = max(1, (num_images - num_worst - num_best) // len(KINDS))
    for kind in KINDS:
        errors = most_striking(judged, kind)[:per_kind]
        pictures = [Picture(album.draw_error(error), _describe_error(error, album)) for error in errors]
        if pictures:
            sections.append(Section(f"Kind: {kind}", [Text(_sentence(EXPLANATIONS[kind])), Grid(pictures)]))
    return sections


def rank_images(judged: dict[int, ImageResult], num_worst: int, num_best: int) -> tuple[list[int], list[int]]:
    """Ids of the images of the lowest and the highest F1 score; ties by id.

    Neither are images where there is nothing and nothing was found, nor is one both; the worst are below 1.
    """
    ids = [i for i, result in judged.items() if result.num_objects or result.errors]
    worst = sorted((i for i in ids if judged[i].f1 < 1), key=lambda i: (judged[i].f1, i))[:num_worst]
    rest = set(ids) - set(worst)
    return worst, sorted(rest, key=lambda i: (-judged[i].f1, i))[:num_best]


def most_striking(judged: dict[int, ImageResult], kind: str) -> list[Error]:
    """Errors of `kind`, the highest scores first, or of missed objects the largest; ties by image id."""
    errors = [error for result in judged.values() for error in result.errors if error.kind == kind]

    def weight(error: Error) -> float:
        return error.prediction["score"] if error.prediction else np.prod(error.ground_truth["bbox"][2:])

    return sorted(errors, key=lambda error: (-weight(error), error.image_id))


def plot_kinds(counts: dict[str, int]) -> Figure:
    """One bar for each kind of mistake."""
    figure = Figure(figsize=(5, 2.3), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(list(counts), list(counts.values()), color=_KIND_COLORS, height=0.7)
    axes.bar_label(bars, [f"{value:,}" for value in counts.values()], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.xaxis.set_visible(False)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(left=False)
    return figure


def _summary(judged: dict[int, ImageResult], dataset: dict, min_score: float) -> Section:
    by_category = count_errors(judged)
    total = sum(by_category.values(), Counter())
    num_objects = sum(result.num_objects for result in judged.values())
    objects = Counter(a["category_id"] for a in dataset["annotations"] if not a.get("iscrowd"))
    rows = [
        (c["name"], objects[c["id"]], *(by_category.get(c["id"], {}).get(k, 0) for k in ("correct", *KINDS)))
        for c in dataset["categories"]
    ]
    rows.sort(key=lambda row: -sum(row[3:]))
    false = sum(total[kind] for kind in KINDS if kind != "missed")
    words = (
        f"Of the predictions with a score of {min_score:g} or more, {total['correct']:,} are correct at an "
        f"IoU of 0.5 and {false:,} are false. Of {num_objects:,} objects "
        f"{num_objects - total['correct']:,} are not found."
    )
    meanings = Table(("kind", "number", "what it is"), [(k, total[k], EXPLANATIONS[k]) for k in KINDS])
    caption = (
        "A false prediction counts for the category that it names. Objects that a mistake of place or "
        "category met are not counted as missed, so the columns do not add up to the objects."
    )
    chart = Chart(plot_kinds({kind: total[kind] for kind in KINDS}), "Mistakes by kind")
    table = Table(("category", "objects", "correct", *KINDS), rows, caption)
    return Section("By kind and category", [Text(words), chart, meanings, table])


def _pairs(album: Album, judged: dict[int, ImageResult], ids: list[int]) -> list[Text | Grid]:
    if not ids:
        return [Text("None.")]
    pictures = []
    for i in ids:
        result = judged[i]
        predictions = [*result.correct, *(error.prediction for error in result.errors if error.prediction)]
        kinds = Counter(error.kind for error in result.errors)
        words = ", ".join(f"{kinds[kind]} {kind}" for kind in KINDS if kinds[kind])
        caption = f"{album.file(i)}, F1 {result.f1:.2f}" + (f": {words}" if words else "")
        pictures.append(Picture(album.draw_pair(i, predictions), caption))
    return [Grid(pictures)]


def _describe_error(error: Error, album: Album) -> str:
    """For example "000012.jpg: cat 93%, labelled dog"."""
    file, name = album.file(error.image_id), album.names.get(error.category_id, f"class {error.category_id}")
    if error.prediction is None:
        return f"{file}: {name}"
    words = f"{file}: {name} {100 * error.prediction['score']:.0f}%"
    if error.kind == "classification":
        words += f", labelled {album.names[error.ground_truth['category_id']]}"
    return words


def _window(boxes: list[list[float]], height: int, width: int) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 in px of what holds `boxes` and some margin, inside the image."""
    left, top = (min(box[k] for box in boxes) for k in (0, 1))
    right, bottom = (max(box[k] + box[k + 2] for box in boxes) for k in (0, 1))
    margin = max(24, _CROP_MARGIN * max(right - left, bottom - top))
    x0, y0 = (max(0, int(start - margin)) for start in (left, top))
    x1, y1 = min(width, int(right + margin) + 1), min(height, int(bottom + margin) + 1)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _is_inside(box: list[float], x0: int, y0: int, x1: int, y1: int) -> bool:
    """Whether its centre is."""
    x, y, width, height = box
    return x0 < x + width / 2 < x1 and y0 < y + height / 2 < y1


def _moved(item: dict, x0: int, y0: int) -> dict:
    """Its box alone, in the window that begins at (x0, y0)."""
    x, y, width, height = item["bbox"]
    kept = {key: item[key] for key in ("category_id", "score", "iscrowd") if key in item}
    return {**kept, "bbox": [x - x0, y - y0, width, height]}


def _count(objects: list[dict]) -> str:
    crowds = sum(bool(item.get("iscrowd")) for item in objects)
    number = len(objects) - crowds
    words = f"{number} object{'s' * (number != 1)}"
    return words + (f" and {crowds} crowd{'s' * (crowds != 1)}" if crowds else "")


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."
