"""The host's semantic segmentation head (Panoptic FPN) with any registered norm."""

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.semantic_seg import SEM_SEG_HEADS_REGISTRY, SemSegFPNHead

from ..layers import NormFactory, get_norm_factory


@SEM_SEG_HEADS_REGISTRY.register()
class RethinkSemSegFPNHead(SemSegFPNHead):
    """The host's head; `cfg.MODEL.SEM_SEG_HEAD.NORM` is a name of `NORMS`."""

    @configurable
    def __init__(self, input_shape: dict[str, ShapeSpec], *, norm: str | NormFactory = "", **kwargs):
        super().__init__(input_shape, norm=get_norm_factory(norm), **kwargs)
