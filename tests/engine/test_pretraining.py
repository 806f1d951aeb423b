"""From pictures to a backbone that a detector starts from, with what it cost."""

import json
import math

import pytest
import torch
from conftest import SHORT_RUN, TOY_CONFIG
from test_tools import run_tool

from rethink_pretrain.checkpoint import RethinkCheckpointer
from rethink_pretrain.checkpoint.reading import pretraining_in, read_weights
from rethink_pretrain.config import load_config
from rethink_pretrain.data.datasets.toy_classes import make_toy_classification
from rethink_pretrain.engine import Trainer, prepare, start
from rethink_pretrain.engine.pretraining import check_is_classifier, pretrain
from rethink_pretrain.errors import UserError

PRETRAIN = TOY_CONFIG.with_name("pretrain_R_18_gn.yaml")
SHORT = [
    *("SOLVER.IMS_PER_BATCH", "4", "RETHINK.SCHEDULE", "16 images", "RETHINK.REFERENCE_WARMUP_ITERS", "0"),
    *("SOLVER.CHECKPOINT_PERIOD", "2", "TEST.EVAL_PERIOD", "2", "RETHINK.CLASSIFIER.IMAGE_SIZE", "32"),
    *("RETHINK.DROPS", "(0.5, 0.75)"),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    make_toy_classification(root / "toy_classes", 16, 8, 64, seed=0, num_workers=1)
    return root / "toy_classes"


@pytest.fixture
def options(pictures, tmp_path):
    folders = [
        *("RETHINK.CLASSIFIER.TRAIN_IMAGES", str(pictures / "train")),
        *("RETHINK.CLASSIFIER.VAL_IMAGES", str(pictures / "val")),
    ]
    return [*SHORT, *folders, "OUTPUT_DIR", str(tmp_path / "pre"), "MODEL.DEVICE", "cpu"]


def run(options, resume=False):
    cfg = load_config(PRETRAIN, opts=options)
    prepare(cfg, str(PRETRAIN), resume=resume)
    args = type("Args", (), {"config_file": str(PRETRAIN), "eval_only": False, "resume": resume, "opts": []})
    start(cfg, args)
    return cfg, pretrain(cfg, resume)


def test_a_detector_starts_from_it_with_no_key_left_over(options, tmp_path, datasets):
    _, metrics = run(options)
    assert 0 <= metrics["classification"]["top1"] <= 100
    path = tmp_path / "pre" / "backbone.pth"
    cfg = load_config(TOY_CONFIG, opts=[*SHORT_RUN, "MODEL.WEIGHTS", str(path)])
    cfg.MODEL.DEVICE = "cpu"
    model = Trainer.build_model(cfg)
    checkpointer = RethinkCheckpointer(model)
    checkpointer.load(str(path))
    loaded = checkpointer.loaded
    assert checkpointer.coverage == 1.0 and loaded["unexpected"] == 0
    backbone = model.backbone.bottom_up.state_dict()
    assert loaded["matched"] == len(backbone)
    trained = read_weights(str(tmp_path / "pre" / "model_final.pth"))["model"]
    for name, value in backbone.items():
        assert torch.equal(value, trained[f"backbone.{name}"]), name


def test_it_tells_what_it_took(options, tmp_path):
    """16 visits to crops of 32 x 32 px with one object each; run.json of both runs says so."""
    run(options)
    expected = {"images": 16, "instances": 16, "pixels": 16 * 32 * 32}
    session = json.loads((tmp_path / "pre" / "run.json").read_text())["sessions"][-1]
    assert session["samples"] == expected
    path = str(tmp_path / "pre" / "backbone.pth")
    told = pretraining_in(read_weights(path))
    assert {key: told[key] for key in expected} == expected
    assert told["recipe"].startswith("classifier of 8 classes on 16 images, 4 iterations of 4 crops of 32 px")
    cfg = load_config(TOY_CONFIG, opts=["MODEL.WEIGHTS", path, "MODEL.DEVICE", "cpu"])
    checkpointer = RethinkCheckpointer(Trainer.build_model(cfg))
    checkpointer.load(path)
    assert checkpointer.loaded["pretraining"] == told


def test_a_resumed_one_is_a_straight_one(options, tmp_path, monkeypatch):
    run(options)
    straight = read_weights(str(tmp_path / "pre" / "backbone.pth"))
    halves = [*options, "OUTPUT_DIR", str(tmp_path / "halves")]
    run_step = Trainer.run_step

    def die_in_the_third(trainer):
        if trainer.iter == 2:
            trainer.checkpointer.wait()
            raise KeyboardInterrupt
        run_step(trainer)

    monkeypatch.setattr(Trainer, "run_step", die_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(halves)
    assert not (tmp_path / "halves" / "backbone.pth").exists()
    monkeypatch.setattr(Trainer, "run_step", run_step)
    run(halves, resume=True)
    resumed = read_weights(str(tmp_path / "halves" / "backbone.pth"))
    assert straight["model"].keys() == resumed["model"].keys()
    assert all(torch.equal(value, resumed["model"][name]) for name, value in straight["model"].items())
    assert resumed["pretraining"] == straight["pretraining"]


@pytest.mark.parametrize(
    "told",
    [
        None,
        3,
        {},
        {"images": math.nan},
        {"images": -1},
        {"images": True},
        {"images": "many"},
        {"recipe": "x"},
    ],
)
def test_what_a_foreign_file_says_is_not_taken_at_its_word(told):
    assert pretraining_in({"pretraining": told}) == {}


def test_a_detector_is_no_classifier():
    with pytest.raises(UserError, match="GeneralizedRCNN, which is no classifier"):
        check_is_classifier(load_config(TOY_CONFIG))


def test_tool_says_how_to_make_the_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    done = run_tool("pretrain_backbone.py", "--config-file", str(PRETRAIN), timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "make_toy_dataset.py --classification" in done.stderr.splitlines()[-1]
