"""Layers that work in every part of a detector."""

from .fast_conv import convolve, use_fast_convolutions
from .fused_norm import FusedGroupNorm, fuse_norm, fuse_norms, group_norm_relu
from .norm import NORMS, NormFactory, SyncBatchNorm, get_norm_factory
from .roi_align import use_fast_roi_align

__all__ = [
    "NORMS",
    "FusedGroupNorm",
    "NormFactory",
    "SyncBatchNorm",
    "convolve",
    "fuse_norm",
    "fuse_norms",
    "get_norm_factory",
    "group_norm_relu",
    "use_fast_convolutions",
    "use_fast_roi_align",
]
