"""Which hooks a config asks for, in which order, and on which process."""

import json

import pytest
from detectron2.utils import comm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from rethink_pretrain.checkpoint import RethinkCheckpointer
from rethink_pretrain.engine import Trainer
from rethink_pretrain.engine.watch import build_watch_hooks, last_drop
from rethink_pretrain.errors import UserError


@pytest.fixture
def watching(short_cfg):
    """All of it, but for Weights & Biases."""
    watch = short_cfg.RETHINK.WATCH
    watch.IMAGES, watch.HISTOGRAM_PERIOD, watch.VAL_LOSS_IMAGES = 2, 3, 2
    watch.BEST_METRIC, watch.PATIENCE = "bbox/AP", 1
    short_cfg.TEST.EVAL_PERIOD = 2
    return short_cfg


def names(cfg):
    hooks = build_watch_hooks(cfg, RethinkCheckpointer(nn.Linear(1, 1), cfg.OUTPUT_DIR))
    return [type(hook).__name__ for hook in hooks]


def test_order(watching):
    assert names(watching) == [
        *("BestCheckpoint", "ValidationLoss", "Trend", "PredictionImages", "Histograms", "EarlyStopping"),
    ]


def test_other_processes_only_do_what_takes_all(watching, monkeypatch):
    monkeypatch.setattr(comm, "get_rank", lambda: 1)
    assert names(watching) == ["ValidationLoss", "EarlyStopping"]


def test_what_nobody_asked_for_is_not_there(watching):
    watch = watching.RETHINK.WATCH
    watch.IMAGES = watch.HISTOGRAM_PERIOD = watch.VAL_LOSS_IMAGES = watch.PATIENCE = 0
    watch.BEST_METRIC = ""
    assert names(watching) == ["Trend"]


@pytest.mark.parametrize(("key", "value"), [("BEST_METRIC", ""), ("EVAL_PERIOD", 0)])
def test_patience_needs_something_to_wait_for(watching, key, value):
    (watching.TEST if key == "EVAL_PERIOD" else watching.RETHINK.WATCH)[key] = value
    with pytest.raises(UserError, match=r"PATIENCE 1 needs a metric"):
        names(watching)


def test_losses_need_images(watching):
    watching.DATASETS.TEST = ()
    with pytest.raises(UserError, match=r"VAL_LOSS_IMAGES needs images"):
        names(watching)


def test_last_drop(watching):
    solver = watching.SOLVER
    solver.STEPS, solver.MAX_ITER = (20, 40, 100), 60
    assert last_drop(watching) == 40
    solver.STEPS = ()
    assert last_drop(watching) == 0
    solver.STEPS, solver.LR_SCHEDULER_NAME = (20,), "WarmupCosineLR"
    assert last_drop(watching) == 0


def test_a_training_that_is_watched(watching, tmp_path, monkeypatch):
    """AP is 5 all along: the first evaluation is the best, and with the next one patience is over."""
    evaluate = Trainer.test

    def evaluate_to_5(cfg, model):
        results = evaluate(cfg, model)
        results["bbox"]["AP"] = 5.0
        return results

    monkeypatch.setattr(Trainer, "test", staticmethod(evaluate_to_5))
    watching.SOLVER.STEPS = (1,)
    trainer = Trainer(watching)
    trainer.resume_or_load(False)
    trainer.train()
    run = tmp_path / "run"
    assert trainer.iter + 1 == 4 and "without more than 5.00" in trainer.ended
    assert (run / "model_best.pth").is_file()
    rows = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    measured = [row["iteration"] for row in rows if "bbox/AP" in row]
    assert measured == [row["iteration"] for row in rows if "val_loss/total_loss" in row] == [1, 3]
    events = EventAccumulator(str(run), size_guidance={"images": 0, "histograms": 0}).Reload()
    tags = events.Tags()
    assert "val_loss/total_loss" in tags["scalars"] and len(tags["images"]) == 2
    assert {tag.split("/")[0] for tag in tags["histograms"]} == {"weights", "gradients"}
