"""Stock Detectron2: the host's own model, mapper, loader and trainer, on a config and data of ours."""

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.engine import DefaultTrainer
from detectron2.layers import ShapeSpec
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.backbone import FPN, Backbone, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, build_resnet_fpn_backbone
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem
from detectron2.modeling.proposal_generator import build_proposal_generator
from detectron2.modeling.roi_heads import build_roi_heads
from torch import nn

from ..setup import pick_device


def stock_config(cfg: CfgNode) -> CfgNode:
    """A copy of `cfg` in which every registered part is the host's."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = pick_device(cfg.MODEL.DEVICE)
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "RPN"
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    return cfg


def build_stock_model(cfg: CfgNode) -> nn.Module:
    """Mask R-CNN of the host's parts that `cfg` (see `stock_config`) describes, with random weights."""
    backbone = _build_backbone(cfg)
    model = GeneralizedRCNN(
        backbone=backbone,
        proposal_generator=build_proposal_generator(cfg, backbone.output_shape()),
        roi_heads=build_roi_heads(cfg, backbone.output_shape()),
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        input_format=cfg.INPUT.FORMAT,
    )
    return model.to(torch.device(cfg.MODEL.DEVICE))


def _build_backbone(cfg: CfgNode) -> Backbone:
    resnets, image = cfg.MODEL.RESNETS, ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    if resnets.DEPTH >= 50:
        return build_resnet_fpn_backbone(cfg, image)
    # The host's builder knows R18 at full width alone; its blocks know any.
    widths = [resnets.RES2_OUT_CHANNELS * 2**stage for stage in range(4)]
    stages = [
        ResNet.make_stage(
            BasicBlock,
            2,
            stride_per_block=[1 if stage == 0 else 2, 1],
            in_channels=widths[stage - 1] if stage else resnets.STEM_OUT_CHANNELS,
            out_channels=width,
            norm=resnets.NORM,
        )
        for stage, width in enumerate(widths)
    ]
    return FPN(
        bottom_up=ResNet(
            BasicStem(3, resnets.STEM_OUT_CHANNELS, resnets.NORM),
            stages,
            None,
            ["res2", "res3", "res4", "res5"],
        ),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


class StockTrainer(DefaultTrainer):
    """The host's trainer; neither evaluates nor saves within the steps that are measured."""

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """See `build_stock_model`."""
        return build_stock_model(cfg)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> torch.utils.data.DataLoader:
        """The host's loader with the host's mapper."""
        return build_detection_train_loader(cfg, mapper=DatasetMapper(cfg, is_train=True))

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> None:
        """The host asks for one when it is to evaluate, which it never is here."""
        raise NotImplementedError
