"""Initial weights of every kind of layer, against the closed forms of the table in modeling/init.py."""

import math
from functools import cache

import pytest
import torch
from conftest import REPOSITORY
from detectron2.modeling import build_model
from torch import nn

from rethink_pretrain.config import load_config
from rethink_pretrain.errors import UserError
from rethink_pretrain.modeling.init import (
    INITS,
    check_init,
    initialize_backbone,
    initialize_box_head,
    initialize_mask_predictor,
)

SCRATCH_6X = REPOSITORY / "configs" / "scratch_6x.yaml"


def xavier(shape: torch.Size) -> tuple[str, float]:
    """Caffe2's XavierFill: variance 1 / fan-in. A weight is (outputs, inputs / groups, height, width)."""
    return "uniform", math.sqrt(1 / math.prod(shape[1:]))


def msra(shape: torch.Size) -> tuple[str, float]:
    """Caffe2's MSRAFill: variance 2 / fan-out."""
    return "normal", math.sqrt(2 / (shape[0] * math.prod(shape[2:])))


def normal(std: float):
    return lambda shape: ("normal", std)


# Kind of layer -> what it starts from under each of INITS, in this order.
FILLS = {
    "backbone": (xavier, msra, msra),
    "box conv": (msra, msra, msra),
    "fc": (xavier, xavier, msra),
    "mask conv": (msra, msra, msra),
    "mask predictor": (msra, normal(0.001), msra),
    "fpn": (xavier, xavier, xavier),
    "0.01": (normal(0.01),) * 3,
    "0.001": (normal(0.001),) * 3,
}

RPN = {
    "proposal_generator.rpn_head.conv": "0.01",
    "proposal_generator.rpn_head.objectness_logits": "0.01",
    "proposal_generator.rpn_head.anchor_deltas": "0.01",
}
PREDICTOR = {"roi_heads.box_predictor.cls_score": "0.01", "roi_heads.box_predictor.bbox_pred": "0.001"}
LAYERS = {
    "R50": {
        "backbone.bottom_up.stem.conv1": "backbone",
        "backbone.bottom_up.res2.0.conv1": "backbone",  # 1x1
        "backbone.bottom_up.res5.2.conv3": "backbone",  # 1x1, four times as many outputs as inputs
        "backbone.bottom_up.res4.1.conv2": "backbone",  # 3x3
        "backbone.bottom_up.res3.0.shortcut": "backbone",
        "backbone.fpn_lateral2": "fpn",
        "backbone.fpn_lateral5": "fpn",
        "backbone.fpn_output3": "fpn",
        **RPN,
        "roi_heads.box_head.conv1": "box conv",
        "roi_heads.box_head.conv4": "box conv",
        "roi_heads.box_head.fc1": "fc",
        **PREDICTOR,
        "roi_heads.mask_head.mask_fcn1": "mask conv",
        "roi_heads.mask_head.mask_fcn4": "mask conv",
        "roi_heads.mask_head.deconv": "mask conv",  # as many inputs as outputs, so that the fans agree
        "roi_heads.mask_head.predictor": "mask predictor",
    },
    "X50": {"backbone.bottom_up.res3.1.conv2": "backbone", "backbone.bottom_up.res5.0.conv2": "backbone"},
    "VGG": {
        "backbone.conv1_1": "backbone",
        "backbone.conv2_1": "backbone",
        "backbone.conv5_3": "backbone",
        **RPN,
        "roi_heads.box_head.fc1": "fc",
        "roi_heads.box_head.fc2": "fc",
        **PREDICTOR,
    },
}
CHANGES = {
    "R50": ([], []),
    "X50": ([], ["MODEL.RESNETS.NUM_GROUPS", "32", "MODEL.RESNETS.WIDTH_PER_GROUP", "8"]),
    "VGG": (["vgg16"], ["MODEL.ROI_BOX_HEAD.FC_DIM", "512"]),  # a tenth of a second instead of seconds
}
every_init = pytest.mark.parametrize("init", INITS)
every_model = pytest.mark.parametrize("name", LAYERS)
every_layer = pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [(name, layer, kind) for name, layers in LAYERS.items() for layer, kind in layers.items()],
)


