"""Keypoint R-CNN as a whole: the host's without norm, and what it predicts with GN."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from test_other_heads import keypoint_cfg, make_images
from torch import nn

from rethink_pretrain.errors import UserError
from rethink_pretrain.modeling.keypoint_head import RethinkKeypointHead


def loss_of(model: nn.Module) -> float:
    torch.manual_seed(0)  # the sampling of anchors and proposals
    with EventStorage():
        return model.train()(make_images())["loss_keypoint"].item()


def test_the_loss_without_norm_is_the_hosts():
    cfg = keypoint_cfg("")
    ours = build_model(cfg)
    cfg.MODEL.ROI_KEYPOINT_HEAD.NAME = "KRCNNConvDeconvUpsampleHead"
    host = build_model(cfg)
    host.load_state_dict(ours.state_dict(), strict=True)
    loss = loss_of(ours)
    assert loss == pytest.approx(loss_of(host), rel=1e-6) and loss > 0


@torch.no_grad()
def test_keypoints_lie_in_their_boxes():
    """Five (x, y, score) an object, in pixels of the image."""
    torch.manual_seed(0)
    model = build_model(keypoint_cfg("GN"))
    model.roi_heads.box_predictor.cls_score.bias[0] = 5.0  # a class whose scores pass the threshold
    (output,) = model.eval()(make_images())
    instances = output["instances"]
    assert len(instances) > 0 and instances.pred_keypoints.shape == (len(instances), 5, 3)
    boxes = instances.pred_boxes.tensor[:, None]
    xy = instances.pred_keypoints[..., :2]
    assert (xy >= boxes[..., :2] - 1).all() and (xy <= boxes[..., 2:] + 1).all()
    assert (instances.pred_keypoints[..., 2] > 0).all()


def test_parameter_names_with_gn():
    head = RethinkKeypointHead(
        ShapeSpec(channels=32, height=14, width=14), num_keypoints=5, conv_dims=(64,), conv_norm="GN"
    )
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == {
        "conv_fcn1.weight": (64, 32, 3, 3),
        "conv_fcn1.norm.weight": (64,),
        "conv_fcn1.norm.bias": (64,),
        "score_lowres.weight": (64, 5, 4, 4),
        "score_lowres.bias": (5,),
    }


def test_an_unknown_norm():
    with pytest.raises(UserError, match="Unknown norm 'GroupNorm'"):
        RethinkKeypointHead(
            ShapeSpec(channels=32, height=14, width=14),
            num_keypoints=5,
            conv_dims=(64,),
            conv_norm="GroupNorm",
        )
