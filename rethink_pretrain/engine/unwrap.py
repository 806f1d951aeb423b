"""The host's wrapper for several processes: putting it on and looking below it."""

import torch
from detectron2.utils import comm
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel


def distribute(model: nn.Module, *, bf16_gradients: bool = False) -> nn.Module:
    """`model` with gradients averaged over all processes; itself where there is one process.

    The host's `create_ddp_model` names a GPU even for a model on the CPU. With `bf16_gradients` the processes
    exchange gradients rounded to bf16. The graph is not declared static: a pass that failed is replaced by
    one of another graph (`forward_or_nan`).
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    devices = None if device.type == "cpu" else [torch.cuda.current_device()]
    # Gradients are views of what is exchanged: a copy less, in time and in memory.
    options = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
    model = DistributedDataParallel(model, device_ids=devices, **options)
    if bf16_gradients:
        model.register_comm_hook(None, default_hooks.bf16_compress_hook)
    return model


def unwrap(model: nn.Module) -> nn.Module:
    """`model` itself where it is not wrapped."""
    return model.module if isinstance(model, DistributedDataParallel) else model
