"""Activations of the backbone's blocks, computed again in the backward pass instead of kept."""

import functools
import logging
from collections.abc import Callable

import torch
from detectron2.layers import CNNBlockBase
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

logger = logging.getLogger(__name__)


def checkpoint_activations(backbone: nn.Module) -> int:
    """The number of blocks of `backbone` that from now on keep their input alone for the backward pass.

    The gradients are the same, dropout and autocast included. Blocks with BatchNorm stay as they are: a
    second pass would count twice in its running statistics.
    """
    blocks = [module for module in backbone.modules() if isinstance(module, CNNBlockBase)]
    chosen = [block for block in blocks if not any(isinstance(m, _BatchNorm) for m in block.modules())]
    for block in chosen:
        block.forward = functools.partial(_recomputed, block.forward)
    if len(chosen) < len(blocks) or not blocks:
        logger.warning(
            "RETHINK.SPEED.CHECKPOINT_ACTIVATIONS: %d of the backbone's %d residual blocks; those with "
            "BatchNorm, and other backbones, keep their activations.",
            *(len(chosen), len(blocks)),
        )
    return len(chosen)


def _recomputed(forward: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """`forward` of a block; without gradients there is nothing to keep."""
    return checkpoint(forward, x, use_reentrant=False) if torch.is_grad_enabled() else forward(x)
