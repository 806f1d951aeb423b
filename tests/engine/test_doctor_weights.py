"""Checks of weights, one sick and one healthy thin model each; the profiles against the host's configs."""

from pathlib import Path

import detectron2
import pytest
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from doctor_cases import only, toy_cfg
from torch import nn

from rethink_pretrain.config import add_rethink_config
from rethink_pretrain.engine.doctor import (
    examine,
)
from rethink_pretrain.engine.doctor.patient import Patient
from rethink_pretrain.engine.doctor.weights import PROFILES, check_profile, find_profile

GN_WEIGHTS = "catalog://ImageNetPretrained/FAIR/R-50-GN"
TORCHVISION = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
MSRA = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"


@pytest.fixture
def cfg(tmp_path):
    return toy_cfg("OUTPUT_DIR", tmp_path)


@pytest.fixture
def model(cfg):
    return build_model(cfg)


class TestFrozenRandom:
    """A backbone of the user's own that ignores FREEZE_AT, or one that freezes itself."""

    def freeze(self, model):
        model.backbone.bottom_up.stem.requires_grad_(False)

    def test_without_weights(self, cfg, model):
        self.freeze(model)
        only(examine(cfg, model), "stop", "3 parameters are frozen", "backbone.bottom_up.stem", "FREEZE_AT 0")

    def test_filled_by_weights(self, cfg, model):
        self.freeze(model)
        cfg.MODEL.WEIGHTS = "own.pkl"
        names = [name for name, _ in model.named_parameters()]
        assert examine(cfg, model, missing=[name for name in names if "stem" not in name]) == []
        missing = ["backbone.bottom_up.stem.conv1.norm.bias"]
        only(examine(cfg, model, missing=missing), "stop", "1 parameters", missing[0])

    def test_weights_that_are_not_loaded_yet_are_not_judged(self, cfg, model):
        self.freeze(model)
        cfg.MODEL.WEIGHTS = "own.pkl"
        assert examine(cfg, model) == []

    def test_a_checkpoint_of_the_run_fills_all(self, cfg, model):
        self.freeze(model)
        assert examine(cfg, model, missing=[]) == []


class TestFrozenNorms:
    def put(self, model, norm):
        model.backbone.bottom_up.stem.conv1.norm = norm
        return norm

    @pytest.mark.parametrize("norm", [FrozenBatchNorm2d(32), nn.BatchNorm2d(32).eval()])
    def test_without_statistics(self, cfg, model, norm):
        self.put(model, norm)
        only(examine(cfg, model), "stop", "1 norms are frozen", "bottom_up.stem.conv1.norm", "GN or SyncBN")

    @pytest.mark.parametrize("tensor", ["weight", "running_mean"])
    def test_with_statistics_or_with_fused_ones(self, cfg, model, tensor):
        getattr(self.put(model, FrozenBatchNorm2d(32)), tensor).fill_(0.5)
        assert examine(cfg, model) == []

    def test_eval_mode_with_statistics(self, cfg, model):
        self.put(model, nn.BatchNorm2d(32).eval()).running_mean.fill_(0.5)
        assert examine(cfg, model) == []

    def test_in_a_model_that_does_not_train(self, cfg, model):
        self.put(model, nn.BatchNorm2d(32))
        assert examine(cfg, model.eval()) == []

    def test_weights_that_are_not_loaded_yet_are_not_judged(self, cfg, model):
        self.put(model, FrozenBatchNorm2d(32))
        cfg.MODEL.WEIGHTS = "own.pkl"
        assert examine(cfg, model) == []
        only(examine(cfg, model, missing=[]), "stop", "1 norms are frozen")


def test_coverage(cfg, model):
    cfg.MODEL.WEIGHTS = "own.pkl"
    missing = ["backbone.bottom_up.res2.0.conv1.weight", "roi_heads.box_head.fc1.weight"]
    assert examine(cfg, model, coverage=0.95, missing=missing) == []
    findings = examine(cfg, model, coverage=0.949, missing=missing)
    only(findings, "stop", "94.9%", "95%", "(not filled: backbone.bottom_up.res2.0.conv1.weight)")
    cfg.RETHINK.MIN_COVERAGE = 0.5
    assert examine(cfg, model, coverage=0.949, missing=missing) == []


