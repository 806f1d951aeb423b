"""GroupNorm, an optional residual and ReLU as Triton kernels, forward and backward, for NCHW and NHWC.

A map is seen as (N, C, P) of P pixels with the strides of its own layout, and cut into tiles of pixels x
channels that lie dense in memory. Forward: each tile gives mean and sum of squares per channel, one small
kernel joins them to a group's statistics, and a third kernel writes the result. Backward: the same with the
two sums that GroupNorm's gradient needs. That reads x twice, and all arithmetic is fp32 whatever x is.

Import it only where Triton can be imported: `fused_norm.py` does.
"""

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

_TILE = 4096  # values per tile: 16 or 32 per thread


@triton.jit
def _tile(chunks, channels, pixels, stride_c, stride_p, tile_p: tl.constexpr, tile_c: tl.constexpr):
    """Image, chunk, channels, offsets and mask of this program's tile, (tile_p, tile_c)."""
    image = tl.program_id(0) // chunks
    chunk = tl.program_id(0) % chunks
    p = chunk * tile_p + tl.arange(0, tile_p)
    c = tl.program_id(1) * tile_c + tl.arange(0, tile_c)
    mask = (p < pixels)[:, None] & (c < channels)[None, :]
    start = image.to(tl.int64) * channels * pixels
    offsets = start + (p[:, None] * stride_p + c[None, :] * stride_c)
    return image, chunk, c, offsets, mask


@triton.jit
def _moments(x_ptr, mean_ptr, square_ptr, chunks, channels, pixels, stride_c, stride_p,
             tile_p: tl.constexpr, tile_c: tl.constexpr):  # fmt: skip
    """Per channel of a tile: the mean, and the sum of squares around it."""
    _image, chunk, c, offsets, mask = _tile(chunks, channels, pixels, stride_c, stride_p, tile_p, tile_c)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    count = tl.minimum(pixels - chunk * tile_p, tile_p)
    mean = tl.sum(x, axis=0) / count
    centred = tl.where(mask, x - mean[None, :], 0.0)
    row = tl.program_id(0).to(tl.int64) * channels + c
    tl.store(mean_ptr + row, mean, mask=c < channels)
    tl.store(square_ptr + row, tl.sum(centred * centred, axis=0), mask=c < channels)


