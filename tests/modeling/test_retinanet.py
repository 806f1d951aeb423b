"""RetinaNet's backbone and the whole model without norm: the host's, weight by weight and loss by loss."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.modeling.backbone.fpn import build_retinanet_resnet_fpn_backbone
from detectron2.utils.events import EventStorage
from test_other_heads import make_images, retinanet_cfg
from torch import nn

from rethink_pretrain.errors import UserError
from rethink_pretrain.modeling.retinanet import RethinkRetinaNetHead


def test_the_backbone_is_the_hosts():
    cfg = retinanet_cfg("GN")
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64  # the host has no other R18
    ours = build_backbone(cfg)
    host = build_retinanet_resnet_fpn_backbone(cfg, ShapeSpec(channels=3))
    host.load_state_dict(ours.state_dict(), strict=True)
    assert ours.output_shape() == {
        f"p{level}": ShapeSpec(channels=64, stride=2**level) for level in range(3, 8)
    }
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    features, expected = ours(image), host(image)
    assert list(features) == ["p3", "p4", "p5", "p6", "p7"]
    for name, feature in features.items():
        torch.testing.assert_close(feature, expected[name])
        assert feature.shape == (1, 64, 128 // 2 ** int(name[1]), 128 // 2 ** int(name[1]))


class TestWholeModel:
    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> tuple[nn.Module, nn.Module]:
        cfg = retinanet_cfg("")
        ours, host = (META_ARCH_REGISTRY.get(name)(cfg) for name in ("RethinkRetinaNet", "RetinaNet"))
        with torch.no_grad():
            ours.head.cls_score.bias.add_(3.0)  # scores above the threshold
        host.load_state_dict(ours.state_dict(), strict=True)
        return ours, host

    def test_losses(self, models):
        losses = []
        for model in models:
            with EventStorage():
                losses.append({name: loss.item() for name, loss in model.train()(make_images()).items()})
        ours, host = losses
        assert ours.keys() == {"loss_cls", "loss_box_reg"}
        assert ours == pytest.approx(host, rel=1e-6)

    @torch.no_grad()
    def test_predictions(self, models):
        ours, host = (model.eval()(make_images())[0]["instances"] for model in models)
        assert len(ours) == len(host) > 0
        torch.testing.assert_close(ours.pred_boxes.tensor, host.pred_boxes.tensor)
        torch.testing.assert_close(ours.scores, host.scores)
        assert torch.equal(ours.pred_classes, host.pred_classes)


def test_unknown_norm():
    shapes = [ShapeSpec(channels=32, stride=8)]
    with pytest.raises(UserError, match="Unknown norm 'GroupNorm'"):
        RethinkRetinaNetHead(
            norm="GroupNorm", input_shape=shapes, num_classes=8, num_anchors=3, conv_dims=[32]
        )
