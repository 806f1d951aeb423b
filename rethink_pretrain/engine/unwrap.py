"""The model below the host's wrapper for several processes."""

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def unwrap(model: nn.Module) -> nn.Module:
    """`model` itself where it is not wrapped."""
    return model.module if isinstance(model, DistributedDataParallel) else model
