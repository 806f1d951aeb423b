"""Keypoint head, RetinaNet head and semantic head: against the host's without norm, and with GN by hand."""

import pytest
import torch
from conftest import TOY_CONFIG
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead, build_sem_seg_head
from detectron2.modeling.roi_heads import build_keypoint_head
from detectron2.modeling.roi_heads.keypoint_head import KRCNNConvDeconvUpsampleHead
from detectron2.structures import Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage
from torch import nn

from rethink_pretrain.config import load_config
from rethink_pretrain.errors import UserError
from rethink_pretrain.modeling.keypoint_head import RethinkKeypointHead
from rethink_pretrain.modeling.retinanet import RethinkRetinaNetHead
from rethink_pretrain.modeling.sem_seg import RethinkSemSegFPNHead

ROI_SHAPE = ShapeSpec(channels=32, height=14, width=14)
LEVELS = {"p2": ShapeSpec(channels=32, stride=4), "p3": ShapeSpec(channels=32, stride=8)}


def make_cfg(**opts: str) -> CfgNode:
    """The toy config with keys whose dots are written as two underscores."""
    words = [word for key, value in opts.items() for word in (key.replace("__", "."), value)]
    return load_config(TOY_CONFIG, opts=["MODEL.DEVICE", "cpu", *words])


def keypoint_cfg(norm: str) -> CfgNode:
    return make_cfg(
        MODEL__KEYPOINT_ON="True",
        MODEL__MASK_ON="False",
        MODEL__ROI_KEYPOINT_HEAD__NAME="RethinkKeypointHead",
        MODEL__ROI_KEYPOINT_HEAD__NORM=norm,
        MODEL__ROI_KEYPOINT_HEAD__CONV_DIMS="(64,64)",
        MODEL__ROI_KEYPOINT_HEAD__NUM_KEYPOINTS="5",
    )


def retinanet_cfg(norm: str) -> CfgNode:
    return make_cfg(
        MODEL__META_ARCHITECTURE="RethinkRetinaNet",
        MODEL__BACKBONE__NAME="build_rethink_retinanet_resnet_fpn_backbone",
        MODEL__RESNETS__OUT_FEATURES="('res3','res4','res5')",
        MODEL__FPN__IN_FEATURES="('res3','res4','res5')",
        MODEL__RETINANET__NUM_CLASSES="8",
        MODEL__RETINANET__NUM_CONVS="2",
        MODEL__RETINANET__NORM=norm,
    )


def sem_seg_cfg(norm: str) -> CfgNode:
    return make_cfg(
        MODEL__META_ARCHITECTURE="SemanticSegmentor",
        MODEL__SEM_SEG_HEAD__NAME="RethinkSemSegFPNHead",
        MODEL__SEM_SEG_HEAD__NORM=norm,
        MODEL__SEM_SEG_HEAD__CONVS_DIM="32",
        MODEL__SEM_SEG_HEAD__NUM_CLASSES="6",
    )


def make_images() -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    instances = Instances((128, 128))
    boxes = torch.tensor([[10.0, 10, 50, 60], [60, 20, 110, 80]])
    instances.gt_boxes = Boxes(boxes)
    instances.gt_classes = torch.tensor([0, 7])
    centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    instances.gt_keypoints = Keypoints(torch.cat([centres.expand(2, 5, 2), torch.full((2, 5, 1), 2.0)], 2))
    return [
        {
            "image": torch.randint(0, 256, (3, 128, 128), generator=generator).to(torch.uint8),
            "height": 128,
            "width": 128,
            "instances": instances,
            "sem_seg": torch.randint(0, 6, (128, 128), generator=generator),
        }
    ]


def gradients(model: nn.Module) -> dict[str, torch.Tensor | None]:
    with EventStorage():
        losses = model.train()(make_images())
    sum(losses.values()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.GroupNorm) for part in module.modules())


