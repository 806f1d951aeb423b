"""VGG-16 as in the original Faster R-CNN: conv5 features at stride 16, no FPN, biases, by default no norm."""

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import Backbone
from fvcore.nn.weight_init import c2_msra_fill
from torch.nn import functional as F

from ...layers import NormFactory, fuse_norms, get_norm_factory
from ..init import initialize_backbone

# (convolutions, channels) of conv1 to conv5; between two groups stands a max-pooling, none behind the last.
_GROUPS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


class VGG16(Backbone):
    """The 13 convolutions of VGG-16, each with ReLU; NCHW images in, {"conv5": 512 channels, stride 16} out.

    With a norm it stands between convolution and ReLU, and the convolutions have no bias. `freeze_at` = n
    stops the training of conv1 to conv<n>; a batch norm there becomes FrozenBN, as in the host. `fused_norm`
    makes one step of GN and ReLU. Raises `UserError` for an unknown norm or init.
    """

    def __init__(
        self,
        norm: str | NormFactory = "",
        *,
        in_channels: int = 3,
        freeze_at: int = 0,
        init: str = "msra",
        fused_norm: bool = False,
    ):
        super().__init__()
        factory = get_norm_factory(norm)
        for group, (num_convs, channels) in enumerate(_GROUPS, 1):
            for index in range(1, num_convs + 1):
                conv = Conv2d(
                    in_channels,
                    channels,
                    kernel_size=3,
                    padding=1,
                    bias=not factory,
                    norm=factory(channels) if factory else None,
                    activation=F.relu,
                )
                c2_msra_fill(conv)
                self.add_module(f"conv{group}_{index}", conv)
                in_channels = channels
        initialize_backbone(self, init)
        self._freeze(freeze_at)
        if fused_norm:
            fuse_norms(self)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (N, C, H, W) to {"conv5": (N, 512, H // 16, W // 16)}."""
        for group, (num_convs, _) in enumerate(_GROUPS, 1):
            if group > 1:
                x = F.max_pool2d(x, kernel_size=2, stride=2)
            for index in range(1, num_convs + 1):
                x = getattr(self, f"conv{group}_{index}")(x)
        return {"conv5": x}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Of the one map."""
        return {"conv5": ShapeSpec(channels=_GROUPS[-1][1], stride=16)}

    @property
    def size_divisibility(self) -> int:
        """16: images are padded so that pooling cuts nothing off."""
        return 16

    def _freeze(self, freeze_at: int) -> None:
        for name, conv in self.named_children():
            if int(name[len("conv")]) <= freeze_at:
                conv.requires_grad_(False)
                FrozenBatchNorm2d.convert_frozen_batchnorm(conv)


@BACKBONE_REGISTRY.register()
def build_rethink_vgg_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> VGG16:
    """`VGG16` from `cfg.MODEL.VGG.NORM`, `cfg.MODEL.BACKBONE.FREEZE_AT` and `cfg.RETHINK`."""
    return VGG16(
        cfg.MODEL.VGG.NORM,
        in_channels=input_shape.channels,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        init=cfg.RETHINK.INIT,
        fused_norm=cfg.RETHINK.SPEED.FUSED_NORM,
    )
