"""The fused update against the host's plain one."""

import copy

import pytest
import torch

from rethink_pretrain.engine import Trainer

FORMATS = (torch.contiguous_format, torch.channels_last)


def build(cfg, model, fused: bool) -> torch.optim.Optimizer:
    cfg.RETHINK.SPEED.FUSED_SGD = fused
    return Trainer.build_optimizer(cfg, model)


def steps(model, optimizer, seeds) -> None:
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        optimizer.step()


def assert_close(a: torch.nn.Module, b: torch.nn.Module) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.GroupNorm(2, 8), torch.nn.Linear(5, 6))


@pytest.mark.parametrize("clip", [False, True])
def test_twenty_steps_are_those_of_the_plain_optimizer(short_cfg, model, clip):
    """With the groups of the host: norms and biases have a weight decay and rate of their own."""
    short_cfg.SOLVER.WEIGHT_DECAY_NORM, short_cfg.SOLVER.BIAS_LR_FACTOR = 0.01, 2.0
    short_cfg.SOLVER.CLIP_GRADIENTS.ENABLED = clip
    twin = copy.deepcopy(model)
    plain, fused = build(short_cfg, model, False), build(short_cfg, twin, True)
    assert len(plain.param_groups) == len(fused.param_groups) > 1
    assert all(group["fused"] or group["foreach"] for group in fused.param_groups)
    assert not any(group["fused"] for group in plain.param_groups)
    steps(model, plain, range(20))
    steps(twin, fused, range(20))
    assert_close(model, twin)


@pytest.mark.parametrize("formats", [FORMATS, FORMATS[::-1]])
def test_a_run_resumes_in_another_memory_format(short_cfg, model, formats):
    twin = copy.deepcopy(model)
    steps(model, build(short_cfg, model, False), range(6))
    half = build(short_cfg, twin.to(memory_format=formats[0]), True)
    steps(twin, half, range(3))
    state = copy.deepcopy(half.state_dict())
    resumed = build(short_cfg, twin.to(memory_format=formats[1]), True)
    resumed.load_state_dict(state)
    steps(twin, resumed, range(3, 6))
    assert_close(model, twin)


@pytest.mark.parametrize("first", [False, True])
def test_a_run_resumes_with_the_other_one(short_cfg, model, first):
    twin = copy.deepcopy(model)
    whole = build(short_cfg, model, first)
    steps(model, whole, range(6))
    half = build(short_cfg, twin, first)
    steps(twin, half, range(3))
    resumed = build(short_cfg, twin, not first)
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    assert bool(resumed.param_groups[0]["fused"]) is not first
    steps(twin, resumed, range(3, 6))
    assert_close(model, twin)
