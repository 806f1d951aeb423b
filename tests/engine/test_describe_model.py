"""The numbers of models against sums by hand, and the small readers behind tools/check_configs.py."""

import pytest
from conftest import REPOSITORY
from torch import nn

from rethink_pretrain.config import load_config
from rethink_pretrain.engine.describe_model import (
    Description,
    compare,
    count_norms,
    describe_model,
    describe_schedule,
)
from rethink_pretrain.errors import UserError

CONFIGS = REPOSITORY / "configs"
PIXELS = {f"p{level}": -(-800 // 2**level) * -(-1216 // 2**level) for level in range(2, 8)}
RETINANET = [
    *("MODEL.META_ARCHITECTURE", "RethinkRetinaNet", "MODEL.RETINANET.NORM", "GN", "MODEL.MASK_ON", "False"),
    *("MODEL.BACKBONE.NAME", "build_rethink_retinanet_resnet_fpn_backbone"),
    *("MODEL.RESNETS.OUT_FEATURES", "['res3','res4','res5']"),
    *("MODEL.FPN.IN_FEATURES", "['res3','res4','res5']"),
]
PANOPTIC = [
    *("MODEL.META_ARCHITECTURE", "PanopticFPN", "MODEL.SEM_SEG_HEAD.NAME", "RethinkSemSegFPNHead"),
    *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "54"),
]
KEYPOINTS = ["MODEL.KEYPOINT_ON", "True", "MODEL.ROI_KEYPOINT_HEAD.NAME", "RethinkKeypointHead"]


@pytest.fixture(scope="module")
def describe():
    known = {}

    def run(name="scratch_6x", overlays=(), opts=()):
        return describe_model(load_config(CONFIGS / f"{name}.yaml", overlays, opts), known)

    run.known = known
    return run


def conv(kernel: int, inputs: int, outputs: int, pixels: int) -> float:
    """GFLOPs of a convolution with that many output pixels: 2 x multiply-adds."""
    return 2 * kernel**2 * inputs * outputs * pixels / 1e9


class TestGflops:
    def test_mask_rcnn(self, describe):
        """RPN and heads summed by hand; the backbone's 269 was derived by others for this model."""
        gflops = describe().gflops
        rpn = sum(conv(3, 256, 256, PIXELS[p]) + conv(1, 256, 3 * 5, PIXELS[p]) for p in list(PIXELS)[:5])
        box = 4 * conv(3, 256, 256, 512 * 49) + conv(7, 256, 1024, 512) + conv(1, 1024, 81 + 320, 512)
        mask = 4 * conv(3, 256, 256, 128 * 196)
        mask += 4 * conv(1, 256, 256, 128 * 196) + conv(1, 256, 80, 128 * 784)  # 2x2 deconvolution, predictor
        assert gflops == pytest.approx({"backbone": 269, "rpn": rpn, "box": box, "mask": mask}, abs=0.5)
        assert {part: gflops[part] for part in ("rpn", "box", "mask")} == pytest.approx(
            {"rpn": rpn, "box": box, "mask": mask}, rel=1e-9
        )

    def test_vgg(self, describe):
        gflops = describe(overlays=["vgg16"]).gflops
        widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
        sides = [1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 16, 16, 16]
        pairs = zip(widths, widths[1:], sides, strict=False)
        expected = {
            "backbone": sum(conv(3, a, b, 800 * 1216 // side**2) for a, b, side in pairs),
            "rpn": conv(3, 512, 512, 50 * 76) + conv(1, 512, 15 * 5, 50 * 76),
            "box": conv(7, 512, 4096, 512) + conv(1, 4096, 4096, 512) + conv(1, 4096, 81 + 320, 512),
        }
        assert gflops == pytest.approx(expected, rel=1e-9)

    def test_groups(self, describe):
        """X152 32x8d: its 3x3 convolutions have a 32nd of the weights that they had without groups."""
        opts = ["MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.WIDTH_PER_GROUP"]
        grouped = describe(opts=[*opts, "8", "MODEL.RESNETS.NUM_GROUPS", "32"]).gflops["backbone"]
        plain = describe(opts=[*opts, "256"]).gflops["backbone"]
        blocks = {256: (3, "p2"), 512: (4, "p3"), 1024: (6, "p4"), 2048: (3, "p5")}
        dense = sum(count * conv(3, width, width, PIXELS[p]) for width, (count, p) in blocks.items())
        assert plain - grouped == pytest.approx(dense * 31 / 32, rel=1e-9)

    def test_cascade(self, describe):
        """Three box heads, class-agnostic, also while the paper's switch has two of them off."""
        expected = 3 * (
            4 * conv(3, 256, 256, 512 * 49) + conv(7, 256, 1024, 512) + conv(1, 1024, 81 + 4, 512)
        )
        for iterations in ("0", "270000"):
            opts = ["RETHINK.CASCADE_ITERS", iterations]
            assert describe(overlays=["cascade"], opts=opts).gflops["box"] == pytest.approx(
                expected, rel=1e-9
            )

    def test_keypoints(self, describe):
        expected = conv(3, 256, 512, 128 * 196) + 7 * conv(3, 512, 512, 128 * 196)
        expected += conv(4, 512, 17, 128 * 196)  # a deconvolution works on its input pixels
        assert describe(opts=KEYPOINTS).gflops["keypoint"] == pytest.approx(expected, rel=1e-9)

    def test_retinanet(self, describe):
        result = describe(opts=RETINANET)
        pixels = sum(PIXELS[f"p{level}"] for level in range(3, 8))
        expected = 8 * conv(3, 256, 256, pixels) + conv(3, 256, 3 * (80 + 4), pixels)
        assert result.gflops.keys() == {"backbone", "retinanet"}
        assert result.gflops["retinanet"] == pytest.approx(expected, rel=1e-9)

    def test_panoptic(self, describe):
        """One convolution to 128 channels, one more for p4, two for p5; the classes at stride 4."""
        result = describe(opts=PANOPTIC)
        expected = sum(conv(3, 256, 128, PIXELS[p]) for p in ("p2", "p3", "p4", "p5"))
        for pixels in ("p3", "p4", "p3"):  # behind the upsampling of p4, of p5 and of p5 once more
            expected += conv(3, 128, 128, PIXELS[pixels])
        expected += conv(1, 128, 54, PIXELS["p2"])
        assert result.gflops.keys() == {"backbone", "rpn", "box", "mask", "sem_seg"}
        assert result.gflops["sem_seg"] == pytest.approx(expected, rel=1e-9)

    def test_no_box_head(self, describe):
        opts = ["MODEL.BACKBONE.NAME", "build_rethink_resnet_backbone", "MODEL.MASK_ON", "False"]
        opts += ["MODEL.RESNETS.OUT_FEATURES", "['res4']", "MODEL.RPN.IN_FEATURES", "['res4']"]
        opts += ["MODEL.ANCHOR_GENERATOR.SIZES", "[[32,64]]", "MODEL.ROI_HEADS.IN_FEATURES", "['res4']"]
        with pytest.raises(UserError, match="Res5ROIHeads has no box head"):
            describe(opts=[*opts, "MODEL.ROI_HEADS.NAME", "Res5ROIHeads"])


class TestDescription:
    def test_counts(self, describe):
        """By hand in tests/test_configs.py; 53 norms in the backbone, 8 in the FPN, 4 in each head."""
        scratch, finetune = describe(), describe("finetune_6x")
        assert (scratch.total, scratch.trainable, scratch.frozen) == (45_711_152, 45_711_152, 0)
        assert (finetune.total, finetune.trainable, finetune.frozen) == (45_711_152, 45_485_808, 225_344)
        assert scratch.norms == {"GN": 53 + 8 + 4 + 4}

    def test_golden(self):
        description = Description(10, 7, {}, {"backbone": 1.234, "box": 20.1})
        assert description.frozen == 3
        assert description.golden() == {"total": 10, "trainable": 7, "gflops": 21.33}

    def test_norms(self, describe):
        opts = [word for part in ("RESNETS", "FPN") for word in (f"MODEL.{part}.NORM", "SyncBN")]
        mixed = describe(opts=opts)
        assert mixed.norms == {"SyncBN": 61, "GN": 8}
        assert mixed.describe_norms() == "GN 8, SyncBN 61"
        assert describe(overlays=["vgg16"]).describe_norms() == "none"
        assert describe(overlays=["vgg16", "vgg16_gn"]).norms == {"GN": 13}

    def test_a_norm_without_a_name_here(self):
        model = nn.Sequential(nn.InstanceNorm2d(4), nn.BatchNorm2d(4), nn.Conv2d(1, 1, 1))
        assert count_norms(model) == {"InstanceNorm2d": 1, "BN": 1}

    def test_the_same_model_is_built_once(self, describe):
        first = describe("scratch_3x")
        number = len(describe.known)
        assert describe("scratch_2x", opts=["SOLVER.IMS_PER_BATCH", "8"]) is first
        assert len(describe.known) == number
        assert describe("scratch_3x", opts=["RETHINK.INIT", "msra"]) is not first

    def test_the_config_stays(self):
        cfg = load_config(CONFIGS / "toy" / "scratch_mask_rcnn_R_18_FPN_gn.yaml")
        cfg.freeze()
        before = cfg.dump()
        describe_model(cfg)
        assert cfg.dump() == before and cfg.is_frozen()

    def test_schedule(self):
        cfg = load_config(CONFIGS / "scratch_6x.yaml", opts=["SOLVER.IMS_PER_BATCH", "64"])
        assert describe_schedule(cfg) == "135000 it, drops 120000 130000, LR 0.08, batch 64"


class TestGolden:
    def test_compare(self):
        golden = {"total": 3, "trainable": 2, "gflops": 1.5}
        assert compare(golden, dict(golden)) == ""
        assert compare(None, golden) == "not in the golden file"
        found = {"total": 3, "trainable": 3, "gflops": 1.51}
        assert compare(golden, found) == "trainable 3, golden file 2, gflops 1.51, golden file 1.5"
        assert compare({"total": 3}, {"total": 3, "gflops": 1.0}) == "gflops 1.0, golden file None"
