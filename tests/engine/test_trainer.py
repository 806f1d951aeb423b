import copy
import json
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rethink_pretrain.data.datasets.subsets import choose, digest
from rethink_pretrain.engine import Trainer, evaluate
from rethink_pretrain.engine.setup import check_categories, register_datasets
from rethink_pretrain.errors import UserError


@pytest.fixture
def finished(short_cfg):
    trainer = Trainer(short_cfg)
    trainer.resume_or_load(False)
    metrics = trainer.train()
    return trainer, metrics


def test_a_run_leaves_records_that_others_can_read(finished, short_cfg, tmp_path):
    _, metrics = finished
    run = tmp_path / "run"
    assert (run / "last_checkpoint").read_text() == "model_final.pth"
    rows = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    assert rows[-1]["iteration"] in (5, 6) and "bbox/AP" in rows[-1]
    assert rows[-1]["bbox/AP"] == pytest.approx(metrics["bbox"]["AP"], nan_ok=True)
    events = EventAccumulator(str(run)).Reload()
    assert [e.step for e in events.Scalars("total_loss")] == [5]

    record = json.loads((run / "run.json").read_text())
    (session,) = record["sessions"]
    assert session["seed"] == 7 and session["versions"]["torch"] == torch.__version__
    assert (session["start_iter"], session["end_iter"], session["images_seen"]) == (0, 6, 12)
    assert session["train_seconds"] > 0 and 100 < session["peak_rss_mb"] < 20_000


def test_the_checkpoint_restores_momentum_schedule_and_position(finished, short_cfg):
    trainer, _ = finished
    momentum = [state["momentum_buffer"] for state in trainer.optimizer.state_dict()["state"].values()]
    assert len(momentum) > 50 and all(buffer.abs().sum() > 0 for buffer in momentum[:3])

    short_cfg.SOLVER.MAX_ITER = 8
    again = Trainer(short_cfg)
    again.resume_or_load(True)

    assert again.start_iter == 6
    restored = [state["momentum_buffer"] for state in again.optimizer.state_dict()["state"].values()]
    assert all(torch.equal(a, b) for a, b in zip(momentum, restored, strict=True))
    assert again.scheduler.last_epoch == trainer.scheduler.last_epoch == 6
    weights = trainer.model.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in again.model.state_dict().items())

    again.train()
    sessions = json.loads(Path(short_cfg.OUTPUT_DIR, "run.json").read_text())["sessions"]
    assert [(s["start_iter"], s["end_iter"]) for s in sessions] == [(0, 6), (6, 8)]


def test_a_checkpoint_without_optimizer_state_still_loads(finished, short_cfg):
    """v0.6 itself writes such files."""
    trainer, _ = finished
    state = copy.deepcopy(trainer.state_dict())
    del state["_trainer"]
    other = Trainer(short_cfg)
    other.load_state_dict(state)
    assert other.iter == trainer.iter


def test_evaluate_repeats_the_last_evaluation_of_training(finished, short_cfg):
    _, metrics = finished
    again = evaluate(short_cfg, resume=True)
    for task in ("bbox", "segm"):
        assert again[task] == pytest.approx(metrics[task], nan_ok=True)


def test_wrong_number_of_classes_is_refused_with_the_right_one(short_cfg):
    short_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    with pytest.raises(UserError, match=r"NUM_CLASSES is 80, but data set 'toy_train' has 8 .*Set .* to 8\."):
        Trainer.build_train_loader(short_cfg)
    with pytest.raises(UserError, match="'toy_val' has 8"):
        Trainer.build_test_loader(short_cfg, "toy_val")


def test_weights_that_do_not_exist_are_one_line(short_cfg):
    short_cfg.MODEL.WEIGHTS = "no/such/file.pth"
    trainer = Trainer(short_cfg)
    with pytest.raises(UserError, match=r"weights 'no/such/file\.pth' \(MODEL\.WEIGHTS\)"):
        trainer.resume_or_load(False)
    with pytest.raises(UserError, match=r"weights 'no/such/file\.pth' \(MODEL\.WEIGHTS\)"):
        evaluate(short_cfg)


def test_the_toy_set_is_what_the_trainer_sees(short_cfg):
    batch = next(iter(Trainer.build_train_loader(short_cfg)))
    assert len(batch) == 2 and batch[0]["image"].dtype == torch.uint8
    assert max(batch[0]["image"].shape[1:]) == 64
    assert len(DatasetCatalog.get("toy_val")) == 12


def test_the_record_tells_data_and_weights(short_cfg, tmp_path):
    """The digest of a subset's images, and what the weight file filled."""
    torch.save({"model": Trainer.build_model(short_cfg).state_dict()}, tmp_path / "weights.pth")
    short_cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    short_cfg.DATASETS.TRAIN = ("toy_train@5",)
    register_datasets(short_cfg)
    trainer = Trainer(short_cfg)
    trainer.resume_or_load(False)
    trainer.train()
    (session,) = json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]
    (data,) = session["data"]
    assert (data["name"], data["images"]) == ("toy_train@5", 5)
    assert data["digest"] == digest(choose(range(1, 25), 5))
    assert session["weights"]["coverage"] == 1 and session["weights"]["missing"] == 0


def test_weights_that_fill_little_are_refused(short_cfg, tmp_path):
    state = Trainer.build_model(short_cfg).state_dict()
    stem = {name: value for name, value in state.items() if "stem" in name}
    torch.save({"model": stem}, tmp_path / "weights.pth")
    short_cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    trainer = Trainer(short_cfg)
    with pytest.raises(UserError, match=r"MIN_COVERAGE|cover"):
        trainer.resume_or_load(False)


def test_augmented_tests_come_under_a_name_of_their_own(short_cfg, tmp_path):
    short_cfg.TEST.AUG.ENABLED = True
    short_cfg.TEST.AUG.MIN_SIZES, short_cfg.TEST.AUG.MAX_SIZE = (64,), 64
    trainer = Trainer(short_cfg)
    trainer.resume_or_load(False)
    trainer.train()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.json").read_text().splitlines()]
    assert {"bbox/AP", "segm/AP", "tta/bbox/AP", "tta/segm/AP"} <= rows[-1].keys()


def test_a_model_that_cannot_be_augmented_is_refused_before_training(short_cfg):
    short_cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    short_cfg.MODEL.SEM_SEG_HEAD.NAME, short_cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = "RethinkSemSegFPNHead", 6
    short_cfg.TEST.AUG.ENABLED = True
    with pytest.raises(UserError, match=r"TEST\.AUG\.ENABLED works for GeneralizedRCNN"):
        Trainer(short_cfg)


@pytest.mark.parametrize(
    ("arch", "key"),
    [("GeneralizedRCNN", "MODEL.ROI_HEADS"), ("SemanticSegmentor", "MODEL.SEM_SEG_HEAD")],
)
def test_each_head_has_its_number_of_classes(short_cfg, arch, key):
    names = ["toy_val_panoptic"]
    DatasetCatalog.get(*names)
    short_cfg.MODEL.META_ARCHITECTURE = arch
    short_cfg.MODEL.ROI_HEADS.NUM_CLASSES, short_cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 8, 6
    check_categories(short_cfg, names)
    short_cfg.MODEL.ROI_HEADS.NUM_CLASSES, short_cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 80, 54
    with pytest.raises(UserError, match=f"{key}.NUM_CLASSES is"):
        check_categories(short_cfg, names)
