"""Norms by name, and SyncBatchNorm against torch's BatchNorm2d over the pixels of all processes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import build_model
from torch import nn
from two_processes import run_on_two_ranks

from rethink_pretrain.config import load_config
from rethink_pretrain.errors import UserError
from rethink_pretrain.layers import NORMS, SyncBatchNorm, get_norm_factory

SCRATCH = Path(__file__).parents[2] / "configs" / "scratch_6x.yaml"
# An R18 and heads that are built in no time.
SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"),
    *("MODEL.FPN.OUT_CHANNELS", "64", "MODEL.ROI_BOX_HEAD.CONV_DIM", "64", "MODEL.ROI_BOX_HEAD.FC_DIM", "32"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "64"),
]
NODES = ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")
CHANNELS = 6


class TestNames:
    @pytest.mark.parametrize(
        ("name", "cls"),
        [
            ("GN", nn.GroupNorm),
            ("SyncBN", SyncBatchNorm),
            ("BN", nn.BatchNorm2d),
            ("FrozenBN", FrozenBatchNorm2d),
        ],
    )
    def test_factory(self, name, cls):
        norm = get_norm_factory(name)(64)
        assert type(norm) is cls
        assert norm.eps == 1e-5
        assert norm.weight.shape == (64,)
        assert (norm.weight == 1).all()
        assert (norm.bias == 0).all()

    @pytest.mark.parametrize("name", ["none", ""])
    def test_no_norm_is_the_hosts_word_for_it(self, name):
        assert get_norm_factory(name) == ""

    @pytest.mark.parametrize("name", ["gn", "GroupNorm", "LN", " GN"])
    def test_unknown_lists_the_names(self, name):
        with pytest.raises(UserError) as info:
            get_norm_factory(name)
        assert str(info.value) == f"Unknown norm {name!r}. Choose from GN, SyncBN, BN, FrozenBN, none."


class TestGroupNorm:
    @pytest.mark.parametrize("channels", [32, 64, 256])
    def test_groups(self, channels):
        assert get_norm_factory("GN")(channels).num_groups == 32

    @pytest.mark.parametrize("channels", [48, 16, 1])
    def test_channels_that_do_not_divide(self, channels):
        with pytest.raises(UserError) as info:
            get_norm_factory("GN")(channels)
        assert f"32 groups and cannot split {channels} channels" in str(info.value)
        assert "multiples of 32, or another norm" in str(info.value)

    def test_values(self):
        """64 channels: each pair has mean 0 and variance 1 within its image."""
        x = 3 + 5 * torch.randn(2, 64, 7, 5, generator=torch.Generator().manual_seed(0))
        y = get_norm_factory("GN")(64)(x).reshape(2, 32, -1)
        torch.testing.assert_close(y.mean(2), torch.zeros(2, 32), atol=1e-5, rtol=0)
        torch.testing.assert_close(y.var(2, unbiased=False), torch.ones(2, 32), atol=1e-4, rtol=0)


def build_small(name: str) -> nn.Module:
    """A model with that norm in backbone, FPN, box head and mask head."""
    cfg = load_config(SCRATCH, opts=SMALL)
    for node in NODES:
        cfg.MODEL[node].NORM = name
    return build_model(cfg)


def convs_with_place(model: nn.Module) -> list[tuple[str, Conv2d]]:
    """All convolutions that could have a norm, and which part of the model they are in."""
    prefixes = {
        "backbone.bottom_up": "backbone",
        "backbone.fpn": "fpn",
        "proposal_generator": "rpn",
        "roi_heads.box_head": "box",
        "roi_heads.mask_head.mask_fcn": "mask",
        "roi_heads.mask_head.predictor": "predictor",
    }
    ret = []
    for name, module in model.named_modules():
        if isinstance(module, Conv2d):
            (place,) = (place for prefix, place in prefixes.items() if name.startswith(prefix))
            ret.append((place, module))
    return ret


class TestWholeModel:
    # R18: stem, 8 blocks of 2, 3 shortcuts. FPN: 4 levels of 2. Heads: 4 each.
    WITH_NORM = {"backbone": 20, "fpn": 8, "box": 4, "mask": 4}

    def test_added_norm_reaches_every_part(self, monkeypatch):
        class Mine(nn.InstanceNorm2d):
            pass

        monkeypatch.setitem(NORMS, "Mine", Mine)
        convs = convs_with_place(build_small("Mine"))
        for place, count in self.WITH_NORM.items():
            found = [conv for where, conv in convs if where == place]
            assert len(found) == count
            assert all(type(conv.norm) is Mine for conv in found)
            assert all(conv.norm.num_features == conv.out_channels for conv in found)
        assert all(conv.norm is None for where, conv in convs if where in ("rpn", "predictor"))

    @pytest.mark.parametrize("name", NORMS)
    def test_bias_where_there_is_no_norm(self, name):
        convs = convs_with_place(build_small(name))
        assert len(convs) == sum(self.WITH_NORM.values()) + 2  # the first of the RPN, the mask predictor
        for place, conv in convs:
            has_norm = name not in ("none", "") and place in self.WITH_NORM
            assert (conv.norm is not None) == has_norm
            assert (conv.bias is None) == has_norm

    def test_bad_channels_name_the_fix(self):
        with pytest.raises(UserError, match="cannot split 48 channels"):
            build_model(load_config(SCRATCH, opts=[*SMALL, "MODEL.FPN.OUT_CHANNELS", "48"]))


def make_norm(cls: type) -> nn.BatchNorm2d:
    """Weights and statistics that are neither 0 nor 1, the same for every class."""
    norm = cls(CHANNELS)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.copy_(torch.randn(CHANNELS, generator=generator))
        norm.running_var.copy_(1 + torch.rand(CHANNELS, generator=generator))
    return norm


def make_inputs(shapes: list[tuple[int, int, int]], dtype=torch.float32) -> list[tuple[torch.Tensor, ...]]:
    """Input and gradient of the output for each (N, H, W); the mean is far from 0, as after a ReLU."""
    generator = torch.Generator().manual_seed(2)
    return [
        (
            (7 + 2 * torch.randn(n, CHANNELS, h, w, generator=generator)).to(dtype).requires_grad_(),
            torch.randn(n, CHANNELS, h, w, generator=generator).to(dtype),
        )
        for n, h, w in shapes
    ]


def step(norm: nn.BatchNorm2d, x: torch.Tensor, grad: torch.Tensor) -> dict[str, torch.Tensor]:
    """Forward and backward; everything that may then differ between two norms."""
    y = norm(x)
    y.backward(grad)
    parameter_grads = {"weight": norm.weight.grad, "bias": norm.bias.grad}
    return {
        "y": y.detach(),
        "x_grad": x.grad,
        **{f"{k}_grad": torch.zeros(CHANNELS) if v is None else v for k, v in parameter_grads.items()},
        "mean": norm.running_mean,
        "var": norm.running_var,
    }


class TestOneProcess:
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("shape", [(3, 5, 7), (1, 1, 2)])
    def test_equals_batch_norm(self, shape, training):
        results = []
        for cls in (SyncBatchNorm, nn.BatchNorm2d):
            ((x, grad),) = make_inputs([shape])
            results.append(step(make_norm(cls).train(training), x, grad))
        torch.testing.assert_close(*results, rtol=0, atol=0)

    @pytest.mark.parametrize("training", [True, False])
    def test_empty_batch(self, training):
        norm, fresh = make_norm(SyncBatchNorm).train(training), make_norm(SyncBatchNorm)
        ((x, grad),) = make_inputs([(0, 3, 4)])
        result = step(norm, x, grad)
        assert result["y"].shape == (0, CHANNELS, 3, 4)
        torch.testing.assert_close(norm.running_mean, fresh.running_mean, rtol=0, atol=0)
        torch.testing.assert_close(norm.running_var, fresh.running_var, rtol=0, atol=0)
        assert torch.isfinite(norm.running_var).all()

    def test_learns_after_an_empty_batch(self):
        norm, reference = make_norm(SyncBatchNorm), make_norm(nn.BatchNorm2d)
        norm(torch.zeros(0, CHANNELS, 3, 4))
        for module in (norm, reference):
            module(make_inputs([(2, 3, 4)])[0][0])
        torch.testing.assert_close(norm.running_mean, reference.running_mean)
        torch.testing.assert_close(norm.running_var, reference.running_var)


# What the two processes get: (N, H, W) of each.
CASES = {
    "3 and 1 images": [(3, 5, 7), (1, 4, 2)],
    "equal sizes": [(2, 4, 4), (2, 4, 4)],
    "second empty": [(2, 3, 3), (0, 3, 3)],
    "first empty": [(0, 6, 2), (1, 3, 5)],
    "both empty": [(0, 3, 3), (0, 2, 2)],
}
HALF = [(8, 80, 50), (8, 70, 50)]


def run_rank(rank: int) -> dict[str, dict[str, torch.Tensor]]:
    """Process `rank` of two: every case in turn."""
    results = {}
    for name, shapes in CASES.items():
        x, grad = make_inputs(shapes)[rank]
        results[name] = step(make_norm(SyncBatchNorm), x, grad)
    x, grad = make_inputs(HALF, torch.float16)[rank]
    results["half"] = step(make_norm(SyncBatchNorm), x, grad)
    if rank == 0:  # evaluation talks to nobody: were it to, one process alone would wait for ever
        x, grad = make_inputs(CASES["equal sizes"])[rank]
        results["eval"] = step(make_norm(SyncBatchNorm).eval(), x, grad)
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, dict[str, torch.Tensor]]]:
    return run_on_two_ranks(run_rank, tmp_path_factory.mktemp("two_processes"))


def one_process(shapes: list[tuple[int, int, int]], dtype=torch.float32) -> SimpleNamespace:
    """torch's BatchNorm2d on one image that holds the pixels of all processes, split again afterwards."""
    inputs = make_inputs(shapes, dtype)
    joined = [
        torch.cat([t[i].detach().float().transpose(0, 1).flatten(1) for t in inputs], 1)[None, :, None]
        for i in (0, 1)
    ]
    norm = make_norm(nn.BatchNorm2d)
    result = step(norm, joined[0].requires_grad_(), joined[1])
    sizes = [n * h * w for n, h, w in shapes]

    def split(tensor: torch.Tensor) -> list[torch.Tensor]:
        parts = tensor[0, :, 0].split(sizes, dim=1)
        return [part.reshape(CHANNELS, n, h, w).transpose(0, 1) for part, (n, h, w) in zip(parts, shapes)]

    return SimpleNamespace(**{**result, "y": split(result["y"]), "x_grad": split(result["x_grad"])})


