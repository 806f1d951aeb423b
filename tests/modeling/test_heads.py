"""Our box and mask heads against the host's, with every norm, and the mask predictor's initial weights."""

import copy
import math

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling.roi_heads import (
    FastRCNNConvFCHead,
    MaskRCNNConvUpsampleHead,
    build_box_head,
    build_mask_head,
)
from torch import nn

from rethink_pretrain.config import add_rethink_config
from rethink_pretrain.errors import UserError
from rethink_pretrain.layers import NORMS, SyncBatchNorm
from rethink_pretrain.modeling.heads import RethinkConvFCHead, RethinkMaskHead

# Our name -> the class that a convolution gets, and the host's name for the same arithmetic in one process.
NORM_CASES = {
    "GN": (nn.GroupNorm, "GN"),
    "SyncBN": (SyncBatchNorm, "BN"),
    "BN": (nn.BatchNorm2d, "BN"),
    "FrozenBN": (FrozenBatchNorm2d, "FrozenBN"),
    "none": (type(None), ""),
    "": (type(None), ""),
}
NUM_CLASSES = 5
BOX_SHAPE = ShapeSpec(channels=32, height=7, width=7)
MASK_SHAPE = ShapeSpec(channels=32, height=14, width=14)


def kind_of(norm: nn.Module | None) -> type:
    """A fused GroupNorm counts as one."""
    return nn.GroupNorm if isinstance(norm, nn.GroupNorm) else type(norm)


def make_cfg(norm: str, init: str = "detectron2") -> CfgNode:
    cfg = get_cfg()
    add_rethink_config(cfg)
    cfg.RETHINK.INIT = init
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = NUM_CLASSES
    cfg.MODEL.ROI_BOX_HEAD.update(
        NAME="RethinkConvFCHead", NUM_CONV=2, CONV_DIM=64, NUM_FC=1, FC_DIM=48, NORM=norm
    )
    cfg.MODEL.ROI_MASK_HEAD.update(NAME="RethinkMaskHead", NUM_CONV=2, CONV_DIM=64, NORM=norm)
    return cfg


def make_input(shape: ShapeSpec, seed: int = 0) -> torch.Tensor:
    size = (3, shape.channels, shape.height, shape.width)
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def same_draws(build_ours, build_host) -> tuple[nn.Module, nn.Module]:
    """Both built from the same state of the random numbers."""
    modules = []
    for build in (build_ours, build_host):
        torch.manual_seed(0)
        modules.append(build())
    return tuple(modules)


def convs_of(head: nn.Module) -> list[Conv2d]:
    return [module for name, module in head.named_modules() if type(module) is Conv2d and name != "predictor"]


def test_every_norm_is_tested():
    assert NORM_CASES.keys() == NORMS.keys()


@pytest.mark.parametrize("norm", NORM_CASES)
class TestBoxHead:
    def test_layers(self, norm):
        head = build_box_head(make_cfg(norm), BOX_SHAPE)
        assert type(head) is RethinkConvFCHead
        expected, _ = NORM_CASES[norm]
        assert len(convs_of(head)) == 2
        for conv in convs_of(head):
            assert kind_of(conv.norm) is expected
            assert (conv.bias is None) == (conv.norm is not None)
        assert head.fc1.in_features == 64 * 7 * 7
        assert head.output_shape == ShapeSpec(channels=48)
        assert head(make_input(BOX_SHAPE)).shape == (3, 48)

    def test_equals_the_host(self, norm):
        """From the same random numbers the same weights, and from them the same outputs."""
        ours, host = same_draws(
            lambda: build_box_head(make_cfg(norm), BOX_SHAPE),
            lambda: FastRCNNConvFCHead(
                BOX_SHAPE, conv_dims=[64, 64], fc_dims=[48], conv_norm=NORM_CASES[norm][1]
            ),
        )
        torch.testing.assert_close(dict(ours.state_dict()), dict(host.state_dict()), rtol=0, atol=0)
        x = make_input(BOX_SHAPE)
        torch.testing.assert_close(ours(x), host(x), rtol=0, atol=0)  # training: with batch statistics
        torch.testing.assert_close(ours.eval()(x), host.eval()(x), rtol=0, atol=0)

    def test_plain_values(self, norm):
        """Without a config, as LazyConfig builds it, the norm is a name of `NORMS` all the same."""
        head = RethinkConvFCHead(BOX_SHAPE, conv_dims=[64], fc_dims=[48], conv_norm=norm)
        assert [kind_of(conv.norm) for conv in convs_of(head)] == [NORM_CASES[norm][0]]


