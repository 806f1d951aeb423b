"""Checks of norms, batch, rate, length and disk, one sick and one healthy case each."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from doctor_cases import only, toy_cfg
from torch import nn

from rethink_pretrain.engine import Trainer
from rethink_pretrain.engine.checkpoints import Checkpoints
from rethink_pretrain.engine.doctor import (
    count_images,
    examine,
    recipe,
)
from rethink_pretrain.engine.doctor.patient import Patient


@pytest.fixture
def cfg(tmp_path):
    return toy_cfg("OUTPUT_DIR", tmp_path)


@pytest.fixture
def model(cfg):
    return build_model(cfg)


class TestDisk:
    def free(self, monkeypatch, checkpoints, model):
        free = int(checkpoints * recipe.checkpoint_bytes(model))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    def test_too_small(self, cfg, model, monkeypatch):
        """The toy run keeps one file per 175 of 700 iterations, the last as model_final."""
        assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD) == (700, 175)
        self.free(monkeypatch, 4, model)
        assert examine(cfg, model) == []
        self.free(monkeypatch, 3.9, model)
        findings = examine(cfg, model)
        only(findings, "stop", "4 checkpoints of 0.03 GB", "SOLVER.CHECKPOINT_PERIOD to 234 or more")
        cfg.SOLVER.CHECKPOINT_PERIOD = 234
        assert examine(cfg, model) == []

    def test_what_an_earlier_session_wrote_is_not_needed_again(self, cfg, model, monkeypatch, tmp_path):
        (tmp_path / "model_0000174.pth").touch()
        self.free(monkeypatch, 3, model)
        assert examine(cfg, model) == []

    def test_no_room_at_all(self, cfg, model, monkeypatch, tmp_path):
        self.free(monkeypatch, 0.5, model)
        findings = examine(cfg, model, output_dir=tmp_path / "not" / "yet")
        only(findings, "stop", repr(str(tmp_path)), "choose an OUTPUT_DIR with more space")

    def test_remote_storage_is_not_judged(self, cfg, model, monkeypatch):
        self.free(monkeypatch, 0, model)
        assert examine(cfg, model, output_dir="s3://bucket/run") == []

    @pytest.mark.parametrize("period", [1, 3, 5, 9, 10, 20, 0])
    def test_the_number_is_that_of_the_hook(self, cfg, model, period):
        saved = []
        hook = Checkpoints(SimpleNamespace(save=lambda name, **_: saved.append(name)), period)
        for iteration in range(10):
            hook.trainer = SimpleNamespace(iter=iteration, max_iter=10, ended="")
            hook.after_step()
        cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = 10, period
        patient = Patient(cfg, model, None, None, 1, None, None)
        assert recipe.checkpoint_count(patient) == len(saved) and saved[-1] == "model_final"

    def test_the_best_is_one_more(self, cfg, model):
        patient = Patient(cfg, model, None, None, 1, None, None)
        before = recipe.checkpoint_count(patient)
        cfg.RETHINK.WATCH.BEST_METRIC = "bbox/AP"
        assert recipe.checkpoint_count(patient) == before + 1

    def test_only_the_newest_are_kept(self, cfg, model):
        cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD, cfg.RETHINK.KEEP_CHECKPOINTS = 100, 10, 2
        patient = Patient(cfg, model, None, None, 1, None, None)
        assert recipe.checkpoint_count(patient) == 3 + 1  # the third is written before the first goes

    def test_the_size_is_that_of_the_file(self, model, tmp_path):
        model.backbone.bottom_up.stem.requires_grad_(False)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, 0.1, momentum=0.9)
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "file")
        size = (tmp_path / "file").stat().st_size
        assert recipe.checkpoint_bytes(model) == pytest.approx(size, rel=0.01)


class TestBatch:
    @pytest.mark.parametrize("batch", [16, 64])
    def test_published_ones(self, cfg, model, batch):
        cfg.SOLVER.IMS_PER_BATCH = batch
        assert recipe.check_batch(Patient(cfg, model, None, None, 1, None, None)) == []

    def test_beyond(self, cfg, model):
        cfg.SOLVER.IMS_PER_BATCH = 128
        findings = recipe.check_batch(Patient(cfg, model, None, None, 1, None, None))
        only(
            findings,
            "warn",
            "128 images per step",
            "is 64 (Detectron2's 9x, box AP 43.7)",
            "IMS_PER_BATCH to 64",
        )


class TestMissingNorms:
    def build(self, tmp_path, *keys, norm="none"):
        opts = [word for key in keys for word in (f"MODEL.{key}.NORM", norm)]
        cfg = toy_cfg("OUTPUT_DIR", tmp_path, *opts)
        return cfg, build_model(cfg)

    def test_parts_without(self, tmp_path):
        cfg, model = self.build(tmp_path, "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")
        keys = "MODEL.FPN.NORM, MODEL.ROI_BOX_HEAD.NORM, MODEL.ROI_MASK_HEAD.NORM to GN"
        only(examine(cfg, model), "warn", "no norm in fpn, box head, mask head", keys)
        cfg.MODEL.WEIGHTS = "own.pkl"
        assert examine(cfg, model) == []

    def test_a_backbone_without(self, cfg, model):
        bare = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
        model.backbone.bottom_up = bare
        only(examine(cfg, model), "warn", "no norm in backbone, from", "MODEL.RESNETS.NORM to GN", "VGG-16")
        cfg.MODEL.BACKBONE.NAME = "build_rethink_vgg_backbone"
        only(examine(cfg, model), "warn", "MODEL.VGG.NORM to GN")
        model.backbone.bottom_up = nn.Sequential(*bare, nn.GroupNorm(4, 8))
        assert examine(cfg, model) == []

    def test_a_box_head_without_convolutions_needs_none(self, tmp_path):
        keys = ("MODEL.ROI_BOX_HEAD.NORM", "none", "MODEL.ROI_BOX_HEAD.NUM_CONV", 0)
        cfg = toy_cfg("OUTPUT_DIR", tmp_path, *keys, "MODEL.ROI_BOX_HEAD.NUM_FC", 2)
        assert examine(cfg, build_model(cfg)) == []

    def test_small_batches(self, tmp_path):
        """The toy batch is 8 images."""
        cfg, model = self.build(tmp_path, "RESNETS", norm="SyncBN")
        only(examine(cfg, model), "warn", "SyncBN has statistics over 8 images", "16")
        cfg.SOLVER.IMS_PER_BATCH = 16
        assert examine(cfg, model, processes=8) == []
        cfg, model = self.build(tmp_path, "RESNETS", norm="BN")
        assert examine(cfg, model) == []
        only(examine(cfg, model, processes=2), "warn", "over 4 images per process", "GN")


class TestLearningRate:
    @pytest.mark.parametrize(
        ("rate", "healthy"), [(0.005, True), (0.0051, True), (0.02, False), (0.001, False)]
    )
    def test_by_hand(self, cfg, model, rate, healthy):
        """0.02 for 16 images is 0.005 for 4."""
        cfg.RETHINK.SCHEDULE, cfg.RETHINK.REFERENCE_LR = "", 0.02
        cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR = 4, rate
        findings = examine(cfg, model)
        if healthy:
            assert findings == []
        else:
            only(findings, "warn", f"BASE_LR {rate:g} is {rate / 0.005:g} times", "set SOLVER.BASE_LR 0.005")

    def test_of_a_schedule_it_follows(self, cfg, model):
        cfg.SOLVER.BASE_LR = 99.0
        assert examine(cfg, model) == []


class TestLength:
    @pytest.mark.parametrize(
        ("size", "iterations", "healthy"),
        [
            (118_287, 90_000, False),  # 1x
            (118_287, 180_000, True),  # 2x
            (118_287, 540_000, True),
            (35_000, 90_000, False),
            (10_000, 59_999, False),
            (10_000, 60_000, True),  # the paper's shortest with 10k images
            (9_999, 100, True),  # not judged
        ],
    )
    def test_from_random_weights(self, cfg, model, size, iterations, healthy):
        cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = 16, iterations, 10**6
        findings = examine(cfg, model, num_images=size)
        assert healthy == (findings == [])
        if not healthy:
            only(findings, "warn", f"epochs of {size}", "set RETHINK.SCHEDULE to")
        cfg.MODEL.WEIGHTS = "own.pkl"
        assert examine(cfg, model, num_images=size) == []

    def test_the_size_is_images_per_epoch_where_unknown(self, cfg, model):
        assert cfg.RETHINK.IMAGES_PER_EPOCH == 3000
        assert examine(cfg, model) == []
        cfg.RETHINK.IMAGES_PER_EPOCH = 50_000
        only(examine(cfg, model), "warn", "0.0056M training images (0.112 epochs of 50000)")

    def test_images_of_a_loader(self, short_cfg):
        """Those with objects; the host leaves the others out."""
        content = json.loads(Path(MetadataCatalog.get("toy_train").json_file).read_text())
        expected = len({annotation["image_id"] for annotation in content["annotations"]})
        assert 0 < expected <= 24
        assert count_images(Trainer.build_train_loader(short_cfg)) == expected
        assert count_images(iter([])) is None
