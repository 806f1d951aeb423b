"""scratch_3x.yaml follows the paper's protocol key by key, and with d2_defaults the host's own config.

Two differences have no key, because they are the host's code: box widths without "+ 1", and
masks pasted more exactly. Detectron rescales its momentum when the learning rate drops; torch's SGD keeps
the learning rate out of the momentum, which comes to the same.
"""

import math
from pathlib import Path

import pytest
import torch
from conftest import flatten, host_config_file
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import Conv2d
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from rethink_pretrain.config import load_config
from rethink_pretrain.modeling.rpn import BatchTopkRPN

SCRATCH_3X = Path(__file__).parents[1] / "configs" / "scratch_3x.yaml"
HOST_3X = "Misc/scratch_mask_rcnn_R_50_FPN_3x_gn.yaml"

# Key: (the paper's, that is Detectron's, value; Detectron2's).
DIFFERENCES = {
    "INPUT.MIN_SIZE_TRAIN": ((800,), (640, 672, 704, 736, 768, 800)),
    "MODEL.PIXEL_MEAN": ([102.9801, 115.9465, 122.7717], [103.53, 116.28, 123.675]),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("BatchTopkRPN", "RPN"),  # 2000 of a batch of 2 or 1000 per image
    "MODEL.RPN.SMOOTH_L1_BETA": (1 / 9, 0.0),
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": (1.0, 0.0),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlign", "ROIAlignV2"),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": (2, 0),
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": ("ROIAlign", "ROIAlignV2"),
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": (2, 0),
    "SOLVER.WARMUP_ITERS": (500, 1000),
    "SOLVER.WARMUP_FACTOR": (1 / 3, 0.001),
    "SOLVER.BIAS_LR_FACTOR": (2.0, 1.0),
    "SOLVER.WEIGHT_DECAY_BIAS": (0.0, None),
    "RETHINK.INIT": ("detectron", "detectron2"),
    "RETHINK.REFERENCE_WARMUP_ITERS": (500, 1000),  # where WARMUP_ITERS comes from
    # Ours and not the paper's: a curve. It trains the same model.
    "TEST.EVAL_PERIOD": (20_000, 0),
    "RETHINK.REFERENCE_EVAL_PERIOD": (20_000, 0),
    "RETHINK.REFERENCE_CHECKPOINT_PERIOD": (5000, 0),
}
# The same in both, and what the paper or Detectron says.
AGREEMENTS = {
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.02,
    "SOLVER.MAX_ITER": 270_000,
    "SOLVER.STEPS": (210_000, 250_000),
    "SOLVER.GAMMA": 0.1,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.NESTEROV": False,
    "SOLVER.WEIGHT_DECAY": 0.0001,
    "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    "SOLVER.WARMUP_METHOD": "linear",
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
    "SOLVER.AMP.ENABLED": False,
    "INPUT.MAX_SIZE_TRAIN": 1333,
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "INPUT.FORMAT": "BGR",
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.CROP.ENABLED": False,
    "MODEL.WEIGHTS": "",
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.MASK_ON": True,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.POSITIVE_FRACTION": 0.5,
    "MODEL.RPN.IOU_THRESHOLDS": [0.3, 0.7],
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,  # Detectron's 81 count the background
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.5],
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 256,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (10.0, 10.0, 5.0, 5.0),
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 256,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": False,
    "TEST.DETECTIONS_PER_IMAGE": 100,
    "TEST.AUG.ENABLED": False,
}
# What stays different from the host's own file under d2_defaults: our registered parts and the device.
OUR_PARTS = {
    "MODEL.BACKBONE.NAME": ("build_rethink_resnet_fpn_backbone", "build_resnet_fpn_backbone"),
    "MODEL.ROI_BOX_HEAD.NAME": ("RethinkConvFCHead", "FastRCNNConvFCHead"),
    "MODEL.ROI_MASK_HEAD.NAME": ("RethinkMaskHead", "MaskRCNNConvUpsampleHead"),
    "MODEL.DEVICE": ("auto", "cuda"),
}


def load_host() -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(str(host_config_file(HOST_3X)))
    return cfg


@pytest.fixture(scope="module")
def paper() -> dict:
    return flatten(load_config(SCRATCH_3X))


@pytest.fixture(scope="module")
def d2_defaults() -> dict:
    return flatten(load_config(SCRATCH_3X, ["d2_defaults"]))


