"""Panoptic FPN with our parts, also with the cascade: the host's losses; every part learns and predicts."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import PolygonMasks
from detectron2.utils.events import EventStorage
from test_other_heads import make_images, sem_seg_cfg
from torch import nn

from rethink_pretrain.errors import UserError
from rethink_pretrain.modeling.sem_seg import RethinkSemSegFPNHead


def panoptic_cfg(roi_heads: str = "StandardROIHeads") -> CfgNode:
    cfg = sem_seg_cfg("GN")
    cfg.MODEL.META_ARCHITECTURE = "PanopticFPN"
    cfg.MODEL.ROI_HEADS.NAME = roi_heads
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = roi_heads != "StandardROIHeads"
    return cfg


def panoptic_images() -> list[dict]:
    """An image with two objects whose masks are their boxes, and random stuff."""
    (image,) = make_images()
    image["instances"].remove("gt_keypoints")
    corners = image["instances"].gt_boxes.tensor[:, [0, 1, 2, 1, 2, 3, 0, 3]].double().numpy()
    image["instances"].gt_masks = PolygonMasks([[polygon] for polygon in corners])
    return [image]


def losses_of(model: nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)  # the sampling of anchors and proposals
    with EventStorage():
        return model.train()(panoptic_images())


def test_the_losses_are_the_hosts():
    cfg = panoptic_cfg()
    ours = build_model(cfg)
    cfg.MODEL.SEM_SEG_HEAD.NAME = "SemSegFPNHead"
    host = build_model(cfg)
    host.load_state_dict(ours.state_dict(), strict=True)
    losses = [{name: loss.item() for name, loss in losses_of(model).items()} for model in (ours, host)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0].keys() == {
        *("loss_sem_seg", "loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask")
    }


@pytest.mark.parametrize("roi_heads", ["StandardROIHeads", "SwitchedCascadeROIHeads"])
def test_every_part_learns(roi_heads):
    model = build_model(panoptic_cfg(roi_heads))
    sum(losses_of(model).values()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@torch.no_grad()
def test_predictions():
    torch.manual_seed(0)
    model = build_model(panoptic_cfg())
    (output,) = model.eval()(panoptic_images())
    assert output["sem_seg"].shape == (6, 128, 128)
    segments, segments_info = output["panoptic_seg"]
    assert segments.shape == (128, 128)
    assert segments_info
    assert {info["id"] for info in segments_info} == set(segments.unique().tolist()) - {0}


def test_an_unknown_norm():
    levels = {"p2": ShapeSpec(channels=32, stride=4)}
    with pytest.raises(UserError, match="Unknown norm 'GroupNorm'"):
        RethinkSemSegFPNHead(levels, norm="GroupNorm", num_classes=6, conv_dims=32, common_stride=4)
