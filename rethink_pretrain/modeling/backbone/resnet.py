"""ResNet and ResNeXt for random weights: any registered norm, nothing frozen unless asked for."""

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from torch import nn
from torch.nn import functional as F

from ...errors import UserError
from ...layers import convolve, fuse_norm, fuse_norms, get_norm_factory
from ...layers.norm import group_norm
from ..init import initialize_backbone

_BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_STAGES = ("res2", "res3", "res4", "res5")


class FusedStem(BasicStem):
    """The host's stem, its ReLU inside the GroupNorm. Images (N, C, H, W) to maps of stride 4."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        fuse_norm(self.conv1, relu=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the host's."""
        return F.max_pool2d(self.conv1(x), kernel_size=3, stride=2, padding=1)


class FusedBasicBlock(BasicBlock):
    """The host's block of ResNet-18 and 34, its ReLUs inside the GroupNorms."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        _fuse_block(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the host's: (N, C, H, W) to its own channels and stride."""
        return _end_block(self, self.conv2, self.conv1(x), x)


class FusedBottleneckBlock(BottleneckBlock):
    """The host's block of ResNet-50, 101, 152 and ResNeXt, its ReLUs inside the GroupNorms."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        _fuse_block(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the host's: (N, C, H, W) to its own channels and stride."""
        return _end_block(self, self.conv3, self.conv2(self.conv1(x)), x)


def _fuse_block(block: BasicBlock | BottleneckBlock) -> None:
    for name, conv in block.named_children():
        fuse_norm(conv, relu=name != "shortcut")


def _end_block(
    block: BasicBlock | BottleneckBlock, last: Conv2d, out: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    """The last convolution on `out`; its norm also adds the shortcut of the block's input `x`."""
    shortcut = x if block.shortcut is None else block.shortcut(x)
    return last.norm(convolve(last, out), shortcut)


def build_resnet(
    depth: int,
    norm: str,
    *,
    in_channels: int = 3,
    stem_channels: int = 64,
    res2_channels: int | None = None,
    num_groups: int = 1,
    width_per_group: int = 64,
    stride_in_1x1: bool = False,
    out_features: tuple[str, ...] = _STAGES,
    freeze_at: int = 0,
    init: str = "detectron2",
    fused_norm: bool = False,
) -> ResNet:
    """A ResNet (18, 34, 50, 101, 152) or, with `num_groups` > 1, ResNeXt of the host's classes.

    Takes NCHW images and returns the maps named in `out_features`, of `res2_channels` x 1, 2, 4, 8
    channels at strides 4, 8, 16, 32. 18 and 34 are made of basic blocks, which know neither groups nor
    a place for the stride. `res2_channels` is by default 64 for them and 256 for the others. `fused_norm`
    makes one step of GN and ReLU. Raises `UserError` for an unknown depth, norm or init, and for groups in a
    basic block.
    """
    if depth not in _BLOCKS_PER_STAGE:
        raise UserError(f"Unknown MODEL.RESNETS.DEPTH {depth}. Choose from {sorted(_BLOCKS_PER_STAGE)}.")
    basic = depth < 50
    if basic and num_groups > 1:
        raise UserError(f"MODEL.RESNETS.NUM_GROUPS {num_groups} needs a depth of 50 or more, not {depth}.")
    res2_channels = res2_channels or (64 if basic else 256)
    norm = get_norm_factory(norm)
    stem_class, block_class = _classes(basic, fused_norm and norm is group_norm)
    stem = stem_class(in_channels, stem_channels, norm)
    stages = []
    block_channels = stem_channels
    for index, num_blocks in enumerate(_BLOCKS_PER_STAGE[depth]):
        block_args = (
            {}
            if basic
            else {
                "bottleneck_channels": num_groups * width_per_group * 2**index,
                "num_groups": num_groups,
                "stride_in_1x1": stride_in_1x1,
            }
        )
        stages.append(
            ResNet.make_stage(
                block_class,
                num_blocks,
                stride_per_block=[1 if index == 0 else 2] + [1] * (num_blocks - 1),
                in_channels=block_channels,
                out_channels=res2_channels * 2**index,
                norm=norm,
                **block_args,
            )
        )
        block_channels = res2_channels * 2**index
    resnet = ResNet(stem, stages, out_features=list(out_features))
    add_missing_biases(resnet)
    initialize_backbone(resnet, init)
    return resnet.freeze(freeze_at)


def _classes(basic: bool, fused: bool) -> tuple[type[BasicStem], type[BasicBlock] | type[BottleneckBlock]]:
    if fused:
        return FusedStem, FusedBasicBlock if basic else FusedBottleneckBlock
    return BasicStem, BasicBlock if basic else BottleneckBlock


def add_missing_biases(module: nn.Module) -> None:
    """Give every convolution that has neither norm nor bias a bias of 0.

    The host's ResNet blocks build their convolutions without bias, whatever the norm.
    """
    for conv in module.modules():
        if isinstance(conv, Conv2d) and conv.norm is None and conv.bias is None:
            conv.bias = nn.Parameter(torch.zeros(conv.out_channels))


@BACKBONE_REGISTRY.register()
def build_rethink_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """`build_resnet` from `cfg.MODEL.RESNETS`, `cfg.MODEL.BACKBONE.FREEZE_AT` and `cfg.RETHINK`."""
    resnets = cfg.MODEL.RESNETS
    if any(resnets.DEFORM_ON_PER_STAGE) or resnets.RES5_DILATION != 1:
        raise UserError(
            "build_rethink_resnet_backbone has neither deformable nor dilated convolutions. Take them out "
            "of MODEL.RESNETS, or use the host's build_resnet_fpn_backbone."
        )
    return build_resnet(
        resnets.DEPTH,
        resnets.NORM,
        in_channels=input_shape.channels,
        stem_channels=resnets.STEM_OUT_CHANNELS,
        res2_channels=resnets.RES2_OUT_CHANNELS,
        num_groups=resnets.NUM_GROUPS,
        width_per_group=resnets.WIDTH_PER_GROUP,
        stride_in_1x1=resnets.STRIDE_IN_1X1,
        out_features=tuple(resnets.OUT_FEATURES),
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        init=cfg.RETHINK.INIT,
        fused_norm=cfg.RETHINK.SPEED.FUSED_NORM,
    )


@BACKBONE_REGISTRY.register()
def build_rethink_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The ResNet with the host's FPN on top: p2 to p5, and p6 by subsampling for the RPN."""
    return _build_fpn(cfg, build_rethink_resnet_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_rethink_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """The ResNet with RetinaNet's FPN: p3 to p5, and p6, p7 by convolutions on res5."""
    resnet = build_rethink_resnet_backbone(cfg, input_shape)
    channels = resnet.output_shape()["res5"].channels
    return _build_fpn(cfg, resnet, LastLevelP6P7(channels, cfg.MODEL.FPN.OUT_CHANNELS))


def _build_fpn(cfg: CfgNode, bottom_up: ResNet, top_block: nn.Module) -> FPN:
    fpn = FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=get_norm_factory(cfg.MODEL.FPN.NORM),
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
    if cfg.RETHINK.SPEED.FUSED_NORM:
        fuse_norms(fpn)
    return fpn
