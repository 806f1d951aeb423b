"""Running an experiment: processes, set-up, trainer, progress and the record of the run."""

from .launch import launch
from .processes import Processes, find_processes
from .recipe import describe_recipe, format_recipe
from .setup import complete, prepare, start
from .trainer import Trainer, evaluate, train

__all__ = [
    "Processes",
    "Trainer",
    "complete",
    "describe_recipe",
    "evaluate",
    "find_processes",
    "format_recipe",
    "launch",
    "prepare",
    "start",
    "train",
]