@pytest.mark.parametrize("norm", NORM_CASES)
class TestMaskHead:
    def test_layers(self, norm):
        head = build_mask_head(make_cfg(norm), MASK_SHAPE)
        assert type(head) is RethinkMaskHead
        expected, _ = NORM_CASES[norm]
        assert len(convs_of(head)) == 2
        for conv in convs_of(head):
            assert kind_of(conv.norm) is expected
            assert (conv.bias is None) == (conv.norm is not None)
        assert type(head.deconv) is nn.ConvTranspose2d  # of torch: it has no place for a norm
        assert head.deconv.bias is not None
        assert head.predictor.norm is None
        assert head.predictor.bias is not None
        assert head.layers(make_input(MASK_SHAPE)).shape == (3, NUM_CLASSES, 28, 28)

    def test_equals_the_host(self, norm):
        ours, host = same_draws(
            lambda: build_mask_head(make_cfg(norm), MASK_SHAPE),
            lambda: MaskRCNNConvUpsampleHead(
                MASK_SHAPE,
                num_classes=NUM_CLASSES,
                conv_dims=[64, 64, 64],
                conv_norm=NORM_CASES[norm][1],
            ),
        )
        torch.testing.assert_close(dict(ours.state_dict()), dict(host.state_dict()), rtol=0, atol=0)
        x = make_input(MASK_SHAPE)
        torch.testing.assert_close(ours.layers(x), host.layers(x), rtol=0, atol=0)
        torch.testing.assert_close(ours.eval().layers(x), host.eval().layers(x), rtol=0, atol=0)

    def test_plain_values(self, norm):
        head = RethinkMaskHead(MASK_SHAPE, num_classes=NUM_CLASSES, conv_dims=[64, 64], conv_norm=norm)
        assert [kind_of(conv.norm) for conv in convs_of(head)] == [NORM_CASES[norm][0]]


class TestMaskPredictorInit:
    """A 1x1 convolution from 256 channels to 80 classes: 20,480 weights."""

    @staticmethod
    def build(init: str) -> RethinkMaskHead:
        cfg = make_cfg("GN", init)
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
        cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 256
        torch.manual_seed(0)
        return build_mask_head(cfg, MASK_SHAPE)

    @pytest.mark.parametrize(
        ("init", "std"),
        [("detectron", math.sqrt(2 / 80)), ("detectron2", 0.001)],  # MSRAFill: fan-out 80
    )
    def test_standard_deviation(self, init, std):
        predictor = self.build(init).predictor
        # Five standard errors of a sample of 20,480 are 2.5 %.
        assert predictor.weight.std().item() == pytest.approx(std, rel=0.025)
        assert abs(predictor.weight.mean()) < 5 * std / math.sqrt(20_480)
        assert 0.0015 < (predictor.weight.abs() > 3 * std).float().mean() < 0.004  # normal: 0.0027
        assert (predictor.bias == 0).all()

    def test_nothing_else_differs(self):
        first, second = (dict(self.build(init).state_dict()) for init in ("detectron", "detectron2"))
        differing = [name for name in first if not torch.equal(first[name], second[name])]
        assert differing == ["predictor.weight"]

    def test_unknown(self):
        with pytest.raises(UserError) as info:
            self.build("caffe2")
        assert str(info.value) == "Unknown RETHINK.INIT 'caffe2'. Choose from detectron, detectron2, msra."


