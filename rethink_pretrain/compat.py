"""What differs between Detectron2 v0.6 and its main, found by probing features, never by version."""

from typing import Any

from detectron2.engine import DefaultTrainer


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
