"""What FAST_ROI_ALIGN and FAST_CONV gain on a CPU: forward and backward beside torchvision's and torch's."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from detectron2.layers import ROIAlign
from torch import Tensor, nn

from ...layers import use_fast_convolutions, use_fast_roi_align
from .rows import STOCK, speed_row, time_by_turns
from .settings import Settings

_BOXES, _CHANNELS = 512, 256
_MAPS = ((200, 304), (100, 152), (50, 76))  # rows and columns of R50-FPN's maps, of an image of 800x1216 px
_TOLERANCE = 1e-3  # of the largest value: Winograd's sums are of other numbers


def measure_layers(settings: Settings) -> list[dict[str, Any]]:
    """Rows of RoIAlign and of convolutions by the size of the map, fp32. AssertionError for other values."""
    rows = [_measure_roi_align(settings)]
    for side, maps in ((3, _MAPS), (1, _MAPS[:2])):
        rows += [_measure_conv(settings, side, size) for size in maps[: settings.layer_maps]]
    return rows


def _measure_roi_align(settings: Settings) -> dict[str, Any]:
    """Boxes of 7x7 bins on the largest map, as the FPN's rule gives them to it: up to 112 px on a side."""
    rows, columns = _MAPS[0]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, _CHANNELS, rows, columns, generator=generator)
    start = torch.rand(_BOXES, 2, generator=generator) * torch.tensor([4.0 * columns - 112, 4.0 * rows - 112])
    size = 8 + 104 * torch.rand(_BOXES, 2, generator=generator)
    boxes = torch.cat([torch.zeros(_BOXES, 1), start, start + size], dim=1)
    modules = {name: ROIAlign((7, 7), 0.25, 0, aligned=True) for name in _names(settings)}
    use_fast_roi_align(modules["ours"])
    contestants = {name: _passes(lambda x, m=module: m(x, boxes), x) for name, module in modules.items()}
    return _row(f"RoIAlign, {_BOXES} boxes, {_CHANNELS}x{rows}x{columns}", contestants, settings)


def _measure_conv(settings: Settings, side: int, size: tuple[int, int]) -> dict[str, Any]:
    torch.manual_seed(0)
    x = torch.randn(1, _CHANNELS, *size)
    plain = nn.Conv2d(_CHANNELS, _CHANNELS, side, padding=side // 2)
    fast = copy.deepcopy(plain)
    use_fast_convolutions(fast)
    modules = {STOCK: plain, "ours": fast}
    contestants = {name: _passes(modules[name], x, *modules[name].parameters()) for name in _names(settings)}
    what = f"convolution {side}x{side}, {_CHANNELS}x{size[0]}x{size[1]}"
    return _row(what, contestants, settings)


def _names(settings: Settings) -> list[str]:
    return [*[STOCK] * settings.stock, "ours"]


def _passes(call: Callable[[Tensor], Tensor], x: Tensor, *parameters: Tensor) -> Callable[[], list[Tensor]]:
    """Forward and backward; it returns the result and all gradients."""
    wanted = [x.clone().requires_grad_(), *parameters]
    gradient: list[Tensor] = []

    def run() -> list[Tensor]:
        y = call(wanted[0])
        if not gradient:
            gradient.append(torch.randn(y.shape, generator=torch.Generator().manual_seed(1)))
        return [y.detach(), *torch.autograd.grad(y, wanted, gradient[0])]

    return run


def _row(what: str, contestants: dict[str, Callable[[], list[Tensor]]], settings: Settings) -> dict[str, Any]:
    found = [call() for call in contestants.values()]
    difference = max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(found[-1], found[0], strict=True)
    )
    assert difference <= _TOLERANCE, f"{what}: a difference of {difference} of the largest value"
    del found
    seconds = time_by_turns(contestants, settings.layer_rounds)
    return speed_row(what, seconds, unit="passes/s", largest_difference=difference)
