"""Our ResNet against the host's: the same layers, the same outputs, and initial weights in closed form."""

import math

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling.backbone import ResNet, build_resnet_backbone
from torch import nn

from rethink_pretrain.config import add_rethink_config
from rethink_pretrain.errors import UserError
from rethink_pretrain.layers import NORMS
from rethink_pretrain.modeling.backbone import (
    add_missing_biases,
    build_resnet,
    build_rethink_resnet_backbone,
    build_rethink_resnet_fpn_backbone,
)

RGB = ShapeSpec(channels=3)
STAGES = ("res2", "res3", "res4", "res5")


def make_cfg(depth: int, norm: str = "GN", **resnets) -> CfgNode:
    """A host config for that ResNet, with nothing frozen."""
    cfg = get_cfg()
    add_rethink_config(cfg)
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.update(DEPTH=depth, NORM=norm, OUT_FEATURES=list(STAGES), STRIDE_IN_1X1=False)
    if depth < 50:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.update(resnets)
    return cfg


def build_pair(cfg: CfgNode) -> tuple[ResNet, ResNet]:
    """Ours and the host's from the same config."""
    return build_rethink_resnet_backbone(cfg, RGB), build_resnet_backbone(cfg, RGB)


def shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


class TestArchitecture:
    @pytest.mark.parametrize(
        ("depth", "options"),
        [
            (18, {}),
            (34, {}),
            (50, {}),
            (101, {}),
            (152, {}),
            (50, {"NUM_GROUPS": 32, "WIDTH_PER_GROUP": 4}),
            (152, {"NUM_GROUPS": 32, "WIDTH_PER_GROUP": 8}),  # X152 of the paper
            (50, {"STEM_OUT_CHANNELS": 32, "RES2_OUT_CHANNELS": 128}),
            (18, {"OUT_FEATURES": ["res3", "res4"]}),
            (50, {"OUT_FEATURES": ["stem", "res4"]}),
        ],
    )
    @pytest.mark.parametrize("norm", ["GN", "FrozenBN"])
    def test_names_and_shapes(self, depth, options, norm):
        with torch.device("meta"):
            ours, host = build_pair(make_cfg(depth, norm, **options))
        assert shapes(ours) == shapes(host)
        assert ours.output_shape() == host.output_shape()

    @pytest.mark.parametrize(
        ("depth", "options"),
        [
            (18, {}),
            (50, {}),
            (50, {"STRIDE_IN_1X1": True}),
            (50, {"NUM_GROUPS": 32, "WIDTH_PER_GROUP": 4, "STRIDE_IN_1X1": True}),
        ],
    )
    def test_outputs(self, depth, options):
        ours, host = build_pair(make_cfg(depth, **options))
        ours.load_state_dict(host.state_dict(), strict=True)
        x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            result, expected = ours(x), host(x)
        torch.testing.assert_close(result, expected, rtol=0, atol=0)
        channels = 64 if depth == 18 else 256
        for index, name in enumerate(STAGES):
            size = (2, channels * 2**index, 16 // 2**index, 24 // 2**index)
            assert result[name].shape == size

    @pytest.mark.parametrize("stride_in_1x1", [True, False])
    def test_place_of_the_stride(self, stride_in_1x1):
        with torch.device("meta"):
            resnet = build_resnet(50, "GN", stride_in_1x1=stride_in_1x1)
        for name in ("res3", "res4", "res5"):
            first, *others = getattr(resnet, name)
            strides = [conv.stride[0] for conv in (first.conv1, first.conv2, first.conv3, first.shortcut)]
            assert strides == ([2, 1, 1, 2] if stride_in_1x1 else [1, 2, 1, 2])
            assert all(conv.stride == (1, 1) for block in others for conv in block.children())

    def test_the_stride_of_plain_values_is_the_papers(self):
        with torch.device("meta"):
            assert build_resnet(50, "GN").res3[0].conv2.stride == (2, 2)

    @pytest.mark.parametrize("depth", [18, 50])
    def test_without_norm_as_the_host_plus_biases(self, depth):
        """The host gives these convolutions neither norm nor bias."""
        ours, host = build_pair(make_cfg(depth, ""))
        biases = shapes(ours).keys() - shapes(host).keys()
        convs = [name for name, module in ours.named_modules() if isinstance(module, Conv2d)]
        assert biases == {f"{name}.bias" for name in convs}
        missing, unexpected = ours.load_state_dict(host.state_dict(), strict=False)
        assert (set(missing), unexpected) == (biases, [])
        x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(ours(x), host(x))
        assert all(ours.get_parameter(name).requires_grad for name in biases)

    def test_add_missing_biases_only_where_missing(self):
        module = nn.Sequential(
            Conv2d(4, 5, 1, bias=False),
            Conv2d(4, 5, 1, bias=True),
            Conv2d(4, 5, 1, bias=False, norm=nn.BatchNorm2d(5)),
        )
        kept = module[1].bias
        add_missing_biases(module)
        assert module[0].bias.tolist() == [0] * 5
        assert module[1].bias is kept
        assert module[2].bias is None

    def test_fpn(self):
        """Levels p2 to p6 of 256 channels; lateral and output convolutions have the norm of MODEL.FPN."""
        cfg = make_cfg(18, "BN")
        cfg.MODEL.FPN.update(IN_FEATURES=list(STAGES), NORM="GN")
        fpn = build_rethink_resnet_fpn_backbone(cfg, RGB)
        assert {name: spec.stride for name, spec in fpn.output_shape().items()} == {
            f"p{level}": 2**level for level in range(2, 7)
        }
        assert {spec.channels for spec in fpn.output_shape().values()} == {256}
        for level in range(2, 6):
            for conv in (getattr(fpn, f"fpn_lateral{level}"), getattr(fpn, f"fpn_output{level}")):
                assert isinstance(conv.norm, nn.GroupNorm)
                assert conv.bias is None
        assert type(fpn.bottom_up.stem.conv1.norm) is nn.BatchNorm2d
        features = fpn(torch.zeros(1, 3, 64, 128))
        assert features["p6"].shape == (1, 256, 1, 2)


class TestFreezing:
    @pytest.mark.parametrize("freeze_at", range(6))
    def test_group_norm(self, freeze_at):
        with torch.device("meta"):
            resnet = build_resnet(50, "GN", freeze_at=freeze_at)
        frozen = ["stem", *STAGES][:freeze_at]
        for name, parameter in resnet.named_parameters():
            assert parameter.requires_grad == (name.split(".")[0] not in frozen)

    def test_nothing_by_default(self):
        with torch.device("meta"):
            assert all(parameter.requires_grad for parameter in build_resnet(18, "GN").parameters())

    @pytest.mark.parametrize("name", ["BN", "SyncBN"])
    def test_batch_norms_become_frozen_ones(self, name):
        """As in the host: their statistics must not move either."""
        resnet = build_resnet(18, name, res2_channels=64, freeze_at=2)
        for part in (resnet.stem, resnet.res2):
            norms = [m.norm for m in part.modules() if isinstance(m, Conv2d)]
            assert all(type(norm) is FrozenBatchNorm2d for norm in norms)
        norms = [m.norm for m in resnet.res3.modules() if isinstance(m, Conv2d)]
        assert all(type(norm) is NORMS[name] for norm in norms)
        assert all(parameter.requires_grad for parameter in resnet.res3.parameters())

    def test_from_config(self):
        cfg = make_cfg(18)
        cfg.MODEL.BACKBONE.FREEZE_AT = 1
        resnet = build_rethink_resnet_backbone(cfg, RGB)
        assert not any(parameter.requires_grad for parameter in resnet.stem.parameters())
        assert all(parameter.requires_grad for parameter in resnet.res2.parameters())


def fans(conv: Conv2d) -> tuple[int, int]:
    """Fan-in and fan-out as Caffe2's fillers count them: weights per output, per input channel."""
    out_channels, in_channels_per_group, height, width = conv.weight.shape
    return in_channels_per_group * height * width, out_channels * height * width


@pytest.fixture(scope="module", params=[{}, {"num_groups": 32, "width_per_group": 4}], ids=["R50", "X50"])
def convs(request) -> dict[str, list[Conv2d]]:
    """All convolutions (stem, 1x1, 3x3, grouped 3x3, shortcuts) after each init."""
    torch.manual_seed(0)
    return {
        init: [
            module
            for module in build_resnet(50, "GN", init=init, **request.param).modules()
            if isinstance(module, Conv2d)
        ]
        for init in ("detectron", "detectron2")
    }


class TestInit:
    def test_detectron(self, convs):
        """XavierFill: uniform within sqrt(3 / fan-in), whose standard deviation is sqrt(1 / fan-in)."""
        assert len(convs["detectron"]) == 53
        for conv in convs["detectron"]:
            weight, (fan_in, _) = conv.weight.detach(), fans(conv)
            bound = math.sqrt(3 / fan_in)
            assert 0.99 * bound < weight.abs().max() <= bound * (1 + 1e-6)
            self.check_moments(weight, math.sqrt(1 / fan_in))

    def test_detectron2(self, convs):
        """MSRAFill: normal with standard deviation sqrt(2 / fan-out)."""
        for conv in convs["detectron2"]:
            weight, (_, fan_out) = conv.weight.detach(), fans(conv)
            std = math.sqrt(2 / fan_out)
            self.check_moments(weight, std)
            # 0.27 % of a normal, and nothing of a uniform, lies beyond three standard deviations.
            assert 0.001 < (weight.abs() > 3 * std).float().mean() < 0.0045

    @staticmethod
    def check_moments(weight: torch.Tensor, std: float) -> None:
        """Mean 0 and `std`, within five standard errors of samples this large."""
        assert abs(weight.mean()) < 5 * std / math.sqrt(weight.numel())
        assert abs(weight.std() / std - 1) < 5 / math.sqrt(2 * weight.numel())

    @pytest.mark.parametrize("init", ["detectron", "detectron2"])
    def test_norms_start_at_scale_1(self, init):
        """Also the last of each block: zero there hurts GN from random weights."""
        resnet = build_resnet(50, "GN", init=init)
        norms = [module for module in resnet.modules() if isinstance(module, nn.GroupNorm)]
        assert len(norms) == 53
        assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)

    @pytest.mark.parametrize("init", ["detectron", "detectron2"])
    def test_biases_start_at_0(self, init):
        resnet = build_resnet(18, "none", res2_channels=64, init=init)
        biases = [parameter for name, parameter in resnet.named_parameters() if name.endswith("bias")]
        assert len(biases) == 20
        assert all((bias == 0).all() for bias in biases)

    @pytest.mark.parametrize("init", ["detectron", "detectron2"])
    def test_config_key(self, init):
        """The stem of 64 x 3 x 7 x 7 weights: fan-in 147, fan-out 3136."""
        cfg = make_cfg(18)
        cfg.RETHINK.INIT = init
        torch.manual_seed(0)
        weight = build_rethink_resnet_backbone(cfg, RGB).stem.conv1.weight
        std = math.sqrt(1 / 147) if init == "detectron" else math.sqrt(2 / 3136)
        self.check_moments(weight.detach(), std)

    def test_fpn_convolutions_are_the_hosts(self):
        """XavierFill in Detectron and in the host: INIT does not touch them."""
        for init in ("detectron", "detectron2"):
            cfg = make_cfg(18)
            cfg.MODEL.FPN.update(IN_FEATURES=list(STAGES), NORM="GN")
            cfg.RETHINK.INIT = init
            torch.manual_seed(0)
            fpn = build_rethink_resnet_fpn_backbone(cfg, RGB)
            for level in range(2, 6):
                for conv in (getattr(fpn, f"fpn_lateral{level}"), getattr(fpn, f"fpn_output{level}")):
                    bound = math.sqrt(3 / fans(conv)[0])
                    assert 0.99 * bound < conv.weight.abs().max() <= bound * (1 + 1e-6)


