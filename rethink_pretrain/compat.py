"""What differs between Detectron2 v0.6 and its main, found by probing features, never by version."""

from typing import Any

import torch.distributed as dist
from detectron2.engine import DefaultTrainer
from detectron2.utils import comm


def trainer_state(trainer: DefaultTrainer, host_state: dict[str, Any]) -> dict[str, Any]:
    """The host's checkpoint state of `trainer`, with the optimizer's in it.

    v0.6 leaves the optimizer out, so that a resume would restart momentum at zero; main stores it
    under "_trainer", and so do we.
    """
    if "_trainer" in host_state:
        return host_state
    return {**host_state, "_trainer": trainer._trainer.state_dict()}


def host_loads_optimizer() -> bool:
    """Whether the host's own `DefaultTrainer.load_state_dict` restores the optimizer (main)."""
    return "load_state_dict" in vars(DefaultTrainer)


def create_local_process_group(per_machine: int) -> None:
    """Tell the host's `comm` which processes share a machine; all processes call it."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(per_machine)
        return
    for first in range(0, dist.get_world_size(), per_machine):
        ranks = list(range(first, first + per_machine))
        group = dist.new_group(ranks)
        if dist.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group
