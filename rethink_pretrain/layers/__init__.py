"""Layers that work in every part of a detector."""

from .norm import NORMS, SyncBatchNorm, get_norm_factory

__all__ = ["NORMS", "SyncBatchNorm", "get_norm_factory"]