class TestKeypointHead:
    def test_without_norm_it_is_the_hosts(self):
        cfg = keypoint_cfg("")
        ours = build_keypoint_head(cfg, ROI_SHAPE)
        host = KRCNNConvDeconvUpsampleHead(cfg, ROI_SHAPE)
        host.load_state_dict(ours.state_dict(), strict=True)
        x = torch.randn(2, 32, 14, 14, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ours.layers(x), host.layers(x))

    def test_with_gn(self):
        head = build_keypoint_head(keypoint_cfg("GN"), ROI_SHAPE)
        assert isinstance(head, RethinkKeypointHead) and norms(head) == 2
        # Two convolutions of 3 x 3 with a scale and a bias per channel behind each, and the deconvolution.
        expected = 9 * 32 * 64 + 2 * 64 + 9 * 64 * 64 + 2 * 64 + 16 * 64 * 5 + 5
        assert sum(parameter.numel() for parameter in head.parameters()) == expected
        x = torch.randn(2, 32, 14, 14, generator=torch.Generator().manual_seed(0))
        y = torch.relu(head.conv_fcn1(x))
        y = torch.relu(
            nn.functional.group_norm(nn.functional.conv2d(y, head.conv_fcn2.weight, padding=1), 32)
        )
        y = nn.functional.interpolate(head.score_lowres(y), scale_factor=2, mode="bilinear")
        torch.testing.assert_close(head.layers(x), y)
        std = head.conv_fcn2.weight.std().item()
        assert std == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)

    def test_every_part_learns(self):
        missing = [name for name, grad in gradients(build_model(keypoint_cfg("GN"))).items() if grad is None]
        assert missing == []

    def test_unknown_norm(self):
        with pytest.raises(UserError, match="ROI_KEYPOINT_HEAD"):
            keypoint_cfg("GroupNorm")


class TestRetinaNet:
    SHAPES = [ShapeSpec(channels=32, stride=8)] * 5

    def test_without_norm_it_is_the_hosts(self):
        cfg = retinanet_cfg("")
        torch.manual_seed(0)
        ours = RethinkRetinaNetHead(cfg, self.SHAPES)
        torch.manual_seed(0)
        host = RetinaNetHead(cfg, self.SHAPES)
        assert ours.state_dict().keys() == host.state_dict().keys()
        assert all(torch.equal(value, host.state_dict()[name]) for name, value in ours.state_dict().items())

    def test_with_gn(self):
        """Convolution with bias, GN, ReLU, twice in each tower; the prior of the scores stays."""
        cfg = retinanet_cfg("GN")
        cfg.defrost()
        cfg.RETHINK.SPEED.FUSED_NORM = False
        head = RethinkRetinaNetHead(cfg, self.SHAPES)
        kinds = [type(layer) for layer in head.cls_subnet]
        assert kinds == [nn.Conv2d, nn.GroupNorm, nn.ReLU] * 2 == [type(layer) for layer in head.bbox_subnet]
        prior = torch.sigmoid(head.cls_score.bias)
        torch.testing.assert_close(prior, torch.full_like(prior, 0.01))

    def test_every_part_learns_and_predicts(self):
        model = build_model(retinanet_cfg("GN"))
        assert [name for name, grad in gradients(model).items() if grad is None] == []
        with torch.no_grad():
            (output,) = model.eval()(make_images())
        assert output["instances"].image_size == (128, 128)

    @pytest.mark.parametrize("norm", ["BN", "SyncBN"])
    def test_batch_statistics_are_refused(self, norm):
        with pytest.raises(UserError, match="all levels of the head would share"):
            RethinkRetinaNetHead(retinanet_cfg(norm), self.SHAPES)


class TestSemSeg:
    @pytest.mark.parametrize("norm", ["", "GN"])
    def test_it_is_the_hosts(self, norm):
        cfg = sem_seg_cfg(norm)
        ours, host = build_sem_seg_head(cfg, LEVELS), SemSegFPNHead(cfg, LEVELS)
        assert isinstance(ours, RethinkSemSegFPNHead)
        host.load_state_dict(ours.state_dict(), strict=True)
        generator = torch.Generator().manual_seed(0)
        features = {
            name: torch.randn(1, 32, 64 // shape.stride, 64 // shape.stride, generator=generator)
            for name, shape in LEVELS.items()
        }
        torch.testing.assert_close(ours.layers(features), host.layers(features))
        assert norms(ours) == (2 if norm else 0)

    def test_every_part_learns_and_predicts(self):
        model = build_model(sem_seg_cfg("GN"))
        assert [name for name, grad in gradients(model).items() if grad is None] == []
        with torch.no_grad():
            (output,) = model.eval()(make_images())
        assert output["sem_seg"].shape == (6, 128, 128)
