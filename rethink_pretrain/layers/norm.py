"""Normalisation layers by name, for backbone, FPN, box head and mask head alike.

`NORMS` maps a name to a factory (channels -> module). A user adds one with
`NORMS["MyNorm"] = lambda channels: ...` before the model is built.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from detectron2.layers import FrozenBatchNorm2d
from fvcore.nn.distributed import differentiable_all_reduce
from torch import nn

from ..errors import UserError

NormFactory = Callable[[int], nn.Module]

GN_GROUPS = 32  # Detectron's GROUP_NORM.NUM_GROUPS; eps 1e-5 is also its value and torch's default


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups, scale 1 and bias 0. Raises `UserError` unless 32 divides `channels`."""
    if channels % GN_GROUPS:
        raise UserError(
            f'Norm "GN" has {GN_GROUPS} groups and cannot split {channels} channels. '
            f"Use channel counts that are multiples of {GN_GROUPS}, or another norm."
        )
    return nn.GroupNorm(GN_GROUPS, channels)


class SyncBatchNorm(nn.BatchNorm2d):
    """BatchNorm over the pixels of all processes: NCHW in, NCHW out, on CUDA and on the CPU.

    Every pixel counts once, whatever the sizes of the processes' inputs, so the statistics are those
    of one process that holds all images. A process may have an empty batch, as RoI heads do when an
    image has no proposals. torch's own SyncBatchNorm refuses CPU tensors in a process group, and the
    host refuses to give it empty inputs.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise `x` (N, C, H, W) over all processes; N may be 0."""
        distributed = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        if not self.training or not distributed:
            # An empty batch has no statistics to learn from, and torch would write NaN ones.
            return x if self.training and x.numel() == 0 else super().forward(x)
        return self._synchronised(x)

    def _synchronised(self, x: torch.Tensor) -> torch.Tensor:
        pixels = x.to(torch.promote_types(x.dtype, torch.float32))  # sums in half precision overflow
        count = pixels.new_full((1,), x.numel() // x.shape[1])
        mean = differentiable_all_reduce(torch.cat([pixels.sum(dim=(0, 2, 3)), count]))
        total = mean[-1].detach().clamp(min=1)
        mean = mean[:-1] / total
        # The variance around the common mean, in a second reduction: E[x^2] - E[x]^2 loses the digits.
        centred = pixels - mean[:, None, None]
        var = differentiable_all_reduce(centred.square().sum(dim=(0, 2, 3))) / total
        self._update_running_statistics(mean.detach(), var.detach(), total)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _update_running_statistics(self, mean: torch.Tensor, var: torch.Tensor, total: torch.Tensor) -> None:
        momentum = self.momentum * (total > 1).to(mean.dtype)  # stays on the device: no host sync
        unbiased = var * total / (total - 1).clamp(min=1)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(unbiased, momentum)
        self.num_batches_tracked.add_(1)


# The host writes "no norm" as "", and only for that value gives every convolution its bias.
NO_NORM = ""

NORMS: dict[str, NormFactory | str] = {
    "GN": group_norm,
    "SyncBN": SyncBatchNorm,
    "BN": nn.BatchNorm2d,
    "FrozenBN": FrozenBatchNorm2d,
    "none": NO_NORM,
    "": NO_NORM,
}


def get_norm_factory(name: str | NormFactory) -> NormFactory | str:
    """The factory registered under `name`, or `NO_NORM`; host layers take either as their `norm`.

    A factory passes through. Raises `UserError` that lists the names for an unknown one.
    """
    if callable(name):
        return name
    if name not in NORMS:
        raise UserError(f"Unknown norm {name!r}. Choose from {', '.join(filter(None, NORMS))}.")
    return NORMS[name]