class TestConfig:
    @pytest.mark.parametrize("key", DIFFERENCES)
    def test_difference(self, paper, d2_defaults, key):
        ours, host = DIFFERENCES[key]
        assert paper[key] == ours
        assert d2_defaults[key] == host

    def test_no_other_difference(self, paper, d2_defaults):
        """The overlay switches every key of the protocol, and nothing beyond it."""
        assert paper.keys() == d2_defaults.keys()
        assert {key for key in paper if paper[key] != d2_defaults[key]} == DIFFERENCES.keys()

    @pytest.mark.parametrize("key", AGREEMENTS)
    def test_agreement(self, paper, d2_defaults, key):
        assert paper[key] == AGREEMENTS[key]
        assert d2_defaults[key] == AGREEMENTS[key]

    def test_d2_defaults_is_the_hosts_config(self, d2_defaults):
        host = flatten(load_host())
        differing = {key: (d2_defaults[key], host[key]) for key in host if d2_defaults[key] != host[key]}
        assert differing == OUR_PARTS
        ours = {key for key in d2_defaults.keys() - host.keys() if not key.startswith("RETHINK.")}
        assert ours == {"MODEL.ROI_BOX_HEAD.DROPOUT", "MODEL.ROI_KEYPOINT_HEAD.NORM", "MODEL.VGG.NORM"}
        assert not any(d2_defaults[key] for key in ours)  # none of them changes the host's model


def small(cfg: CfgNode) -> CfgNode:
    """The same model on the CPU, with fewer regions, because each costs four 3x3 convolutions."""
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    return cfg


@pytest.fixture(scope="module")
def paper_model() -> nn.Module:
    torch.manual_seed(0)
    return build_model(small(load_config(SCRATCH_3X)))


class TestNormPlaces:
    def test_counts(self, paper_model):
        """Stem, 16 blocks of three, four shortcuts; two per level of the FPN; four in each head."""
        names = [name for name, module in paper_model.named_modules() if isinstance(module, nn.GroupNorm)]
        expected = {
            "backbone.bottom_up.stem": 1,
            "backbone.bottom_up.res": 16 * 3 + 4,
            "backbone.fpn_lateral": 4,
            "backbone.fpn_output": 4,
            "roi_heads.box_head.conv": 4,
            "roi_heads.mask_head.mask_fcn": 4,
        }
        found = {place: sum(name.startswith(place) for name in names) for place in expected}
        assert found == expected
        assert len(names) == sum(expected.values()) == 69  # and so none in the RPN

    def test_settings(self, paper_model):
        norms = [module for module in paper_model.modules() if isinstance(module, nn.GroupNorm)]
        assert {(norm.num_groups, norm.eps) for norm in norms} == {(32, 1e-5)}
        assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)

    def test_no_other_norm(self, paper_model):
        others = (nn.modules.batchnorm._NormBase, nn.LayerNorm)
        assert not any(isinstance(module, others) for module in paper_model.modules())

    @pytest.mark.parametrize(
        "name",
        [
            "proposal_generator.rpn_head.conv",
            "proposal_generator.rpn_head.objectness_logits",
            "proposal_generator.rpn_head.anchor_deltas",
            "roi_heads.box_head.fc1",
            "roi_heads.box_predictor.cls_score",
            "roi_heads.box_predictor.bbox_pred",
            "roi_heads.mask_head.deconv",
            "roi_heads.mask_head.predictor",
        ],
    )
    def test_none_behind(self, paper_model, name):
        """These have a bias instead."""
        module = paper_model.get_submodule(name)
        assert getattr(module, "norm", None) is None
        assert module.bias is not None

    def test_the_next_layer_after_the_deconvolution(self, paper_model):
        children = [name for name, _ in paper_model.roi_heads.mask_head.named_children()]
        fcns = [f"mask_fcn{i}" for i in (1, 2, 3, 4)]
        assert children == [*fcns, "deconv", "deconv_relu", "predictor"]


