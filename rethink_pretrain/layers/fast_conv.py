"""Convolutions of large maps on a CPU, in fp32, with fewer multiplications or copies than torch's own.

torch's are direct (oneDNN) and reorder every map into blocks and back. Here 3x3 with stride 1 is Winograd's
minimal filtering (Lavin and Gray, arXiv 1509.09308): forward and the gradient of the map by NNPACK, which is
part of torch, in tiles of 6x6 results; the gradient of the weight in tiles of 4x4. 1x1 is a matrix product.
The rounding is another one: errors of about 1e-4 where torch's are 1e-5, of maps and results around 1.
Tried on two Zen 3 cores: small maps and 64 channels lose, so they stay torch's.
"""

import math
from functools import lru_cache

import torch
from detectron2.layers import Conv2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_CHANNELS, _PIXELS, _PIXELS_1X1 = 128, 3000, 10_000  # from which on it wins

# 1-d transforms for 4 results of 3 taps from 6 inputs, at the points 0, 1, -1, 2, -2 and infinity.
_INPUT = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_WEIGHT = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_RESULT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def use_fast_convolutions(model: nn.Module) -> None:
    """Let the convolutions of `model` that can be faster on a CPU be so; weights and names stay.

    Everywhere but on a CPU in fp32 they compute as before, and so do maps for which it does not pay.
    """
    for conv in model.modules():
        # In place, because the host's modules keep some of them in lists as well.
        if type(conv) in _FAST and (_is_3x3(conv) or _is_1x1(conv)):
            conv.__class__ = _FAST[type(conv)]