@triton.jit
def _join_moments(mean_ptr, square_ptr, group_mean_ptr, group_rstd_ptr, chunks, channels, pixels, groups, eps,
                  tile_p: tl.constexpr, block: tl.constexpr):  # fmt: skip
    """A group's mean and 1 / std, the variance around the common mean: E[x^2] - E[x]^2 loses the digits."""
    image = tl.program_id(0) // groups
    size = channels // groups
    first = image.to(tl.int64) * chunks * channels + (tl.program_id(0) % groups) * size
    total = tl.zeros((block,), tl.float32)
    for start in range(0, chunks * size, block):
        i = start + tl.arange(0, block)
        count = tl.minimum(pixels - i // size * tile_p, tile_p)
        part = tl.load(mean_ptr + first + i // size * channels + i % size, mask=i < chunks * size, other=0.0)
        total += part * count
    values = size * pixels * 1.0
    mean = tl.sum(total, axis=0) / values
    squares = tl.zeros((block,), tl.float32)
    for start in range(0, chunks * size, block):
        i = start + tl.arange(0, block)
        count = tl.minimum(pixels - i // size * tile_p, tile_p)
        inside = i < chunks * size
        part = tl.load(mean_ptr + first + i // size * channels + i % size, mask=inside, other=0.0)
        square = tl.load(square_ptr + first + i // size * channels + i % size, mask=inside, other=0.0)
        squares += square + tl.where(inside, (part - mean) * (part - mean) * count, 0.0)
    tl.store(group_mean_ptr + tl.program_id(0), mean)
    tl.store(group_rstd_ptr + tl.program_id(0), 1 / tl.sqrt(tl.sum(squares, axis=0) / values + eps))


@triton.jit
def _normalised(x_ptr, mean_ptr, rstd_ptr, image, c, offsets, mask, channels, groups):
    """(x - mean) / std of a tile, and 1 / std per channel."""
    inside = c < channels
    group = image * groups + c // (channels // groups)
    mean = tl.load(mean_ptr + group, mask=inside, other=0.0)
    rstd = tl.load(rstd_ptr + group, mask=inside, other=0.0)
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    return (x - mean[None, :]) * rstd[None, :], rstd


@triton.jit
def _apply(x_ptr, residual_ptr, y_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr,
           chunks, channels, pixels, groups, stride_c, stride_p,
           relu: tl.constexpr, has_residual: tl.constexpr,
           tile_p: tl.constexpr, tile_c: tl.constexpr):  # fmt: skip
    """y of a tile."""
    image, _, c, offsets, mask = _tile(chunks, channels, pixels, stride_c, stride_p, tile_p, tile_c)
    normalised, _ = _normalised(x_ptr, mean_ptr, rstd_ptr, image, c, offsets, mask, channels, groups)
    weight = tl.load(weight_ptr + c, mask=c < channels, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=c < channels, other=0.0).to(tl.float32)
    y = normalised * weight[None, :] + bias[None, :]
    if has_residual:
        y += tl.load(residual_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if relu:
        y = tl.where(y > 0, y, y * 0.0)  # NaN stays NaN, as in torch
    tl.store(y_ptr + offsets, y.to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _gradient_tile(x_ptr, y_ptr, grad_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr,
                   chunks, channels, pixels, groups, stride_c, stride_p,
                   relu: tl.constexpr, has_residual: tl.constexpr,
                   tile_p: tl.constexpr, tile_c: tl.constexpr):  # fmt: skip
    """What both kernels of the backward pass read of a tile, and the gradient where ReLU let it pass.

    By y where there is a residual, else by what y was, computed anew.
    """
    image, _, c, offsets, mask = _tile(chunks, channels, pixels, stride_c, stride_p, tile_p, tile_c)
    normalised, rstd = _normalised(x_ptr, mean_ptr, rstd_ptr, image, c, offsets, mask, channels, groups)
    grad = tl.load(grad_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if relu:
        if has_residual:
            y = tl.load(y_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        else:
            weight = tl.load(weight_ptr + c, mask=c < channels, other=0.0).to(tl.float32)
            bias = tl.load(bias_ptr + c, mask=c < channels, other=0.0).to(tl.float32)
            y = normalised * weight[None, :] + bias[None, :]
        grad = tl.where(y > 0, grad, 0.0)
    return image, c, offsets, mask, normalised, rstd, grad


@triton.jit
def _gradient_sums(x_ptr, y_ptr, grad_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr, sum_ptr, dot_ptr,
                   chunks, channels, pixels, groups, stride_c, stride_p,
                   relu: tl.constexpr, has_residual: tl.constexpr,
                   tile_p: tl.constexpr, tile_c: tl.constexpr):  # fmt: skip
    """Per channel of a tile: the sums of the gradient and of gradient x normalised x."""
    _image, c, _offsets, _mask, normalised, _rstd, grad = _gradient_tile(
        x_ptr, y_ptr, grad_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr,
        chunks, channels, pixels, groups, stride_c, stride_p, relu, has_residual, tile_p, tile_c,
    )  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * channels + c
    tl.store(sum_ptr + row, tl.sum(grad, axis=0), mask=c < channels)
    tl.store(dot_ptr + row, tl.sum(grad * normalised, axis=0), mask=c < channels)


@triton.jit
def _apply_gradient(x_ptr, y_ptr, grad_ptr, grad_x_ptr, grad_residual_ptr, mean_ptr, rstd_ptr, weight_ptr,
                    bias_ptr, group_sum_ptr, group_dot_ptr,
                    chunks, channels, pixels, groups, stride_c, stride_p,
                    relu: tl.constexpr, has_residual: tl.constexpr,
                    tile_p: tl.constexpr, tile_c: tl.constexpr):  # fmt: skip
    """The gradient of x, and of the residual, of a tile."""
    image, c, offsets, mask, normalised, rstd, grad = _gradient_tile(
        x_ptr, y_ptr, grad_ptr, mean_ptr, rstd_ptr, weight_ptr, bias_ptr,
        chunks, channels, pixels, groups, stride_c, stride_p, relu, has_residual, tile_p, tile_c,
    )  # fmt: skip
    if has_residual:
        tl.store(grad_residual_ptr + offsets, grad.to(grad_residual_ptr.dtype.element_ty), mask=mask)
    inside = c < channels
    group = image * groups + c // (channels // groups)
    group_sum = tl.load(group_sum_ptr + group, mask=inside, other=0.0)
    group_dot = tl.load(group_dot_ptr + group, mask=inside, other=0.0)
    weight = tl.load(weight_ptr + c, mask=inside, other=0.0).to(tl.float32)
    grad_x = grad * weight[None, :] - group_sum[None, :] - normalised * group_dot[None, :]
    tl.store(grad_x_ptr + offsets, (grad_x * rstd[None, :]).to(grad_x_ptr.dtype.element_ty), mask=mask)


class _Layout:
    """How the kernels walk through a map `x` (N, C, H, W): strides, tiles and the grid of programs."""

    def __init__(self, x: torch.Tensor):
        images, channels, height, width = x.shape
        pixels = height * width
        nhwc = not x.is_contiguous()
        self.memory_format = torch.channels_last if nhwc else torch.contiguous_format
        tile_c = min(64, triton.next_power_of_2(channels)) if nhwc else 1
        tile_p = min(_TILE // tile_c, triton.next_power_of_2(pixels))
        if not nhwc:  # small maps: several channels fill a tile
            tile_c = min(_TILE // tile_p, triton.next_power_of_2(channels))
        self.chunks = triton.cdiv(pixels, tile_p)
        self.shape = (self.chunks, channels, pixels)
        self.strides = (1, channels) if nhwc else (pixels, 1)
        self.tiles = {"tile_p": tile_p, "tile_c": tile_c}
        self.grid = (images * self.chunks, triton.cdiv(channels, tile_c))
        self.partial = (images, self.chunks, channels)


class TritonGroupNorm(torch.autograd.Function):
    """`apply(x, residual, weight, bias, groups, eps, relu)`; see `fused_norm.group_norm_relu`.

    `x` (N, C, H, W), N >= 1, dense in NCHW or NHWC; `residual` None or of x's shape and layout. Keeps x and
    two numbers per group for the backward pass, and y where there is a residual.
    """

    @staticmethod
    def forward(ctx, x, residual, weight, bias, groups, eps, relu):
        """y of x's dtype and layout."""
        layout = _Layout(x)
        means, squares = x.new_empty((2, *layout.partial), dtype=torch.float32)
        mean, rstd = x.new_empty((2, len(x) * groups), dtype=torch.float32)
        _moments[layout.grid](x, means, squares, *layout.shape, *layout.strides, **layout.tiles)
        _join_moments[(len(x) * groups,)](
            means, squares, mean, rstd, *layout.shape, groups, eps, tile_p=layout.tiles["tile_p"], block=1024
        )
        y = torch.empty_like(x)
        options = {"relu": relu, "has_residual": residual is not None, **layout.tiles}
        _apply[layout.grid](
            x, x if residual is None else residual, y, mean, rstd, weight, bias,
            *layout.shape, groups, *layout.strides, **options,
        )  # fmt: skip
        ctx.save_for_backward(x, y if residual is not None and relu else None, mean, rstd, weight, bias)
        ctx.layout, ctx.options, ctx.groups = layout, options, groups
        ctx.residual_dtype = None if residual is None else residual.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        """Gradients of x, residual, weight and bias, each of its tensor's dtype."""
        x, y, mean, rstd, weight, bias = ctx.saved_tensors
        layout, groups = ctx.layout, ctx.groups
        grad = grad.contiguous(memory_format=layout.memory_format)
        y = x if y is None else y
        where = (*layout.shape, groups, *layout.strides)
        sums, dots = x.new_empty((2, *layout.partial), dtype=torch.float32)
        _gradient_sums[layout.grid](
            x, y, grad, mean, rstd, weight, bias, sums, dots, *where, **ctx.options
        )  # fmt: skip
        sums, dots = sums.sum(1), dots.sum(1)  # (N, C)
        size = x.numel() // len(mean)
        group_sum, group_dot = (
            (part * weight.float()).view(len(mean), -1).sum(1).div_(size) for part in (sums, dots)
        )
        grad_x = torch.empty_like(x)
        grad_residual = None
        if ctx.residual_dtype is not None:
            grad_residual = torch.empty_like(x, dtype=ctx.residual_dtype)
        _apply_gradient[layout.grid](
            x, y, grad, grad_x, grad_x if grad_residual is None else grad_residual, mean, rstd, weight, bias,
            group_sum, group_dot, *where, **ctx.options,
        )  # fmt: skip
        return (
            grad_x,
            grad_residual,
            dots.sum(0).to(weight.dtype),
            sums.sum(0).to(bias.dtype),
            None,
            None,
            None,
        )
