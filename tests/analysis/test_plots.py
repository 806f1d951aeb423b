import json

import numpy as np
import pytest
from PIL import Image

from rethink_pretrain.analysis.plots import learning_rate_drops, plot_curve, plot_predictions

ROWS = [
    {"iteration": 19, "total_loss": 3.0, "loss_cls": 1.0, "lr": 0.1},
    {"iteration": 39, "total_loss": 2.0, "loss_cls": 0.5, "lr": 0.1, "bbox/AP": 10.0, "segm/AP": 8.0},
    {"iteration": 59, "total_loss": 1.0, "loss_cls": 0.2, "lr": 0.01, "bbox/AP": 30.0, "segm/AP": 25.0},
]


def drawn_colors(path):
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return {tuple(color) for color in np.unique(pixels, axis=0)}


def test_curve_draws_both_metrics_and_the_losses(tmp_path):
    plot_curve(ROWS, tmp_path / "curve.png", "title")
    colors = drawn_colors(tmp_path / "curve.png")
    for hexadecimal in ("0072b2", "d55e00", "333333", "cc79a7"):
        assert tuple(bytes.fromhex(hexadecimal)) in colors


def test_curve_of_a_run_that_was_not_evaluated(tmp_path):
    plot_curve(ROWS[:1], tmp_path / "curve.png")
    assert tuple(bytes.fromhex("0072b2")) not in drawn_colors(tmp_path / "curve.png")


def test_learning_rate_drops():
    assert learning_rate_drops(ROWS) == [59]


@pytest.mark.parametrize("predictions", [True, False])
def test_predictions_beside_ground_truth_of_the_toy_set(datasets, tmp_path, predictions):
    toy = datasets / "toy"
    annotations = json.loads((toy / "val.json").read_text())["annotations"]
    results = [{**a, "score": 0.9} for a in annotations if not a["iscrowd"]] if predictions else []
    (tmp_path / "results.json").write_text(json.dumps(results))
    plot_predictions(
        toy / "val.json", tmp_path / "results.json", toy / "val", tmp_path / "out.png", num_images=2
    )
    width, height = Image.open(tmp_path / "out.png").size
    assert width > height > 200  # two pairs in one row
