"""Figures of one run: its curve, and its predictions beside the ground truth."""

import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")  # works without a display
import matplotlib.pyplot as plt
from PIL import Image

from .draw import draw_objects
from .runs import series

METRIC_STYLES = {"bbox/AP": ("box AP", "#0072b2"), "segm/AP": ("mask AP", "#d55e00")}
LOSS_STYLES = {
    "total_loss": ("total", "#333333"),
    "loss_cls": ("box classes", "#cc79a7"),
    "loss_box_reg": ("box regression", "#0072b2"),
    "loss_mask": ("masks", "#d55e00"),
    "loss_rpn_cls": ("RPN objectness", "#009e73"),
    "loss_rpn_loc": ("RPN regression", "#e69f00"),
}


def plot_curve(rows: list[dict[str, float]], path: str | Path, title: str = "") -> None:
    """AP above, losses below, both against iterations; drops of the learning rate as dotted lines.

    `rows` as `runs.read_metrics` gives them. Writes an image of the format that `path` ends with.
    """
    figure, (ap_axes, loss_axes) = plt.subplots(
        2, 1, figsize=(8, 7), sharex=True, layout="constrained", height_ratios=(3, 2)
    )
    for key, (label, color) in METRIC_STYLES.items():
        iterations, values = series(rows, key)
        if values:
            label = f"{label} {values[-1]:.1f}"
            ap_axes.plot(iterations, values, marker="o", markersize=4, color=color, label=label)
    ap_axes.set(ylabel="AP on the validation set, %", ylim=(0, None), title=title)
    for key, (label, color) in LOSS_STYLES.items():
        iterations, values = series(rows, key)
        if values:
            width = 1.8 if key == "total_loss" else 1.0
            loss_axes.plot(iterations, values, color=color, label=label, linewidth=width)
    loss_axes.set(ylabel="training loss", xlabel="iterations", yscale="log")
    for axes in (ap_axes, loss_axes):
        for number, drop in enumerate(learning_rate_drops(rows)):
            label = None if number else "learning rate drops"
            axes.axvline(drop, color="0.6", linestyle=":", linewidth=1, label=label)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if ap_axes.lines:
        ap_axes.legend(loc="lower right")
    loss_axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def learning_rate_drops(rows: list[dict[str, float]]) -> list[int]:
    """Iterations of the first row at which the learning rate is at most half of the row before."""
    iterations, rates = series(rows, "lr")
    return [iterations[i] for i in range(1, len(rates)) if rates[i] <= rates[i - 1] / 2]


def plot_predictions(
    annotations: str | Path,
    results: str | Path,
    image_folder: str | Path,
    path: str | Path,
    *,
    num_images: int = 8,
    min_score: float = 0.5,
) -> None:
    """Ground truth beside predictions of the first `num_images` images with at least three objects.

    `annotations` is a COCO json, `results` a COCO results json, as the evaluator writes it into
    OUTPUT_DIR/inference. Predictions below `min_score` are left out, crowds are hatched in white.
    """
    dataset = json.loads(Path(annotations).read_text(encoding="utf-8"))
    predictions = json.loads(Path(results).read_text(encoding="utf-8"))
    by_image: dict[int, list[dict]] = {}
    for annotation in dataset["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    chosen = [image for image in dataset["images"] if len(by_image.get(image["id"], [])) >= 3][:num_images]
    names = {category["id"]: category["name"] for category in dataset["categories"]}
    columns = 4 if len(chosen) > 1 else 2
    num_rows = max(1, -(-2 * len(chosen) // columns))
    figure, grid = plt.subplots(
        num_rows, columns, figsize=(3.6 * columns, 3.4 * num_rows), squeeze=False, layout="constrained"
    )
    cells = list(grid.flat)
    for axes in cells:
        axes.set_axis_off()
    for index, image in enumerate(chosen):
        pixels = np.asarray(Image.open(Path(image_folder, image["file_name"])).convert("RGB"))
        found = [p for p in predictions if p["image_id"] == image["id"] and p["score"] >= min_score]
        for axes, objects, title in (
            (cells[2 * index], by_image[image["id"]], f"ground truth, image {image['id']}"),
            (cells[2 * index + 1], found, f"predictions with score >= {min_score:g}"),
        ):
            axes.imshow(draw_objects(pixels, objects, names))
            axes.set_title(title, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
