"""Blocks that compute twice have the gradients of those that keep everything."""

import copy

import pytest
import torch
from torch import nn

from rethink_pretrain.modeling.activation_checkpointing import checkpoint_activations
from rethink_pretrain.modeling.backbone.resnet import build_resnet


def gradients(model: nn.Module, x: torch.Tensor, bf16: bool) -> list[torch.Tensor]:
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        maps = model(x)
    sum(value.float().square().mean() for value in maps.values()).backward()
    return [p.grad for p in model.parameters()]


def with_dropout(model: nn.Module) -> nn.Module:
    """A draw within a block."""
    model.res3[0].conv1.register_forward_hook(lambda m, i, output: nn.functional.dropout(output, 0.5))
    return model


@pytest.mark.parametrize("bf16", [False, True])
def test_gradients_are_equal_with_dropout_too(bf16):
    plain = with_dropout(build_resnet(18, "GN"))
    again = copy.deepcopy(plain)
    assert checkpoint_activations(again) == 9  # the stem and 8 blocks
    x = torch.randn(1, 3, 64, 64)
    expected = gradients(plain, x, bf16)
    assert all(map(torch.equal, gradients(again, x, bf16), expected))
    assert plain.state_dict().keys() == again.state_dict().keys()


def test_less_is_kept():
    """Counted by autograd itself: the tensors that it saves for the backward pass."""
    x = torch.randn(1, 3, 64, 64)
    plain = build_resnet(18, "GN")
    again = copy.deepcopy(plain)
    checkpoint_activations(again)
    assert saved_bytes(again, x) < 0.6 * saved_bytes(plain, x)


def saved_bytes(model: nn.Module, x: torch.Tensor) -> int:
    own = {p.data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor):
        if tensor.data_ptr() not in own:
            saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        maps = model(x)
    return sum(saved.values()) if maps else 0


def test_batchnorm_counts_once(caplog):
    model = build_resnet(18, "BN")
    assert checkpoint_activations(model) == 0 and "BatchNorm" in caplog.text
    gradients(model, torch.randn(2, 3, 64, 64), False)
    assert model.stem.conv1.norm.num_batches_tracked == 1