class TestErrors:
    @pytest.mark.parametrize("depth", [0, 20, 51, 200])
    def test_depth(self, depth):
        with pytest.raises(UserError) as info:
            build_resnet(depth, "GN")
        expected = f"Unknown MODEL.RESNETS.DEPTH {depth}. Choose from [18, 34, 50, 101, 152]."
        assert str(info.value) == expected

    @pytest.mark.parametrize("depth", [18, 34])
    def test_groups_in_basic_blocks(self, depth):
        with pytest.raises(UserError, match=f"NUM_GROUPS 32 needs a depth of 50 or more, not {depth}"):
            build_resnet(depth, "GN", num_groups=32)

    @pytest.mark.parametrize("init", ["kaiming", "Detectron", ""])
    def test_init(self, init):
        with pytest.raises(UserError) as info:
            build_resnet(18, "GN", res2_channels=64, init=init)
        assert str(info.value) == f"Unknown RETHINK.INIT {init!r}. Choose from detectron, detectron2, msra."

    def test_norm(self):
        with pytest.raises(UserError, match="Unknown norm 'LN'"):
            build_resnet(18, "LN")

    @pytest.mark.parametrize(
        "option", [{"DEFORM_ON_PER_STAGE": [False, False, False, True]}, {"RES5_DILATION": 2}]
    )
    def test_what_only_the_host_has(self, option):
        with pytest.raises(UserError, match="neither deformable nor dilated") as info:
            build_rethink_resnet_backbone(make_cfg(50, **option), RGB)
        assert "build_resnet_fpn_backbone" in str(info.value)