class TestProfiles:
    BGR, RGB = [103.53, 116.28, 123.675], [123.675, 116.28, 103.53]

    @pytest.fixture
    def with_weights(self, cfg, model):
        """Findings for MODEL.WEIGHTS and other keys; the depth is one that has a stride in a 1x1."""

        def findings(weights, *opts):
            own = cfg.clone()
            own.merge_from_list(["MODEL.WEIGHTS", weights, "MODEL.RESNETS.DEPTH", 50, *opts])
            return examine(own, model)

        return findings

    @pytest.mark.parametrize(
        ("weights", "opts"),
        [
            (GN_WEIGHTS, []),
            ("/data/R-101-GN.pkl", []),
            (MSRA, ["MODEL.RESNETS.STRIDE_IN_1X1", True]),
            (
                TORCHVISION,
                ["INPUT.FORMAT", "RGB", "MODEL.PIXEL_MEAN", RGB, "MODEL.PIXEL_STD", [58.395, 57.12, 57.375]],
            ),
            ("unknown.pkl", ["MODEL.PIXEL_STD", [9.0, 9.0, 9.0], "MODEL.RESNETS.STRIDE_IN_1X1", True]),
        ],
    )
    def test_healthy(self, with_weights, weights, opts):
        assert with_weights(weights, *opts) == []

    @pytest.mark.parametrize(
        ("severity", "key", "value"),
        [
            ("stop", "MODEL.PIXEL_STD", [57.375, 57.12, 58.395]),
            ("stop", "MODEL.PIXEL_MEAN", RGB),
            ("stop", "MODEL.PIXEL_MEAN", [0.406, 0.456, 0.485]),
            ("warn", "MODEL.PIXEL_MEAN", [60.0, 60.0, 60.0]),  # measured on other data, say
            ("stop", "INPUT.FORMAT", "RGB"),
            ("stop", "MODEL.RESNETS.STRIDE_IN_1X1", True),
        ],
    )
    def test_sick(self, with_weights, severity, key, value):
        only(with_weights(GN_WEIGHTS, key, value), severity, f"{key} is {value}, but {GN_WEIGHTS}", "set")

    def test_torchvision_weights_with_the_settings_of_msra(self, with_weights):
        findings = with_weights(
            TORCHVISION, "MODEL.PIXEL_MEAN", self.BGR, "MODEL.RESNETS.STRIDE_IN_1X1", True
        )
        assert [finding.severity for finding in findings] == ["stop"] * 4

    def test_basic_blocks_have_no_1x1(self, with_weights):
        stride = ("MODEL.RESNETS.STRIDE_IN_1X1", True)
        assert with_weights(GN_WEIGHTS, *stride, "MODEL.RESNETS.DEPTH", 18) == []

    def test_other_channels_have_no_known_mean(self, with_weights):
        one = ("MODEL.PIXEL_MEAN", [30.0], "MODEL.PIXEL_STD", [9.0], "INPUT.FORMAT", "L")
        assert with_weights(GN_WEIGHTS, *one) == []

    def test_fused_statistics_need_frozen_bn(self, cfg, model):
        cfg.merge_from_list(["MODEL.WEIGHTS", "catalog://ImageNetPretrained/MSRA/R-50"])
        assert examine(cfg, model) == []
        model.backbone.bottom_up.stem.conv1.norm = nn.BatchNorm2d(32)
        only(examine(cfg, model), "stop", "no BatchNorm statistics", MSRA)
        cfg.MODEL.WEIGHTS = MSRA
        assert examine(cfg, model) == []

    def test_they_accept_the_configs_of_the_host(self):
        """All of its model zoo that start from a file we know."""
        package = Path(detectron2.__file__).parent
        folders = (package / "model_zoo" / "configs", package.parent / "configs")  # or a source tree
        folder = next(path for path in folders if path.is_dir())
        known = set()
        for path in sorted(folder.glob("*/*.yaml")):
            if path.parent.name == "quick_schedules":  # the host's own tests, not recipes
                continue
            cfg = get_cfg()
            add_rethink_config(cfg)
            try:
                cfg.merge_from_file(str(path))
            except KeyError:  # two of them do not load
                continue
            patient = Patient(cfg, nn.Module(), None, None, 1, None, None)
            assert check_profile(patient) == [], path
            known |= {cfg.MODEL.WEIGHTS} if find_profile(cfg.MODEL.WEIGHTS) else set()
        assert len(known) >= 4  # MSRA, and at least one with GN

    def test_no_pattern_hides_another(self):
        examples = {
            GN_WEIGHTS: 0,
            "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/47261647/R-50-GN.pkl": 0,
            TORCHVISION: 1,
            "catalog://ImageNetPretrained/MSRA/R-101": 2,
            MSRA: 3,
            "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/R-101.pkl": 3,
            "catalog://ImageNetPretrained/FAIR/X-101-64x4d": 4,
            "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/20171220/X-101-32x8d.pkl": 5,
            "detectron2://ImageNetPretrained/FAIR/X-101-32x8d.pkl": 6,
        }
        profiles = list(PROFILES.values())
        for weights, index in examples.items():
            assert find_profile(weights) is profiles[index], weights
        assert set(examples.values()) == set(range(len(profiles)))
        assert find_profile("output/model_final.pth") is find_profile("") is None
