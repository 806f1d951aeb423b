"""GroupNorm with its residual and ReLU in one step: on the CPU torch's own, in Triton's kernels float64's."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn
from torch.nn import functional as F

from rethink_pretrain.config import load_config
from rethink_pretrain.engine import Trainer
from rethink_pretrain.layers import fuse_norms
from rethink_pretrain.layers.fused_norm import FusedGroupNorm, group_norm_relu

TOY = Path(__file__).parents[2] / "configs" / "toy" / "scratch_mask_rcnn_R_18_FPN_gn.yaml"


@pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="torch came without Triton")
@pytest.mark.parametrize("cases", ["quick", pytest.param("all", marks=pytest.mark.slow)])
def test_kernels_are_float64_rounded_once(cases):
    """All channel counts of our models, odd sizes, memory formats and dtypes, forward and backward."""
    script = Path(__file__).with_name("interpreted_norm.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, cases], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) <= 0


def gradients(function, x, *others):
    leaves = [each.detach().clone().requires_grad_() for each in (x, *others)]
    y = function(*leaves)
    y.backward(torch.linspace(-1, 1, y.numel()).view_as(y))
    return [y.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_cpu_it_is_torchs_own(layout, dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 64, 9, 7).to(dtype).to(memory_format=layout)
    residual = torch.randn(2, 64, 9, 7).to(dtype).to(memory_format=layout)
    weight, bias = torch.rand(64).to(dtype), torch.randn(64).to(dtype)
    found = gradients(lambda x, w, b, r: group_norm_relu(x, 32, w, b, residual=r), x, weight, bias, residual)
    expected = gradients(lambda x, w, b, r: F.relu(F.group_norm(x, 32, w, b) + r), x, weight, bias, residual)
    assert torch.equal(found[0], expected[0])
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for ours, torchs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours, torchs, rtol=tolerance, atol=tolerance)


def test_empty_batch():
    x = torch.randn(0, 64, 9, 7, requires_grad=True)
    weight = torch.ones(64, requires_grad=True)
    y = group_norm_relu(x, 32, weight, torch.zeros(64))
    y.sum().backward()
    assert y.shape == x.shape and not weight.grad.any()


def test_only_relu_behind_groupnorm_is_taken():
    convs = nn.Sequential(
        Conv2d(32, 32, 3, norm=nn.GroupNorm(32, 32), activation=F.relu),
        Conv2d(32, 32, 3, norm=nn.GroupNorm(32, 32), activation=F.gelu),
        Conv2d(32, 32, 3, norm=nn.BatchNorm2d(32), activation=F.relu),
        Conv2d(32, 32, 3, activation=F.relu),
    )
    x = torch.randn(2, 32, 16, 16)
    names, expected = list(convs.state_dict()), convs(x)
    fuse_norms(convs)
    norms = [conv.norm for conv in convs]
    assert [getattr(norm, "relu", None) for norm in norms] == [True, False, None, None]
    assert [type(norm) is FusedGroupNorm for norm in norms] == [True, True, False, False]
    assert [conv.activation for conv in convs] == [None, F.gelu, F.relu, F.relu]
    assert list(convs.state_dict()) == names
    torch.testing.assert_close(convs(x), expected)


def test_the_relu_that_is_the_next_layer_is_taken():
    def conv(**options) -> Conv2d:
        return Conv2d(32, 32, 3, padding=1, **options)

    layers = nn.Sequential(
        *(nn.GroupNorm(32, 32), nn.ReLU()),
        *(conv(norm=nn.GroupNorm(32, 32)), nn.ReLU(inplace=True)),
        *(conv(norm=nn.GroupNorm(32, 32), activation=torch.tanh), nn.ReLU()),
        *(nn.GroupNorm(32, 32, affine=False), nn.ReLU()),
        *(nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.GroupNorm(32, 32), nn.ELU()),
    )
    x = torch.randn(2, 32, 8, 8)
    names, expected = list(layers.state_dict()), layers(x)
    fuse_norms(layers)
    assert list(layers.state_dict()) == names
    assert [index for index, layer in enumerate(layers) if type(layer) is nn.Identity] == [1, 3]
    assert layers[0].relu and layers[2].norm.relu and not layers[4].norm.relu
    assert type(layers[6]) is type(layers[10]) is nn.GroupNorm
    assert torch.equal(layers(x), expected)


def test_a_detector_has_the_same_losses_and_gradients():
    models = []
    for fused in ("False", "True"):
        torch.manual_seed(0)
        cfg = load_config(TOY, [], ["RETHINK.SPEED.FUSED_NORM", fused, "MODEL.DEVICE", "cpu"])
        models.append(Trainer.build_model(cfg))
    plain, fused = models
    assert list(plain.state_dict()) == list(fused.state_dict())
    assert sum(isinstance(module, FusedGroupNorm) for module in fused.modules()) == 31
    assert not any(isinstance(module, FusedGroupNorm) for module in plain.modules())
    image = torch.rand(1, 3, 96, 96)
    results = [model.backbone(image) for model in models]
    for name, expected in results[0].items():
        torch.testing.assert_close(results[1][name], expected)
    for result in results:
        sum(level.square().mean() for level in result.values()).backward()
    for ours, host in zip(fused.parameters(), plain.parameters(), strict=True):
        if host.grad is not None:
            torch.testing.assert_close(ours.grad, host.grad, rtol=1e-4, atol=1e-6)
