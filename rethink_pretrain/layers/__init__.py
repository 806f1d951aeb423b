"""Layers that work in every part of a detector."""

from .fused_norm import FusedGroupNorm, fuse_norm, fuse_norms, group_norm_relu
from .norm import NORMS, NormFactory, SyncBatchNorm, get_norm_factory

__all__ = [
    "NORMS",
    "FusedGroupNorm",
    "NormFactory",
    "SyncBatchNorm",
    "fuse_norm",
    "fuse_norms",
    "get_norm_factory",
    "group_norm_relu",
]
