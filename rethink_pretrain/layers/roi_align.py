"""RoIAlign on a CPU as weighted sums of pixels: every result is the same sum as torchvision's.

A result of RoIAlign is the mean of samples, and a sample a sum of four pixels; rows and columns are apart
from each other. So each result has a small rectangle of pixels with weights of row times column. torch's
`embedding_bag` sums them, for all channels at once and with several threads; torchvision computes the weights
anew for every channel, and its backward pass has one thread.
"""

import torch
from detectron2.layers import ROIAlign
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.utils import _pair

_WIDEST = 12.0  # px of a bin


def use_fast_roi_align(model: nn.Module) -> None:
    """Let every RoIAlign of `model` be a `PixelSumROIAlign`, which elsewhere than on a CPU is the host's."""
    for module in model.modules():
        if type(module) is ROIAlign:
            module.__class__ = PixelSumROIAlign


class PixelSumROIAlign(ROIAlign):
    """The host's RoIAlign with the same settings."""

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """`input` (N, C, H, W), `rois` (R, 5) as image, x0, y0, x1, y1: (R, C, rows, columns) of bins."""
        plain = input.device.type != "cpu" or input.dtype != torch.float32 or torch.jit.is_tracing()
        if plain or not len(rois):
            return super().forward(input, rois)
        rois = rois.detach().to(input.dtype)
        # A bin takes room for the highest and the widest one: a single pole or wire would cost all of them.
        bins = torch.tensor(_pair(self.output_size)).flip(0)
        wide = ((rois[:, 3:] - rois[:, 1:3]) * self.spatial_scale / bins).amax(1) > _WIDEST
        if not wide.any():
            return self._sum_pixels(input, rois)
        if wide.all():
            return super().forward(input, rois)
        parts = [super().forward(input, rois[wide]), self._sum_pixels(input, rois[~wide])]
        order = torch.cat([wide.nonzero(), (~wide).nonzero()]).flatten().argsort()
        return torch.cat(parts)[order]

    def _sum_pixels(self, x: Tensor, rois: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        corners = rois[:, 1:] * self.spatial_scale - (0.5 if self.aligned else 0.0)
        starts, sizes = corners[:, :2], corners[:, 2:] - corners[:, :2]
        if not self.aligned:
            sizes = sizes.clamp(min=1.0)
        bins_y, bins_x = _pair(self.output_size)
        rows, row_weights = _spread(starts[:, 1], sizes[:, 1], bins_y, height, self.sampling_ratio)
        columns, column_weights = _spread(starts[:, 0], sizes[:, 0], bins_x, width, self.sampling_ratio)
        rows += rois[:, 0].long()[:, None, None] * height
        # R, bins_y, bins_x, rows, columns
        pixels = rows[:, :, None, :, None] * width + columns[:, None, :, None, :]
        weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
        used = weights != 0
        ends = used.sum((3, 4)).flatten().cumsum(0)
        sums = F.embedding_bag(
            pixels[used],
            x.permute(0, 2, 3, 1).reshape(-1, channels),
            torch.cat([ends.new_zeros(1), ends[:-1]]),
            mode="sum",
            per_sample_weights=weights[used],
        )
        return sums.view(len(rois), bins_y, bins_x, channels).permute(0, 3, 1, 2).contiguous()


def _spread(
    start: Tensor, size: Tensor, bins: int, length: int, sampling_ratio: int
) -> tuple[Tensor, Tensor]:
    """Along one side of R boxes: pixels of each bin, int64, and their weights, both (R, bins, pixels).

    `start` and `size` (R,) in px of the map, which has `length` of them. The rules are torchvision's: samples
    at most 1 px apart, or `sampling_ratio` of them in a bin; none beyond 1 px outside of the map; at its
    border the border's own value.
    """
    bin_size = size / bins
    samples = torch.full_like(size, sampling_ratio) if sampling_ratio > 0 else bin_size.ceil().clamp(min=0)
    number = torch.arange(max(int(samples.max()), 1))
    within = (number + 0.5) * (bin_size / samples.clamp(min=1))[:, None]  # R, samples
    position = (start[:, None] + torch.arange(bins) * bin_size[:, None])[:, :, None] + within[:, None, :]
    counts = (number < samples[:, None])[:, None, :] & (position >= -1) & (position <= length)
    position = position.clamp(0, length - 1)
    low = position.long()
    above = position - low
    first = torch.where(counts, low, length - 1).amin(2, keepdim=True)
    offset = torch.where(counts, low - first, 0)
    share = counts / samples.clamp(min=1)[:, None, None]
    weights = position.new_zeros(*first.shape[:2], int(offset.max()) + 2)
    weights.scatter_add_(2, offset, share * (1 - above))
    weights.scatter_add_(2, offset + 1, share * above)
    return (first + torch.arange(weights.shape[2])).clamp(max=length - 1), weights
