"""The host's box and mask heads with any registered norm."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import (
    ROI_BOX_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    FastRCNNConvFCHead,
    MaskRCNNConvUpsampleHead,
)

from ..layers import NormFactory, get_norm_factory
from .init import initialize_mask_predictor


@ROI_BOX_HEAD_REGISTRY.register()
class RethinkConvFCHead(FastRCNNConvFCHead):
    """The host's convolutions and fully connected layers; the convolutions take a name of `NORMS`.

    The paper's head is 4 convolutions of 256 with GN and one layer of 1024 (Detectron's Xconv1fc).
    """

    @configurable
    def __init__(self, input_shape: ShapeSpec, *, conv_norm: str | NormFactory = "", **kwargs):
        super().__init__(input_shape, conv_norm=get_norm_factory(conv_norm), **kwargs)


@ROI_MASK_HEAD_REGISTRY.register()
class RethinkMaskHead(MaskRCNNConvUpsampleHead):
    """The host's mask head; the convolutions take a name of `NORMS`, `init` sets the predictor."""

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_norm: str | NormFactory = "",
        init: str = "detectron2",
        **kwargs,
    ):
        super().__init__(input_shape, conv_norm=get_norm_factory(conv_norm), **kwargs)
        initialize_mask_predictor(self.predictor, init)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """The host's arguments and `cfg.RETHINK.INIT`."""
        return {**super().from_config(cfg, input_shape), "init": cfg.RETHINK.INIT}
