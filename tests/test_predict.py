"""tools/predict.py as a user starts it, against the evaluation of the same weights."""

import contextlib
import io
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, SHORT_RUN, TOY_CONFIG
from PIL import Image
from pycocotools.coco import COCO

from rethink_pretrain.checkpoint import RethinkCheckpointer
from rethink_pretrain.config import load_config
from rethink_pretrain.engine import Trainer, evaluate
from rethink_pretrain.engine.predict import Predictor, find_images, predict_files
from rethink_pretrain.errors import UserError

TOOL = str(REPOSITORY / "tools" / "predict.py")
ALL_SCORES = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]


def run_predict(*args):
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, TOOL, *map(str, args)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture
def save(tmp_path):
    """A function that gives a config random weights, saved as a run saves them."""

    def save(cfg, folder=tmp_path / "run"):
        cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(folder)
        folder.mkdir()
        (folder / "config.yaml").write_text(cfg.dump())
        checkpointer = RethinkCheckpointer(Trainer.build_model(cfg), str(folder))
        checkpointer.save("model_final")
        checkpointer.wait()
        return folder

    return save


@pytest.fixture
def run(datasets, save):
    return save(load_config(TOY_CONFIG, opts=[*SHORT_RUN, *ALL_SCORES, "SEED", "1"]))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_precision_of_training(datasets, run, precision):
    predictor = Predictor(load_config(run / "config.yaml", opts=["RETHINK.SPEED.PRECISION", precision]), run)
    seen = []
    predictor._model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    predictor(next((datasets / "toy" / "val").iterdir()), 1)
    assert seen == [precision == "bf16"]


def test_predictions_are_those_of_the_evaluation(datasets, run, tmp_path):
    evaluate(load_config(run / "config.yaml"), resume=True)
    wanted = json.loads((run / "inference" / "coco_instances_results.json").read_text())
    truth = json.loads((datasets / "toy" / "val.json").read_text())

    out = tmp_path / "out"
    done = run_predict(datasets / "toy" / "val", "--run", run, "--output", out, "--min-score", "0")
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "predictions.json").read_text())
    document = json.loads((out / "images.json").read_text())
    assert f"{out}: 12 images with {len(found)} objects of score >= 0" in done.stdout

    # The toy set numbers its images from 1 in the order of their names, as the tool does.
    names = [os.path.basename(image["file_name"]) for image in document["images"]]
    assert names == [os.path.basename(image["file_name"]) for image in truth["images"]]
    assert [c["name"] for c in document["categories"]] == [c["name"] for c in truth["categories"]]
    assert len(found) == len(wanted) > 50
    for result in found:
        twin = min(wanted, key=lambda other: distance(result, other))
        assert distance(result, twin) < 1e-2 and result["segmentation"] == twin["segmentation"]
        wanted.remove(twin)

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(out / "images.json").loadRes(str(out / "predictions.json"))
    assert len(coco.anns) == len(found) and len(coco.imgs) == 12
    assert len(list(out.glob("*.jpg"))) == 12


def distance(a, b):
    """Of two results, in pixels and percent; their order is not the same where scores are almost equal."""
    if (a["image_id"], a["category_id"]) != (b["image_id"], b["category_id"]):
        return math.inf
    return float(np.abs(np.subtract([100 * a["score"], *a["bbox"]], [100 * b["score"], *b["bbox"]])).max())


def test_images_of_five_channels_and_no_names(save, tmp_path):
    """Without a data set classes go by number; a file that does not suit the model is left out."""
    raw = ("INPUT.FORMAT", "RAW", "MODEL.PIXEL_MEAN", "[9,9,9,9,9]", "MODEL.PIXEL_STD", "[5,5,5,5,5]")
    opts = [*SHORT_RUN, *ALL_SCORES, *raw, "DATASETS.TRAIN", "()", "DATASETS.TEST", "()"]
    weights = save(load_config(TOY_CONFIG, opts=opts)) / "model_final.pth"
    folder = tmp_path / "images" / "deeper"
    folder.mkdir(parents=True)
    np.save(folder / "five.npy", np.random.default_rng(0).integers(0, 20, (50, 70, 5)).astype(np.uint16))
    np.save(folder / "four.npy", np.zeros((50, 70, 4), dtype=np.uint8))
    (folder / "notes.txt").write_text("no image")
    out = tmp_path / "images" / "out"
    args = ("--config-file", TOY_CONFIG, "--weights", weights, "--output", out, *opts)
    done = run_predict(tmp_path / "images", *args)
    assert done.returncode == 0, done.stderr
    assert "Left out: " in done.stderr and "four.npy: 4 channels found, 5 expected" in done.stderr
    assert done.stdout.endswith(", 1 file left out\n")
    # Its own output is no input of the next call.
    assert find_images([tmp_path / "images"], out) == [folder / "five.npy", folder / "four.npy"]
    document = json.loads((out / "images.json").read_text())
    (image,) = document["images"]
    assert (image["id"], image["width"], image["height"]) == (1, 70, 50)
    assert [c["name"] for c in document["categories"]] == [f"class {k}" for k in range(1, 9)]
    assert Image.open(out / "000001_five.jpg").size == (400, 286)


def test_low_scores_are_kept_but_not_drawn(datasets, run, tmp_path):
    cfg = load_config(run / "config.yaml")
    files = find_images([datasets / "toy" / "val"], tmp_path / "out")[:2]
    assert predict_files(Predictor(cfg, run), files, tmp_path / "out", min_score=0.999) == (2, 0)
    assert len(json.loads((tmp_path / "out" / "predictions.json").read_text())) > 5


def test_mistakes_of_users_are_one_line(datasets, run, tmp_path):
    (tmp_path / "broken.jpg").write_text("no image")
    done = run_predict(tmp_path / "broken.jpg", "--run", run, "--output", tmp_path / "out")
    assert done.returncode == 1 and done.stdout == ""
    warning, error = [line for line in done.stderr.splitlines() if "GPU" not in line]
    assert warning.startswith("Left out: Cannot read") and "broken.jpg" in warning
    assert error == "error: None of 1 files could be used."

    with pytest.raises(UserError, match=r"No images in .*run: looked for \.jpg, "):
        find_images([run], tmp_path / "out")
    with pytest.raises(UserError, match="none does not exist"):
        find_images([tmp_path / "none"], tmp_path / "out")

    done = run_predict("a.jpg", "--run", run, "--config-file", "b", "--output", tmp_path)
    assert done.returncode == 2 and "give either --run, or --config-file and --weights" in done.stderr
    done = run_predict("a.jpg", "--run", run, "--output", tmp_path, "--min-scores", "1")
    assert done.returncode == 2 and "unrecognized arguments: --min-scores" in done.stderr


def test_weights_have_to_fill_the_model(run, tmp_path):
    cfg = load_config(run / "config.yaml", opts=["MODEL.ROI_HEADS.NUM_CLASSES", "3"])
    with pytest.raises(
        UserError, match=r"model_final\.pth leaves \d+ parameters of the model random, such as"
    ):
        Predictor(cfg, run)
    (run / "last_checkpoint").unlink()
    Predictor(load_config(run / "config.yaml"), run)  # model_final.pth, then
    (run / "model_final.pth").unlink()
    with pytest.raises(UserError, match=r"Cannot load the weights .*model_final\.pth"):
        Predictor(load_config(run / "config.yaml"), run)
    with pytest.raises(UserError, match="Predictions need weights: give --weights FILE, or --run"):
        Predictor(load_config(run / "config.yaml"))
