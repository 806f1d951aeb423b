"""Gradients that two processes exchange, against means by hand."""

import pytest
import torch
from detectron2.utils import comm
from torch import nn
from two_processes import run_on_two_ranks

from rethink_pretrain.engine.unwrap import distribute, unwrap

# bf16 keeps 7 bits behind the point: between 1 and 2, multiples of 1/128. Ties go to the even one.
STEP = 2.0**-7
GRADIENTS = (
    [1.0 + STEP / 2, 1.0 + STEP * 0.75, 1.0 + STEP, -3.0, 1.0 + STEP],
    [1.0 + STEP / 2, 1.0 + STEP * 0.75, 1.0, 5.0 + STEP, 1.0 + STEP * 1.75],
)
MEANS = [1.0 + STEP / 2, 1.0 + STEP * 0.75, 1.0 + STEP / 2, 1.0 + STEP / 2, 1.0 + STEP * 1.375]
# Each process rounds to (1, 1 + STEP, 1 + STEP, -3, 1 + STEP) and (1, 1 + STEP, 1, 5, 1 + 2 STEP). Then the
# mean is rounded: 1 + STEP / 2 to 1, and 1 + 1.5 STEP to 1 + 2 STEP.
ROUNDED_MEANS = [1.0, 1.0 + STEP, 1.0, 1.0, 1.0 + STEP * 2]


def exchange(rank: int) -> dict[str, torch.Tensor]:
    """The gradient of a product with a vector is that vector."""
    ret = {}
    for name, bf16_gradients in (("fp32", False), ("bf16", True)):
        model = distribute(nn.Linear(5, 1, bias=False), bf16_gradients=bf16_gradients)
        model(torch.tensor([GRADIENTS[rank]])).sum().backward()
        ret[name] = unwrap(model).weight.grad[0].clone()
    return ret


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    yield run_on_two_ranks(exchange, tmp_path_factory.mktemp("gradients"))
    comm._get_global_gloo_group.cache_clear()  # the host keeps a process's first group


@pytest.mark.parametrize("name, means", [("fp32", MEANS), ("bf16", ROUNDED_MEANS)])
def test_both_processes_get_the_mean(ranks, name, means):
    for gradients in ranks:
        assert gradients[name].dtype == torch.float32
        assert gradients[name].tolist() == means


@pytest.mark.parametrize("bf16_gradients", [False, True])
def test_one_process_exchanges_nothing(bf16_gradients):
    model = nn.Linear(5, 1)
    assert distribute(model, bf16_gradients=bf16_gradients) is unwrap(model) is model
