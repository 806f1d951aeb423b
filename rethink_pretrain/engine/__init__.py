"""Running an experiment: set-up, trainer, progress and the record of the run."""

from .setup import prepare, start
from .trainer import Trainer, evaluate, train

__all__ = ["Trainer", "evaluate", "prepare", "start", "train"]