class TestConfig:
    @pytest.mark.parametrize(("build", "shape"), [(build_box_head, BOX_SHAPE), (build_mask_head, MASK_SHAPE)])
    def test_unknown_norm(self, build, shape):
        with pytest.raises(UserError, match="Unknown norm 'LN'"):
            build(make_cfg("LN"), shape)

    def test_class_agnostic_masks(self):
        cfg = make_cfg("GN")
        cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = True
        assert build_mask_head(cfg, MASK_SHAPE).predictor.out_channels == 1

    @pytest.mark.parametrize(("build", "shape"), [(build_box_head, BOX_SHAPE), (build_mask_head, MASK_SHAPE)])
    def test_the_config_is_not_changed(self, build, shape):
        cfg = make_cfg("none")
        before = copy.deepcopy(cfg)
        build(cfg, shape)
        assert cfg == before


class TestDropout:
    """Of the activations behind each fully connected layer, as in VGG-16's box head."""

    @staticmethod
    def build(dropout: float, num_fc: int = 2) -> RethinkConvFCHead:
        cfg = make_cfg("")
        cfg.MODEL.ROI_BOX_HEAD.update(NUM_CONV=0, NUM_FC=num_fc, FC_DIM=4096, DROPOUT=dropout)
        torch.manual_seed(0)
        return build_box_head(cfg, BOX_SHAPE)

    def test_places(self):
        names = ["flatten", "fc1", "fc_relu1", "fc2", "fc_relu2"]
        assert [name for name, _ in self.build(0.5).named_children()] == names
        relu, drop = self.build(0.3).fc_relu2
        assert type(relu) is nn.ReLU and drop.p == 0.3

    def test_weights_are_those_without(self):
        with_dropout, without = self.build(0.5).state_dict(), self.build(0.0).state_dict()
        torch.testing.assert_close(dict(with_dropout), dict(without), rtol=0, atol=0)

    def test_zero_is_the_host(self):
        ours, host = same_draws(
            lambda: self.build(0.0), lambda: FastRCNNConvFCHead(BOX_SHAPE, conv_dims=[], fc_dims=[4096, 4096])
        )
        assert repr(ours).replace("RethinkConvFCHead", "FastRCNNConvFCHead") == repr(host)

    def test_testing_drops_nothing(self):
        x = make_input(BOX_SHAPE)
        torch.testing.assert_close(self.build(0.5).eval()(x), self.build(0.0)(x), rtol=0, atol=0)

    @pytest.mark.parametrize("dropout", [0.25, 0.5])
    def test_training(self, dropout):
        """Each activation is 0 with that chance, else 1 / (1 - chance) times what it was."""
        x = make_input(BOX_SHAPE)
        full, dropped = self.build(0.0, num_fc=1)(x), self.build(dropout, num_fc=1)(x)
        active = full > 0
        kept = dropped[active] > 0
        error = math.sqrt(dropout * (1 - dropout) / active.sum())
        assert abs(kept.float().mean() - (1 - dropout)) < 5 * error
        torch.testing.assert_close(dropped[active][kept], full[active][kept] / (1 - dropout))
        assert (dropped[~active] == 0).all()


class TestBoxHeadInit:
    """All but "msra" leave what the host draws; the distributions are in test_init.py."""

    @pytest.mark.parametrize("init", ["detectron", "detectron2"])
    def test_as_the_host(self, init):
        ours, host = same_draws(
            lambda: build_box_head(make_cfg("GN", init), BOX_SHAPE),
            lambda: FastRCNNConvFCHead(BOX_SHAPE, conv_dims=[64, 64], fc_dims=[48], conv_norm="GN"),
        )
        torch.testing.assert_close(dict(ours.state_dict()), dict(host.state_dict()), rtol=0, atol=0)

    def test_unknown(self):
        with pytest.raises(UserError, match=r"Unknown RETHINK\.INIT 'caffe2'"):
            build_box_head(make_cfg("GN", "caffe2"), BOX_SHAPE)
