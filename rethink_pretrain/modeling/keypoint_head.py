"""The host's keypoint head with any registered norm."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling.roi_heads import ROI_KEYPOINT_HEAD_REGISTRY
from detectron2.modeling.roi_heads.keypoint_head import KRCNNConvDeconvUpsampleHead
from fvcore.nn.weight_init import c2_msra_fill

from ..layers import NormFactory, fuse_norms, get_norm_factory


@ROI_KEYPOINT_HEAD_REGISTRY.register()
class RethinkKeypointHead(KRCNNConvDeconvUpsampleHead):
    """The host's convolutions, deconvolution and upsampling; the convolutions take a name of `NORMS`.

    Detectron's head is 8 convolutions of 512 without norm; whether the paper's keypoint model had GN in it
    is not stated. A convolution with a norm has no bias. Weights are MSRA, as in Detectron. `fused_norm`
    makes one step of GN and ReLU.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_dims: Sequence[int],
        conv_norm: str | NormFactory = "",
        fused_norm: bool = False,
        **kwargs,
    ):
        super().__init__(input_shape, conv_dims=conv_dims, **kwargs)
        norm = get_norm_factory(conv_norm)
        if not norm:
            return
        in_channels = input_shape.channels
        for index, channels in enumerate(conv_dims, 1):
            conv = Conv2d(in_channels, channels, 3, padding=1, bias=False, norm=norm(channels))
            c2_msra_fill(conv)
            setattr(self, f"conv_fcn{index}", conv)  # the place in the sequence stays
            in_channels = channels
        if fused_norm:
            fuse_norms(self)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """The host's arguments, `cfg.MODEL.ROI_KEYPOINT_HEAD.NORM` and `cfg.RETHINK.SPEED.FUSED_NORM`."""
        return {
            **super().from_config(cfg, input_shape),
            "conv_norm": cfg.MODEL.ROI_KEYPOINT_HEAD.NORM,
            "fused_norm": cfg.RETHINK.SPEED.FUSED_NORM,
        }
