"""RetinaNet from random weights: the host's model with any registered norm in its head."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead
from torch import nn

from ..errors import UserError
from ..layers import NormFactory, fuse_norms, get_norm_factory


class RethinkRetinaNetHead(RetinaNetHead):
    """The host's two towers, whose convolutions keep their biases and take a name of `NORMS` behind them.

    All levels share a tower, so that a norm with batch statistics would mix the statistics of levels:
    raises `UserError` for those. `fused_norm` makes one step of GN and ReLU.
    """

    @configurable
    def __init__(self, *, norm: str | NormFactory = "", fused_norm: bool = False, **kwargs):
        # Without a norm, because the host tries it on one channel, which GroupNorm refuses.
        super().__init__(norm="", **kwargs)
        factory = get_norm_factory(norm)
        if factory:
            self.cls_subnet = _with_norms(self.cls_subnet, factory)
            self.bbox_subnet = _with_norms(self.bbox_subnet, factory)
        if fused_norm:
            fuse_norms(self)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        """The host's arguments and `cfg.RETHINK.SPEED.FUSED_NORM`."""
        return {**super().from_config(cfg, input_shape), "fused_norm": cfg.RETHINK.SPEED.FUSED_NORM}


def _with_norms(tower: nn.Sequential, factory: NormFactory) -> nn.Sequential:
    layers = []
    for layer in tower:
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            layers.append(factory(layer.out_channels))
            if isinstance(layers[-1], nn.modules.batchnorm._BatchNorm):
                raise UserError(
                    "MODEL.RETINANET.NORM has batch statistics, which all levels of the head would share. "
                    "Set it to GN."
                )
    return nn.Sequential(*layers)


@META_ARCH_REGISTRY.register()
class RethinkRetinaNet(RetinaNet):
    """The host's RetinaNet with `RethinkRetinaNetHead`."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The host's arguments; the head follows `cfg.MODEL.RETINANET.NORM`."""
        without_norm = cfg.clone()
        without_norm.defrost()
        without_norm.MODEL.RETINANET.NORM = ""  # for the host's own head, which ours replaces
        ret = super().from_config(without_norm)
        shapes = ret["backbone"].output_shape()
        ret["head"] = RethinkRetinaNetHead(cfg, [shapes[f] for f in cfg.MODEL.RETINANET.IN_FEATURES])
        return ret
