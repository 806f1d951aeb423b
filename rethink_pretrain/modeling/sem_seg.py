"""The host's semantic segmentation head (Panoptic FPN) with any registered norm."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.semantic_seg import SEM_SEG_HEADS_REGISTRY, SemSegFPNHead

from ..layers import NormFactory, fuse_norms, get_norm_factory


@SEM_SEG_HEADS_REGISTRY.register()
class RethinkSemSegFPNHead(SemSegFPNHead):
    """The host's head; `norm` is a name of `NORMS`, and `fused_norm` makes one step of GN and ReLU."""

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        norm: str | NormFactory = "",
        fused_norm: bool = False,
        **kwargs,
    ):
        super().__init__(input_shape, norm=get_norm_factory(norm), **kwargs)
        if fused_norm:
            fuse_norms(self)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The host's arguments and `cfg.RETHINK.SPEED.FUSED_NORM`."""
        return {**super().from_config(cfg, input_shape), "fused_norm": cfg.RETHINK.SPEED.FUSED_NORM}
