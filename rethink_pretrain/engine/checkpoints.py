"""Checkpoints while training, and the last one, also of a run that stops early."""

from detectron2.engine import HookBase

from ..checkpoint import RethinkCheckpointer


class Checkpoints(HookBase):
    """Saves `model_<iteration>` every `period` iterations, and `model_final` after the last.

    The host's hook does not know the last iteration of a run that stops early.
    """

    def __init__(self, checkpointer: RethinkCheckpointer, period: int):
        """`period` 0 saves at the end alone."""
        self._checkpointer, self._period = checkpointer, period

    def after_step(self) -> None:
        """At the end of a period and of training, before the evaluation, which may fail."""
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter:
            self._save("model_final")
        elif self._period > 0 and done % self._period == 0:
            self._save(f"model_{self.trainer.iter:07d}")

    def after_train(self) -> None:
        """Where another hook has stopped training."""
        if self.trainer.ended.startswith("stopped"):
            self._save("model_final")

    def _save(self, name: str) -> None:
        self._checkpointer.save(name, iteration=self.trainer.iter)
