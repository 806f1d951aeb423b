"""Convolutions with fewer multiplications: against float64, with the names and weights of the host's."""

import copy
import subprocess
import sys

import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn
from torch.nn import functional as F

from rethink_pretrain.layers import use_fast_convolutions
from rethink_pretrain.layers.fast_conv import FastConv2d, PlainFastConv2d, _has_nnpack, conv1x1, conv3x3

needs_nnpack = pytest.mark.skipif(not _has_nnpack(), reason="torch came without NNPACK")


def results(function, x, weight, bias, dtype, **settings):
    """Result and gradients of x, weight and bias for a gradient that depends on the place."""
    leaves = [each.to(dtype, copy=True).requires_grad_() for each in (x, weight, bias)]
    y = function(*leaves, **settings)
    torch.manual_seed(1)
    y.backward(torch.randn(y.shape).to(dtype))
    return [y.detach(), *(leaf.grad for leaf in leaves)]


@needs_nnpack
@pytest.mark.parametrize(
    "shape",
    [(1, 128, 60, 61), (2, 128, 55, 63), (3, 130, 7, 7), (65, 128, 7, 7), (20, 128, 14, 13), (1, 129, 1, 1)],
)
def test_3x3_against_float64(shape):
    """One large map, two, RoIs that fill their sheet or not, odd sides and channels."""
    torch.manual_seed(0)
    x, bias = torch.randn(shape), torch.randn(136)
    weight = torch.randn(136, shape[1], 3, 3) / (9 * shape[1]) ** 0.5
    found = results(conv3x3, x, weight, bias, torch.float32)
    expected = results(F.conv2d, x, weight, bias, torch.float64, padding=1)
    for ours, exact in zip(found, expected, strict=True):
        assert (ours - exact).abs().max() < 2e-4 * exact.abs().max()


@needs_nnpack
@pytest.mark.parametrize("images", [1, 2, 7])
def test_what_follows_may_work_in_place(images):
    torch.manual_seed(0)
    x, weight = torch.randn(images, 128, 14, 9), torch.randn(128, 128, 3, 3) / 34

    def ours(x, weight, bias):
        y = conv3x3(x, weight, bias)
        y += 1
        return F.relu_(y)

    def exact(x, weight, bias):
        return F.relu(F.conv2d(x, weight, bias, padding=1) + 1)

    found, expected = (results(f, x, weight, torch.zeros(128), torch.float32) for f in (ours, exact))
    torch.testing.assert_close(found[0], expected[0], rtol=1e-3, atol=1e-3)
    assert (found[2] - expected[2]).norm() < 1e-2 * expected[2].norm()  # near 0 a ReLU may differ


@pytest.mark.parametrize("with_bias", [True, False])
def test_1x1_against_float64(with_bias):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 16, 9, 7), torch.randn(5, 16, 1, 1), torch.randn(5)

    def ours(x, weight, bias):
        return conv1x1(x, weight, bias if with_bias else None) + (0 if with_bias else 0 * bias.sum())

    def exact(x, weight, bias):
        return F.conv2d(x, weight, bias if with_bias else None) + (0 if with_bias else 0 * bias.sum())

    for found, expected in zip(
        results(ours, x, weight, bias, torch.float32),
        results(exact, x, weight, bias, torch.float64),
        strict=True,
    ):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("conv", "kind"),
    [
        (Conv2d(128, 128, 3, padding=1), FastConv2d),
        (nn.Conv2d(128, 256, 3, padding=1), PlainFastConv2d),
        (Conv2d(8, 4, 1), FastConv2d),
        (Conv2d(64, 128, 3, padding=1), Conv2d),
        (Conv2d(128, 128, 3), Conv2d),
        (Conv2d(128, 128, 3, padding=1, stride=2), Conv2d),
        (Conv2d(128, 128, 3, padding=2, dilation=2), Conv2d),
        (Conv2d(256, 256, 3, padding=1, groups=2), Conv2d),
        (Conv2d(8, 8, 1, stride=2), Conv2d),
        (nn.Conv2d(128, 128, 3, padding=1, padding_mode="circular"), nn.Conv2d),
        (nn.ConvTranspose2d(128, 128, 1), nn.ConvTranspose2d),
    ],
)
@needs_nnpack
def test_which_are_replaced(conv, kind):
    model = nn.Sequential(conv)
    use_fast_convolutions(model)
    assert type(model[0]) is kind


def steps(y):
    """Names of what made `y`, the last one first."""
    ret, node = [], y.grad_fn
    while node is not None and "AccumulateGrad" not in node.name():
        ret.append(node.name())
        node = node.next_functions[0][0]
    return ret


@needs_nnpack
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_module_keeps_weights_norm_and_activation(kernel):
    torch.manual_seed(0)
    norm = nn.GroupNorm(32, 128)
    plain = Conv2d(128, 128, kernel, padding=kernel // 2, bias=False, norm=norm, activation=F.relu)
    fast = nn.ModuleList([copy.deepcopy(plain)])
    kept = [fast[0]]  # as the host's FPN does
    use_fast_convolutions(fast)
    x = torch.randn(1, 128, 101, 103)
    assert kept[0].state_dict().keys() == plain.state_dict().keys()
    torch.testing.assert_close(kept[0](x), plain(x), rtol=1e-3, atol=1e-3)
    assert steps(plain(x)) == ["ReluBackward0", "NativeGroupNormBackward0", "ConvolutionBackward0"]
    assert steps(kept[0](x))[:2] == ["ReluBackward0", "NativeGroupNormBackward0"]
    assert "ConvolutionBackward0" not in steps(kept[0](x))


@needs_nnpack
def test_where_it_does_not_pay_it_is_the_host_to_the_bit():
    torch.manual_seed(0)
    plain = nn.Sequential(Conv2d(128, 128, 3, padding=1), Conv2d(128, 3, 1))
    fast = copy.deepcopy(plain)
    use_fast_convolutions(fast)
    small, large = torch.randn(1, 128, 20, 20), torch.randn(1, 128, 101, 101)
    assert torch.equal(fast(small), plain(small))
    assert torch.equal(fast(large[:0]), plain(large[:0]))
    assert torch.equal(fast.double()(large.double()), plain.double()(large.double()))
    fast, plain = fast.float(), plain.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fast(large), plain(large))


@needs_nnpack
def test_in_a_process_that_begins_with_it():
    """NNPACK fails unless somebody has asked for it before."""
    code = (
        "import torch; from rethink_pretrain.layers.fast_conv import conv3x3;"
        "print(conv3x3(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3))[0, 0, 1, 1].item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert abs(float(done.stdout) - 9) < 1e-3
