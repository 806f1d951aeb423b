"""Sums over all processes of a run."""

import torch
import torch.distributed as dist
from detectron2.utils import comm


def collective_device() -> str:
    """Where a tensor has to be for the run's collectives: NCCL takes those of a GPU alone."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def sum_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The sum of each of the `values`; all processes call it, and all get it."""
    if comm.get_world_size() == 1:
        return values
    values = values.to(collective_device())
    dist.all_reduce(values)
    return values
