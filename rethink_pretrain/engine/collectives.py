"""What all processes of a run learn of each other's numbers."""

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


def rows_of_processes(values: torch.Tensor) -> list[list[float]]:
    """The `values` of each process, a vector of one length and type in all; all call it, and all get them.

    It is one collective, none in a run of one process, and one wait for the device.
    """
    if comm.get_world_size() == 1:
        return [values.tolist()]
    values = values.to(collective_device())
    rows = values.new_empty(comm.get_world_size(), len(values))
    dist.all_gather(list(rows), values)
    return rows.tolist()
