"""VGG-16 against torchvision's, and the Faster R-CNN of the overlays against sums by hand."""

import pytest
import torch
import torchvision
from conftest import REPOSITORY, TOY_CONFIG, flatten
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from rethink_pretrain.config import load_config
from rethink_pretrain.errors import UserError
from rethink_pretrain.modeling.backbone import VGG16

SCRATCH_6X = REPOSITORY / "configs" / "scratch_6x.yaml"
CONVS = [f"conv{group}_{i}" for group, count in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, count + 1)]


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


class TestArchitecture:
    @pytest.mark.parametrize("norm", ["", "BN"])
    def test_equals_torchvision(self, norm, image):
        """Its layers in the same order, without the last pooling; with BN, its conv biases start at 0."""
        oracle = torchvision.models.vgg16_bn() if norm else torchvision.models.vgg16()
        features = oracle.features[:-1].eval()
        ours = VGG16(norm).eval()
        assert [name for name, _ in ours.named_children()] == CONVS
        kinds = (nn.Conv2d, nn.BatchNorm2d)
        theirs = [layer for layer in features if isinstance(layer, kinds)]
        mine = [layer for layer in ours.modules() if isinstance(layer, kinds)]
        for layer, their in zip(mine, theirs, strict=True):
            for key, value in their.state_dict().items():
                if key in layer.state_dict():
                    layer.state_dict()[key].copy_(value)
        with torch.no_grad():
            expected = features(image)
            assert expected.abs().max() > 0
            torch.testing.assert_close(ours(image)["conv5"], expected)

    def test_shape(self, image):
        vgg = VGG16()
        assert vgg.output_shape() == {"conv5": ShapeSpec(channels=512, stride=16)}
        assert vgg.size_divisibility == 16
        assert vgg(image)["conv5"].shape == (2, 512, 64 // 16, 96 // 16)

    def test_parameters(self):
        """13 convolutions: torchvision's 14,714,688 with biases; GN has two numbers for each of theirs."""
        with torch.device("meta"):
            plain, normed = VGG16(), VGG16("GN")
        assert sum(p.numel() for p in plain.parameters()) == 14_714_688
        biases = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512
        assert sum(p.numel() for p in normed.parameters()) == 14_714_688 + biases
        assert all(conv.bias is not None and conv.norm is None for conv in plain.children())
        assert all(conv.bias is None and type(conv.norm) is nn.GroupNorm for conv in normed.children())

    def test_input_channels(self):
        with torch.device("meta"):
            assert VGG16(in_channels=1).conv1_1.in_channels == 1

    @pytest.mark.parametrize(
        ("options", "message"), [({"norm": "LN"}, "norm 'LN'"), ({"init": "x"}, "INIT 'x'")]
    )
    def test_unknown(self, options, message):
        with pytest.raises(UserError, match=f"Unknown .*{message}"), torch.device("meta"):
            VGG16(**options)


class TestFreeze:
    @pytest.mark.parametrize("freeze_at", range(6))
    def test_groups(self, freeze_at):
        with torch.device("meta"):
            vgg = VGG16(freeze_at=freeze_at)
        frozen = {name.partition(".")[0] for name, p in vgg.named_parameters() if not p.requires_grad}
        assert frozen == {name for name in CONVS if int(name[4]) <= freeze_at}

    def test_batch_norm(self):
        vgg = VGG16("BN", freeze_at=2)
        kinds = {name: type(conv.norm) for name, conv in vgg.named_children()}
        assert kinds == {name: FrozenBatchNorm2d if name[4] in "12" else nn.BatchNorm2d for name in CONVS}


class TestOverlays:
    def test_model(self):
        """The original's: 512 channels in the RPN, 15 anchors a location, two layers of 4096."""
        with torch.device("meta"):
            model = build_model(load_config(SCRATCH_6X, ["vgg16"], ["MODEL.DEVICE", "meta"]))
        parts = {
            "backbone": 14_714_688,
            "proposal_generator": 3 * 3 * 512 * 512 + 512 + (512 + 1) * 15 * (1 + 4),
            "roi_heads.box_head": (7 * 7 * 512 + 1) * 4096 + (4096 + 1) * 4096,
            "roi_heads.box_predictor": (4096 + 1) * (81 + 320),
        }
        for part, count in parts.items():
            assert sum(p.numel() for name, p in model.named_parameters() if name.startswith(part)) == count
        assert sum(p.numel() for p in model.parameters()) == sum(parts.values())
        assert not any("Norm" in type(module).__name__ for module in model.modules())
        drops = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
        assert drops == [0.5, 0.5]

    def test_gn_changes_the_norm_alone(self):
        plain, normed = (
            flatten(load_config(SCRATCH_6X, overlays)) for overlays in (["vgg16"], ["vgg16", "vgg16_gn"])
        )
        assert {key: normed[key] for key in normed if normed[key] != plain[key]} == {"MODEL.VGG.NORM": "GN"}

    def test_keys_reach_the_backbone(self):
        opts = ["MODEL.BACKBONE.FREEZE_AT", "1", "MODEL.WEIGHTS", "vgg.pth"]
        cfg = load_config(SCRATCH_6X, ["vgg16", "vgg16_gn"], opts)
        with torch.device("meta"):
            vgg = build_backbone(cfg, ShapeSpec(channels=4))
        assert vgg.conv1_1.in_channels == 4
        assert vgg.conv5_3.norm.num_groups == 32
        assert not vgg.conv1_2.weight.requires_grad and vgg.conv2_1.weight.requires_grad

    @pytest.mark.parametrize("overlays", [["vgg16"], ["vgg16", "vgg16_gn"]])
    def test_trains_and_detects(self, overlays):
        opts = ["MODEL.DEVICE", "cpu", "MODEL.ROI_BOX_HEAD.FC_DIM", "32"]
        torch.manual_seed(0)
        model = build_model(load_config(TOY_CONFIG, overlays, opts))
        target = Instances((64, 80))
        target.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 50.0, 60.0]]))
        target.gt_classes = torch.tensor([1])
        data = {"image": torch.randint(256, (3, 64, 80)), "height": 64, "width": 80, "instances": target}
        with EventStorage():
            losses = model([data])
        assert losses.keys() == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}
        sum(losses.values()).backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        assert all(g is not None and torch.isfinite(g).all() for g in gradients.values())
        assert gradients["backbone.conv1_1.weight"].abs().max() > 0
        with torch.no_grad():
            (result,) = model.eval()([data])
        assert result["instances"].image_size == (64, 80)
