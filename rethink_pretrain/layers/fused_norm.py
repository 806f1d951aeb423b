"""GroupNorm together with what stands behind it: the residual of a block, and ReLU.

On CUDA one set of Triton kernels does all of it, reads bf16 and writes bf16 with statistics in fp32, where
torch under autocast makes the map fp32 first. Elsewhere it is torch's own norm with in-place ReLU, the host's
arithmetic to the last bit: forward in about half the time of the two apart, with one map less in memory.
Tried for channels-last on a CPU, where torch's backward pass can be slow: copying to NCHW for it. It won 3 x
at (2, 64, 64, 64) in bf16 and lost 2 to 6 x on most maps of an 800 px image.
"""

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

import torch
from detectron2.layers import Conv2d
from torch import nn
from torch.nn import functional as F

_KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def group_norm_relu(
    x: torch.Tensor,
    groups: int,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float = 1e-5,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """ReLU of GroupNorm(x) + `residual`: x, residual and result (N, C, H, W), N may be 0. In x's dtype."""
    return _group_norm(x, groups, weight, bias, eps, residual, relu=True)


class FusedGroupNorm(nn.GroupNorm):
    """The GroupNorm `norm`, with its own parameters, and with `relu` the ReLU behind it."""

    def __init__(self, norm: nn.GroupNorm, *, relu: bool):
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, device="meta")
        self.weight, self.bias, self.relu = norm.weight, norm.bias, relu

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """`x` (N, C, H, W) normalised, plus `residual`, then ReLU if it is asked for."""
        return _group_norm(x, self.num_groups, self.weight, self.bias, self.eps, residual, self.relu)

    def extra_repr(self) -> str:
        """As GroupNorm's, with the ReLU."""
        return f"{super().extra_repr()}, relu={self.relu}"


def fuse_norm(conv: Conv2d, *, relu: bool) -> None:
    """Let the GroupNorm of `conv` be a `FusedGroupNorm` of the same weights and names; another norm stays."""
    if _can_be_fused(conv.norm):
        conv.norm = FusedGroupNorm(conv.norm, relu=relu)


def fuse_norms(module: nn.Module) -> None:
    """`fuse_norm` for every host convolution in `module`, with its activation where that is ReLU.

    In an `nn.Sequential` also with a ReLU that is the next layer, and likewise for a GroupNorm that is itself
    a layer. An `nn.Identity` takes the place of that ReLU: no parameter is renamed.
    """
    for part in module.modules():
        if isinstance(part, nn.Sequential):  # comes before its layers
            _fuse_layers(part)
        elif isinstance(part, Conv2d):
            relu = _is_relu(part.activation)
            fuse_norm(part, relu=relu)
            if relu and isinstance(part.norm, FusedGroupNorm):
                part.activation = None


def _fuse_layers(sequence: nn.Sequential) -> None:
    for index, (layer, following) in enumerate(pairwise(list(sequence))):
        if not _is_relu(following):
            continue
        if _can_be_fused(layer):
            sequence[index] = FusedGroupNorm(layer, relu=True)
        elif isinstance(layer, Conv2d) and layer.activation is None and _can_be_fused(layer.norm):
            fuse_norm(layer, relu=True)
        else:
            continue
        sequence[index + 1] = nn.Identity()


def _can_be_fused(norm: nn.Module | None) -> bool:
    return type(norm) is nn.GroupNorm and norm.affine


def _is_relu(activation: Callable | None) -> bool:
    return activation is F.relu or type(activation) is nn.ReLU


def _group_norm(x, groups, weight, bias, eps, residual, relu):
    traced = torch.jit.is_tracing() or torch.jit.is_scripting()
    if x.dim() != 4 or x.numel() == 0 or traced:
        return _plain(F.group_norm(x, groups, weight, bias, eps), residual, relu)
    if x.is_cuda and x.dtype in _KERNEL_DTYPES and _has_triton():
        from .triton_group_norm import TritonGroupNorm

        x = _dense(x)
        if residual is not None:
            residual = residual.contiguous(memory_format=_memory_format(x))
        with torch.cuda.device(x.device):  # Triton launches on the current one
            return TritonGroupNorm.apply(x, residual, weight, bias, groups, eps, relu)
    return _plain(F.group_norm(x, groups, weight, bias, eps), residual, relu)


def _plain(y: torch.Tensor, residual: torch.Tensor | None, relu: bool) -> torch.Tensor:
    """In place: the backward pass of the norm does not need its result."""
    if residual is not None:
        y += residual
    return F.relu_(y) if relu else y


def _memory_format(x: torch.Tensor) -> torch.memory_format:
    """channels_last for a map (N, C, H, W) that lies so in memory and not also in NCHW."""
    nhwc = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if nhwc else torch.contiguous_format


def _dense(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=_memory_format(x))


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