class FastConv2d(Conv2d):
    """The host's convolution with its norm and activation."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, H, W)."""
        if not _pays(self, x):
            return super().forward(x)
        x = convolve(self, x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


class PlainFastConv2d(nn.Conv2d):
    """torch's convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, C, H, W)."""
        return convolve(self, x)


_FAST = {Conv2d: FastConv2d, nn.Conv2d: PlainFastConv2d}


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv` of `x` (N, C, H, W) without the norm and activation that the host's class may have."""
    if type(conv) not in _FAST.values() or not _pays(conv, x):
        return nn.Conv2d.forward(conv, x)
    function = conv1x1 if conv.kernel_size == (1, 1) else conv3x3
    return function(x, conv.weight, conv.bias)


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x` (N, C, H, W) with `weight` (K, C, 3, 3), stride 1 and padding 1: (N, K, H, W). fp32, on a CPU."""
    return _Winograd.apply(x, weight, bias)


def conv1x1(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x` (N, C, H, W) with `weight` (K, C, 1, 1) and stride 1: (N, K, H, W)."""
    matrix, columns = weight.flatten(1).expand(len(x), -1, -1), x.flatten(2)
    y = torch.bmm(matrix, columns) if bias is None else torch.baddbmm(bias[:, None], matrix, columns)
    return y.unflatten(2, x.shape[2:])


def _is_3x3(conv: nn.Conv2d) -> bool:
    return _is_simple(conv, 3) and min(conv.in_channels, conv.out_channels) >= _CHANNELS and _has_nnpack()


def _is_1x1(conv: nn.Conv2d) -> bool:
    return _is_simple(conv, 1)


def _is_simple(conv: nn.Conv2d, side: int) -> bool:
    return (
        conv.kernel_size == (side, side)
        and conv.padding == (side // 2, side // 2)
        and conv.padding_mode == "zeros"
        and conv.stride == conv.dilation == (1, 1)
        and conv.groups == 1
    )


def _pays(conv: nn.Conv2d, x: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.dim() != 4 or torch.jit.is_tracing():
        return False
    if torch.is_autocast_enabled("cpu"):
        return False
    pixels = x.shape[2] * x.shape[3]
    return pixels >= _PIXELS_1X1 if conv.kernel_size == (1, 1) else len(x) * pixels >= _PIXELS


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _cut_up(_filter(_lay_out(x), weight, bias), x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        sheet = _lay_out(gradient)
        if ctx.needs_input_grad[0]:
            of_x = _cut_up(_filter(sheet, weight.flip(2, 3).transpose(0, 1), None), x.shape)
        if ctx.needs_input_grad[1]:
            pairs = zip(_lay_out(x).unsqueeze(2), sheet.unsqueeze(2), strict=True)
            of_weight = sum(_weight_gradient(*pair) for pair in pairs)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias


def _filter(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    assert _has_nnpack()  # which also makes it ready in a process that has only unpickled the model
    return torch._nnpack_spatial_convolution(x.contiguous(), weight.contiguous(), bias, [1, 1], [1, 1])


def _lay_out(x: Tensor) -> Tensor:
    """Several small maps (N, C, H, W) as one, (1, C, rows * (H + 1), columns * (W + 1)), zeros between them.

    So their borders waste less of a tile. Large ones stay as they are.
    """
    count, channels, height, width = x.shape
    if not _needs_sheet(x.shape):
        return x
    columns = round(math.sqrt(count))
    rows = -(-count // columns)
    sheet = x.new_empty(channels, rows, height + 1, columns, width + 1)
    sheet[:, :, height] = 0
    sheet[..., width] = 0
    places = sheet[:, :, :height, :, :width].permute(1, 3, 0, 2, 4)  # rows, columns, C, H, W
    full = count // columns
    places[:full] = x[: full * columns].unflatten(0, (full, columns))
    if full < rows:
        rest = count - full * columns
        places[full, :rest] = x[full * columns :]
        places[full, rest:] = 0
    return sheet.view(1, channels, rows * (height + 1), columns * (width + 1))


def _cut_up(sheet: Tensor, shape: torch.Size) -> Tensor:
    """The N maps, `shape` (N, any, H, W), that `_lay_out` has put on `sheet`."""
    if not _needs_sheet(shape):
        return sheet
    count, _, height, width = shape
    places = sheet[0].unflatten(2, (-1, width + 1)).unflatten(1, (-1, height + 1))
    places = places[:, :, :height, :, :width].permute(1, 3, 0, 2, 4)  # rows, columns, K, H, W
    columns = places.shape[1]
    full, rest = divmod(count, columns)
    maps = sheet.new_empty(count, *places.shape[2:])  # no view of the sheet: what follows may work in place
    maps[: full * columns].unflatten(0, (full, columns)).copy_(places[:full])
    if rest:
        maps[full * columns :] = places[full, :rest]
    return maps


def _needs_sheet(shape: torch.Size) -> bool:
    return shape[0] > 1 and shape[2] * shape[3] < _PIXELS


def _weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """(K, C, 3, 3) of one map (C, 1, H, W) and one gradient (K, 1, H, W)."""
    below, right = -x.shape[2] % 4, -x.shape[3] % 4
    inputs = F.conv2d(F.pad(x, (1, right + 1, 1, below + 1)), _planes(_INPUT), stride=4)
    results = F.conv2d(F.pad(gradient, (0, right, 0, below)), _planes(_RESULT, transposed=True), stride=4)
    # Both are 36 planes of the tiles of each channel: for each plane one product over the tiles.
    products = torch.bmm(results.flatten(2).transpose(0, 1), inputs.flatten(2).permute(1, 2, 0))
    back = _planes(_WEIGHT).flatten(1).t()  # 9 x 36
    return (back @ products.flatten(1)).view(3, 3, *products.shape[1:]).permute(2, 3, 0, 1)


def _planes(rows: list[list[float]], *, transposed: bool = False) -> Tensor:
    """The transform of both directions as 36 filters (36, 1, side, side)."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    matrix = matrix.t().contiguous() if transposed else matrix
    side = matrix.shape[1]
    return torch.kron(matrix, matrix).float().view(36, 1, side, side)


@lru_cache(maxsize=1)
def _has_nnpack() -> bool:
    # Asking also initialises it.
    return hasattr(torch, "_nnpack_spatial_convolution") and torch.backends.nnpack.is_available()