class TestModelFollowsTheKeys:
    def test_poolers(self, paper_model):
        """ROIAlign is the one without the half-pixel shift."""
        for pooler, size in (("box_pooler", (7, 7)), ("mask_pooler", (14, 14))):
            levels = getattr(paper_model.roi_heads, pooler).level_poolers
            assert len(levels) == 4
            assert {(p.aligned, p.sampling_ratio, p.output_size) for p in levels} == {(False, 2, size)}

    def test_losses(self, paper_model):
        assert paper_model.proposal_generator.smooth_l1_beta == pytest.approx(1 / 9)
        assert paper_model.roi_heads.box_predictor.smooth_l1_beta == 1.0

    def test_proposals(self, paper_model):
        assert type(paper_model.proposal_generator) is BatchTopkRPN
        assert paper_model.proposal_generator.topk_per_image == 1000


def xavier(fan_in: int) -> float:
    return math.sqrt(1 / fan_in)


def msra(fan_out: int) -> float:
    return math.sqrt(2 / fan_out)


class TestInitialWeights:
    """Standard deviations of Detectron's code."""

    STDS = {
        "backbone.bottom_up.stem.conv1": xavier(3 * 49),
        "backbone.bottom_up.res2.0.shortcut": xavier(64),
        "backbone.bottom_up.res3.0.conv2": xavier(128 * 9),
        "backbone.bottom_up.res5.2.conv3": xavier(512),
        "backbone.fpn_lateral5": xavier(2048),
        "backbone.fpn_output2": xavier(256 * 9),
        "proposal_generator.rpn_head.conv": 0.01,
        "proposal_generator.rpn_head.objectness_logits": 0.01,
        "proposal_generator.rpn_head.anchor_deltas": 0.01,
        "roi_heads.box_head.conv1": msra(256 * 9),
        "roi_heads.box_head.conv4": msra(256 * 9),
        "roi_heads.box_head.fc1": xavier(256 * 49),
        "roi_heads.box_predictor.cls_score": 0.01,
        "roi_heads.box_predictor.bbox_pred": 0.001,
        "roi_heads.mask_head.mask_fcn1": msra(256 * 9),
        "roi_heads.mask_head.deconv": msra(256 * 4),
        "roi_heads.mask_head.predictor": msra(80),
    }

    @pytest.mark.parametrize("name", STDS)
    def test_standard_deviation(self, paper_model, name):
        weight = paper_model.get_submodule(name).weight.detach()
        five_standard_errors = 5 / math.sqrt(2 * weight.numel())
        assert weight.std().item() == pytest.approx(self.STDS[name], rel=five_standard_errors)

    def test_biases(self, paper_model):
        biases = [p for name, p in paper_model.named_parameters() if name.endswith(".bias")]
        assert all((bias == 0).all() for bias in biases)


class TestOptimizer:
    @staticmethod
    def settings(model: nn.Module, overlays: tuple[str, ...]) -> dict[str, tuple[float, float]]:
        """Parameter name -> (learning rate, weight decay) in the host's optimizer."""
        optimizer = build_optimizer(load_config(SCRATCH_3X, overlays), model)
        of = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
        names = {name: id(parameter) for name, parameter in model.named_parameters()}
        assert of.keys() == set(names.values())  # all are trained
        assert {group["momentum"] for group in optimizer.param_groups} == {0.9}
        return {name: of[identity] for name, identity in names.items()}

    @staticmethod
    def kinds(model: nn.Module) -> dict[str, str]:
        """Parameter name -> norm, norm bias, weight or bias."""
        ret = {}
        for prefix, module in model.named_modules():
            norm = "norm " if isinstance(module, nn.GroupNorm) else ""
            for name, _ in module.named_parameters(recurse=False):
                ret[f"{prefix}.{name}"] = f"{norm}{name}"
        return ret

    @pytest.mark.parametrize(
        ("overlays", "expected"),
        [
            # A GN bias is a bias first (Detectron's optimizer asks for that first): 2x, no decay.
            (
                (),
                {
                    "weight": (0.02, 1e-4),
                    "bias": (0.04, 0.0),
                    "norm weight": (0.02, 0.0),
                    "norm bias": (0.04, 0.0),
                },
            ),
            (
                ("d2_defaults",),
                {
                    "weight": (0.02, 1e-4),
                    "bias": (0.02, 1e-4),
                    "norm weight": (0.02, 0.0),
                    "norm bias": (0.02, 0.0),
                },
            ),
        ],
        ids=["paper", "d2_defaults"],
    )
    def test_groups(self, paper_model, overlays, expected):
        settings = self.settings(paper_model, overlays)
        kinds = self.kinds(paper_model)
        assert set(kinds.values()) == expected.keys()
        for name, kind in kinds.items():
            assert settings[name] == pytest.approx(expected[kind]), name


