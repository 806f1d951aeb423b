"""GroupNorm and ReLU in our Triton kernels, beside torch's two and a plain copy of as many bytes."""

import statistics
from typing import Any

import torch
from torch.nn import functional as F

from ...layers.fused_norm import group_norm_relu
from .rows import STOCK, speed_row, spread, time_by_turns, unmeasured_row
from .settings import Settings

_SHAPES = ((256, 200, 304), (64, 400, 608), (512, 100, 152), (2048, 25, 38))  # channels, height, width
_IMAGES, _GROUPS, _CALLS = 4, 32, 20
_BYTES = 2  # bf16


def measure_norm(settings: Settings) -> list[dict[str, Any]]:
    """Rows of forward + backward for maps of R50-FPN at 800x1216, bf16, channels-last: on CUDA alone."""
    if not torch.cuda.is_available():
        return [unmeasured_row("GroupNorm + ReLU, GB/s", "this machine has no CUDA device")]
    return [_measure(settings, *shape) for shape in _SHAPES]


def _measure(settings: Settings, channels: int, height: int, width: int) -> dict[str, Any]:
    generator = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(_IMAGES, channels, height, width, device="cuda", generator=generator).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = (torch.rand(channels, device="cuda", generator=generator) for _ in range(2))
    grad = torch.randn_like(x)

    def copy() -> torch.Tensor:
        # As many bytes as forward and backward at least: x in, y out; x and grad in, the gradient out.
        with torch.no_grad():
            x.clone()
            return x + grad

    def ours() -> torch.Tensor:
        y = group_norm_relu(x, _GROUPS, weight, bias)
        return torch.autograd.grad(y, x, grad)[0]

    def host() -> torch.Tensor:
        y = F.relu(F.group_norm(x, _GROUPS, weight.bfloat16(), bias.bfloat16()))
        return torch.autograd.grad(y, x, grad)[0]

    contestants = {"copy": copy, "ours": ours, **({STOCK: host} if settings.stock else {})}
    seconds = time_by_turns({name: _many(call) for name, call in contestants.items()}, 10, warm_up=3)
    copied = seconds.pop("copy")
    gigabytes = _CALLS * 5 * x.numel() * _BYTES / 1e9
    limit = gigabytes / statistics.median(copied)
    what = f"GroupNorm + ReLU, {_IMAGES}x{channels}x{height}x{width}; a plain copy has {limit:,.0f} GB/s"
    return speed_row(what, seconds, work=gigabytes, unit="GB/s", copy=spread(copied))


def _many(call: Any) -> Any:
    def run() -> None:
        for _ in range(_CALLS):
            call()
        torch.cuda.synchronize()

    return run
