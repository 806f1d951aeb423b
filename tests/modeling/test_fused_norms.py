"""One step of GN and ReLU in every part that has both: plain and fused give the same, and so do gradients."""

from collections.abc import Callable

import pytest
import torch
from conftest import TOY_CONFIG
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.modeling.meta_arch.semantic_seg import build_sem_seg_head
from detectron2.modeling.roi_heads import build_keypoint_head
from test_other_heads import LEVELS, ROI_SHAPE, keypoint_cfg, retinanet_cfg, sem_seg_cfg
from torch import nn

from rethink_pretrain.config import load_config
from rethink_pretrain.layers import FusedGroupNorm
from rethink_pretrain.modeling.retinanet import RethinkRetinaNetHead


def vgg_cfg(norm: str) -> CfgNode:
    return load_config(TOY_CONFIG, ["vgg16"], ["MODEL.DEVICE", "cpu", "MODEL.VGG.NORM", norm])


def build_retinanet_head(cfg: CfgNode) -> nn.Module:
    return RethinkRetinaNetHead(cfg, [ShapeSpec(channels=32, stride=8)] * 5)


def run_vgg(vgg: nn.Module, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    return [vgg(maps[0][:, :3])["conv5"]]


def run_keypoint_head(head: nn.Module, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    return [head.layers(maps[0])]


def run_sem_seg_head(head: nn.Module, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    return [head.layers(dict(zip(LEVELS, maps, strict=True)))]


def run_retinanet_head(head: nn.Module, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    logits, deltas = head([maps[0], *[maps[1]] * 4])  # all levels share the head
    return [*logits, *deltas]


# Part: its config by norm, how it is built and run, and its GroupNorms, each with a ReLU behind it.
PARTS = {
    "vgg": (vgg_cfg, lambda cfg: build_backbone(cfg, ShapeSpec(channels=3)), run_vgg, 13),
    "keypoint": (keypoint_cfg, lambda cfg: build_keypoint_head(cfg, ROI_SHAPE), run_keypoint_head, 2),
    "sem_seg": (sem_seg_cfg, lambda cfg: build_sem_seg_head(cfg, LEVELS), run_sem_seg_head, 2),
    "retinanet": (retinanet_cfg, build_retinanet_head, run_retinanet_head, 4),
}


def build(part: str, norm: str, fused: bool) -> nn.Module:
    make_cfg, make, _, _ = PARTS[part]
    cfg = make_cfg(norm)
    cfg.defrost()
    cfg.RETHINK.SPEED.FUSED_NORM = fused
    torch.manual_seed(0)
    return make(cfg)


def outputs_and_gradients(module: nn.Module, run: Callable) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, 32, size, size, generator=generator).requires_grad_() for size in (32, 16)]
    outputs = run(module, maps)
    sum((output * output.detach().cos()).sum() for output in outputs).backward()
    used = [each for each in maps if each.grad is not None]
    return outputs, [each.grad for each in (*used, *module.parameters())]


@pytest.mark.parametrize("part", PARTS)
def test_plain_and_fused_are_one_function(part):
    *_, run, num_norms = PARTS[part]
    plain, fused = (build(part, "GN", switch) for switch in (False, True))
    assert list(fused.state_dict()) == list(plain.state_dict())
    for ours, host in zip(fused.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(ours, host)
    with torch.no_grad():
        for module in (plain, fused):  # scales and biases as after some training
            torch.manual_seed(1)
            for norm in module.modules():
                if isinstance(norm, nn.GroupNorm):
                    norm.weight.uniform_(0.5, 1.5), norm.bias.normal_()
    for ours, host in zip(*(outputs_and_gradients(each, run) for each in (fused, plain)), strict=True):
        assert len(ours) == len(host) > 0
        for found, expected in zip(ours, host, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

    norms = [each for each in fused.modules() if isinstance(each, nn.GroupNorm)]
    assert [type(norm) is FusedGroupNorm and norm.relu for norm in norms] == [True] * num_norms
    assert not any(isinstance(each, FusedGroupNorm) for each in plain.modules())
    assert not any(isinstance(each, nn.ReLU) for each in fused.modules())


@pytest.mark.parametrize("part", PARTS)
def test_without_gn_nothing_changes(part):
    """As `repr` shows it: each layer's kind and place."""
    assert repr(build(part, "", True)) == repr(build(part, "", False))
