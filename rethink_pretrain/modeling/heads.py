"""The host's box and mask heads with any registered norm."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import (
    ROI_BOX_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    FastRCNNConvFCHead,
    MaskRCNNConvUpsampleHead,
)
from detectron2.structures import Instances
from torch import nn

from ..layers import NormFactory, fuse_norms, get_norm_factory
from .init import initialize_box_head, initialize_mask_predictor
from .mask_targets import mask_loss


@ROI_BOX_HEAD_REGISTRY.register()
class RethinkConvFCHead(FastRCNNConvFCHead):
    """The host's convolutions and fully connected layers; the convolutions take a name of `NORMS`.

    The paper's head is 4 convolutions of 256 with GN and one layer of 1024 (Detectron's Xconv1fc), and for
    VGG-16 two layers of 4096, each with a `dropout` of 0.5 of its activations in training. `fused_norm` makes
    one step of GN and ReLU.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_norm: str | NormFactory = "",
        dropout: float = 0.0,
        init: str = "detectron2",
        fused_norm: bool = False,
        **kwargs,
    ):
        super().__init__(input_shape, conv_norm=get_norm_factory(conv_norm), **kwargs)
        initialize_box_head(self, init)
        if fused_norm:
            fuse_norms(self)
        if dropout > 0:
            for index in range(1, len(self.fcs) + 1):  # in the place of the host's ReLU: no weight is renamed
                setattr(self, f"fc_relu{index}", nn.Sequential(nn.ReLU(), nn.Dropout(dropout)))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """The host's arguments, `cfg.MODEL.ROI_BOX_HEAD.DROPOUT`, `cfg.RETHINK.INIT` and SPEED.FUSED_NORM."""
        return {
            **super().from_config(cfg, input_shape),
            "dropout": cfg.MODEL.ROI_BOX_HEAD.DROPOUT,
            "init": cfg.RETHINK.INIT,
            "fused_norm": cfg.RETHINK.SPEED.FUSED_NORM,
        }


@ROI_MASK_HEAD_REGISTRY.register()
class RethinkMaskHead(MaskRCNNConvUpsampleHead):
    """The host's mask head; the convolutions take a name of `NORMS`, `init` sets the predictor.

    `fused_norm` makes one step of GN and ReLU; `batched_targets` computes the targets of all RoIs at once.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_norm: str | NormFactory = "",
        init: str = "detectron2",
        fused_norm: bool = False,
        batched_targets: bool = False,
        **kwargs,
    ):
        super().__init__(input_shape, conv_norm=get_norm_factory(conv_norm), **kwargs)
        initialize_mask_predictor(self.predictor, init)
        self.batched_targets = batched_targets
        if fused_norm:
            fuse_norms(self)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """The host's arguments, `cfg.RETHINK.INIT` and SPEED's FUSED_NORM and MASK_TARGETS."""
        return {
            **super().from_config(cfg, input_shape),
            "init": cfg.RETHINK.INIT,
            "fused_norm": cfg.RETHINK.SPEED.FUSED_NORM,
            "batched_targets": cfg.RETHINK.SPEED.MASK_TARGETS,
        }

    def forward(self, x: torch.Tensor, instances: list[Instances]) -> Any:
        """As the host's: {"loss_mask"} in training, `instances` with their masks else."""
        if not (self.training and self.batched_targets):
            return super().forward(x, instances)
        return {"loss_mask": mask_loss(self.layers(x), instances, self.vis_period) * self.loss_weight}