class TestTwoProcesses:
    @pytest.mark.parametrize("case", [name for name in CASES if name != "both empty"])
    def test_equal_one_process_with_all_pixels(self, ranks, case):
        expected = one_process(CASES[case])
        for rank in range(2):
            result = ranks[rank][case]
            torch.testing.assert_close(result["y"], expected.y[rank], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(result["x_grad"], expected.x_grad[rank], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(result["mean"], expected.mean, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(result["var"], expected.var, rtol=1e-5, atol=1e-5)
        for name in ("weight_grad", "bias_grad"):
            total = ranks[0][case][name] + ranks[1][case][name]
            torch.testing.assert_close(total, getattr(expected, name), rtol=1e-5, atol=1e-4)

    def test_both_empty(self, ranks):
        fresh = make_norm(SyncBatchNorm)
        for rank, (n, h, w) in enumerate(CASES["both empty"]):
            result = ranks[rank]["both empty"]
            assert result["y"].shape == result["x_grad"].shape == (n, CHANNELS, h, w)
            torch.testing.assert_close(result["mean"], fresh.running_mean, rtol=0, atol=0)
            torch.testing.assert_close(result["var"], fresh.running_var, rtol=0, atol=0)
            assert (result["weight_grad"] == 0).all()
            assert (result["bias_grad"] == 0).all()

    def test_evaluation_is_local(self, ranks):
        x, grad = make_inputs(CASES["equal sizes"])[0]
        expected = step(make_norm(nn.BatchNorm2d).eval(), x, grad)
        torch.testing.assert_close(ranks[0]["eval"], expected, rtol=0, atol=0)

    def test_half_precision(self, ranks):
        """Sums of these inputs pass 65,504, where float16 ends; statistics must not."""
        expected = one_process(HALF, torch.float16)
        for rank in range(2):
            result = ranks[rank]["half"]
            assert result["y"].dtype == result["x_grad"].dtype == torch.float16
            torch.testing.assert_close(result["y"].float(), expected.y[rank], rtol=2e-3, atol=2e-3)
            torch.testing.assert_close(result["mean"], expected.mean, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(result["var"], expected.var, rtol=1e-5, atol=1e-5)
