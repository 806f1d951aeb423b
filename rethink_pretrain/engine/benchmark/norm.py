"""GroupNorm and ReLU in one kernel beside the host's two, and beside a plain copy of as many bytes."""

from typing import Any

import torch
from torch.nn import functional as F

from ...layers.fused_norm import group_norm_relu
from .rows import STOCK, speed_row, time_by_turns, unmeasured_row
from .settings import Settings

_SHAPES = ((256, 200, 304), (64, 400, 608), (512, 100, 152), (2048, 25, 38))  # channels, height, width
_IMAGES, _GROUPS, _CALLS = 4, 32, 20
_BYTES = 2  # bf16


def measure_norm(settings: Settings) -> list[dict[str, Any]]:
    """Rows of forward + backward for maps of R50-FPN at 800x1216, bf16, channels-last: on CUDA alone."""
    if not torch.cuda.is_available():
        return [unmeasured_row("GroupNorm + ReLU in one kernel, GB/s", "this machine has no CUDA device")]
    return [_measure(settings, *shape) for shape in _SHAPES]


def _measure(settings: Settings, channels: int, height: int, width: int) -> dict[str, Any]:
    generator = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(_IMAGES, channels, height, width, device="cuda", generator=generator).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = (torch.rand(channels, device="cuda", generator=generator) for _ in range(2))
    grad = torch.randn_like(x)

    def copy() -> torch.Tensor:
        # The least that forward and backward move: x in, y out; grad and x in, the gradient out.
        with torch.no_grad():
            x.clone(), grad.clone()
            return x.clone()

    def ours() -> torch.Tensor:
        y = group_norm_relu(x, _GROUPS, weight, bias)
        return torch.autograd.grad(y, x, grad)[0]

    def host() -> torch.Tensor:
        y = F.relu(F.group_norm(x, _GROUPS, weight.bfloat16(), bias.bfloat16()))
        return torch.autograd.grad(y, x, grad)[0]

    contestants = {"plain copy": copy, "ours": ours, **({STOCK: host} if settings.stock else {})}
    seconds = time_by_turns({name: _many(call) for name, call in contestants.items()}, 10, warm_up=3)
    gigabytes = _CALLS * 5 * x.numel() * _BYTES / 1e9
    size = f"{_IMAGES}x{channels}x{height}x{width}"
    return speed_row(f"GroupNorm + ReLU, forward and backward, {size}", seconds, work=gigabytes, unit="GB/s")


def _many(call: Any) -> Any:
    def run() -> None:
        for _ in range(_CALLS):
            call()
        torch.cuda.synchronize()

    return run