class TestLearningRate:
    @staticmethod
    def rates(overlays: tuple[str, ...], iterations: tuple[int, ...]) -> list[float]:
        """Of a weight at these iterations, through the host's scheduler."""
        cfg = load_config(SCRATCH_3X, overlays)
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], cfg.SOLVER.BASE_LR)
        scheduler = build_lr_scheduler(cfg, optimizer)
        rates = [optimizer.param_groups[0]["lr"]]
        for iteration in iterations[1:]:
            optimizer.step()
            scheduler.last_epoch = iteration - 1
            scheduler.step()
            rates.append(optimizer.param_groups[0]["lr"])
        return rates

    def test_paper(self):
        """Linear from a third to the whole at 500, then constant, then a tenth at each drop."""
        iterations = (0, 125, 250, 499, 500, 209_999, 210_000, 249_999, 250_000, 269_999)
        warmup = [0.02 / 3, 0.01, 0.04 / 3, 0.02 - 0.04 / 3 / 500]
        constant = [0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002]
        assert self.rates((), iterations) == pytest.approx([*warmup, *constant], rel=1e-6)

    def test_d2_defaults(self):
        """Linear from a thousandth to the whole at 1000."""
        rates = self.rates(("d2_defaults",), (0, 500, 1000))
        assert rates == pytest.approx([0.00002, 0.01001, 0.02], rel=1e-6)


def make_images() -> list[dict]:
    """Two synthetic images of different sizes with three objects in each, as the host's mapper gives them."""
    generator = torch.Generator().manual_seed(0)
    ret = []
    for height, width in ((160, 192), (192, 128)):
        corner = torch.rand(3, 2, generator=generator) * torch.tensor([width, height]) * 0.5
        size = 20 + torch.rand(3, 2, generator=generator) * 40
        boxes = torch.cat([corner, corner + size], 1)
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(boxes)
        instances.gt_classes = torch.tensor([0, 41, 79])
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].double().numpy()
        instances.gt_masks = PolygonMasks([[polygon] for polygon in corners])
        image = torch.randint(0, 256, (3, height, width), generator=generator).to(torch.uint8)
        ret.append({"image": image, "height": height, "width": width, "instances": instances})
    return ret


def losses_of(model: nn.Module) -> dict[str, float]:
    torch.manual_seed(0)  # the sampling of anchors and proposals
    with EventStorage(), torch.no_grad():
        return {name: loss.item() for name, loss in model.train()(make_images()).items()}


class TestLosses:
    NAMES = {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}

    @pytest.fixture(scope="class")
    @classmethod
    def host_model(cls, paper_model) -> nn.Module:
        """The host's model with the weights of ours: `strict`, so every name and shape agrees."""
        model = build_model(small(load_host()))
        model.load_state_dict(paper_model.state_dict(), strict=True)
        return model

    def test_d2_defaults_equals_the_host(self, paper_model, host_model):
        ours = build_model(small(load_config(SCRATCH_3X, ["d2_defaults"])))
        ours.load_state_dict(paper_model.state_dict(), strict=True)
        result = losses_of(ours)
        assert result.keys() == self.NAMES
        assert all(loss > 0 for loss in result.values())
        assert result == pytest.approx(losses_of(host_model), rel=1e-6)

    def test_protocol_changes_them(self, paper_model, host_model):
        """Or the comparison above would not see a forgotten key."""
        paper, host = losses_of(paper_model), losses_of(host_model)
        assert paper.keys() == self.NAMES
        for name in ("loss_rpn_loc", "loss_box_reg", "loss_mask"):
            assert paper[name] != pytest.approx(host[name], rel=1e-3)

    def test_every_part_learns(self, paper_model):
        """No parameter of the from-scratch model is out of the reach of the losses."""
        torch.manual_seed(0)
        with EventStorage():
            sum(paper_model.train()(make_images()).values()).backward()
        without = [name for name, p in paper_model.named_parameters() if p.grad is None or not p.grad.any()]
        paper_model.zero_grad()
        assert without == []


def test_every_conv_has_norm_or_bias(paper_model):
    for module in paper_model.modules():
        if isinstance(module, Conv2d):
            assert (module.norm is None) == (module.bias is not None)