@cache
def build(name: str, init: str) -> nn.Module:
    overlays, opts = CHANGES[name]
    cfg = load_config(SCRATCH_6X, overlays, ["MODEL.DEVICE", "cpu", "RETHINK.INIT", init, *opts])
    torch.manual_seed(0)
    return build_model(cfg)


def last_name(layer: str) -> str:
    """ "mask_head.mask_fcn" of roi_heads.mask_head.mask_fcn3. With its parent, as two heads have a conv."""
    parent, _, name = layer.rpartition(".")
    return f"{parent.rpartition('.')[2]}.{name.rstrip('0123456789_')}"


def check_weights(weight: torch.Tensor, distribution: str, std: float) -> None:
    weight = weight.detach().double()
    number = weight.numel()
    # Five standard errors: std / sqrt(2n) for the deviation of a normal sample, less for a uniform one.
    assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * number))
    assert abs(weight.mean()) < 5 * std / math.sqrt(number)
    bound = math.sqrt(3) * std  # of the uniform distribution of this deviation
    largest = weight.abs().max().item()
    if distribution == "uniform":
        assert bound * (1 - 20 / number) < largest <= bound * (1 + 1e-6)
    else:
        assert largest > 1.2 * bound  # missed by all of 700 normal numbers with a chance of 1e-12


def test_the_names():
    assert INITS == ("detectron", "detectron2", "msra")
    assert all(len(fills) == len(INITS) for fills in FILLS.values())


@every_init
class TestWeights:
    @every_layer
    def test_distribution(self, name, layer, kind, init):
        weight = build(name, init).get_submodule(layer).weight
        check_weights(weight, *FILLS[kind][INITS.index(init)](weight.shape))

    @every_model
    def test_all_other_layers(self, name, init):
        """Every other weight starts as its kind."""
        model = build(name, init)
        kinds = {last_name(layer): kind for layers in LAYERS.values() for layer, kind in layers.items()}
        for layer, module in model.named_modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                of_resnet = layer.startswith("backbone.bottom_up.")
                fills = FILLS["backbone" if of_resnet else LAYERS[name].get(layer) or kinds[last_name(layer)]]
                check_weights(module.weight, *fills[INITS.index(init)](module.weight.shape))

    @every_model
    def test_biases_and_norms(self, name, init):
        """Zero-initialised last norms of the residual blocks would be among them."""
        norms = 0
        for module in build(name, init).modules():
            if isinstance(module, nn.GroupNorm):
                norms += 1
                assert (module.weight == 1).all()
            if getattr(module, "bias", None) is not None:
                assert (module.bias == 0).all()
        assert norms == (0 if name == "VGG" else 69)

    def test_groups(self, init):
        conv = build("X50", init).get_submodule("backbone.bottom_up.res3.1.conv2")
        assert (conv.groups, conv.weight.shape) == (32, (512, 16, 3, 3))


class TestFunctions:
    CASES = {
        initialize_backbone: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 2)),
        initialize_box_head: nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 2)),
        initialize_mask_predictor: nn.Conv2d(3, 4, 1),
    }
    CHANGED = {
        initialize_backbone: {"detectron": {"0.weight"}},
        initialize_box_head: {"msra": {"2.weight"}},
        initialize_mask_predictor: {"detectron": {"weight"}, "msra": {"weight"}},
    }

    @every_init
    @pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
    def test_touches_only_its_own(self, function, init):
        """The weights of the builder stay where they are already right; the fills set the biases to 0."""
        module = self.CASES[function]
        for parameter in module.parameters():
            nn.init.constant_(parameter, 0.0 if parameter.ndim == 1 else 7.0)
        function(module, init)
        changed = {n for n, p in module.named_parameters() if not (p == (0.0 if p.ndim == 1 else 7.0)).all()}
        assert changed == self.CHANGED[function].get(init, set())

    @pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__)
    def test_unknown(self, function):
        with pytest.raises(
            UserError, match=r"Unknown RETHINK\.INIT 'xavier'\. Choose from detectron, detectron2, msra"
        ):
            function(self.CASES[function], "xavier")

    @every_init
    def test_known(self, init):
        check_init(init)
