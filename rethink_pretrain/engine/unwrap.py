"""The host's wrapper for several processes: putting it on and looking below it."""

import torch
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def distribute(model: nn.Module) -> nn.Module:
    """`model` with gradients averaged over all processes; itself where there is one process.

    The host's `create_ddp_model` names a GPU even for a model on the CPU.
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    devices = None if device.type == "cpu" else [torch.cuda.current_device()]
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def unwrap(model: nn.Module) -> nn.Module:
    """`model` itself where it is not wrapped."""
    return model.module if isinstance(model, DistributedDataParallel) else model
