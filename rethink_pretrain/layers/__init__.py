"""Layers that work in every part of a detector."""

from .norm import NORMS, NormFactory, SyncBatchNorm, get_norm_factory

__all__ = ["NORMS", "NormFactory", "SyncBatchNorm", "get_norm_factory"]
