"""The checkpoint of the best evaluation."""

import logging
import math
from pathlib import Path

from ...checkpoint import RethinkCheckpointer, store
from .evaluations import EvaluationHook, measured_before

logger = logging.getLogger(__name__)

_FILE = "model_best.pth"


class BestCheckpoint(EvaluationHook):
    """Saves model_best.pth whenever `metric` is higher than ever before. For the main process.

    A resume still starts from the last checkpoint.
    """

    def __init__(self, metric: str, checkpointer: RethinkCheckpointer):
        """`metric` such as "bbox/AP"; NaN is never the best."""
        self._metric, self._checkpointer = metric, checkpointer
        self.best = -math.inf
        self._warned = False

    def before_train(self) -> None:
        """Look up the best value before a resume: the file tells it. One of later iterations is void."""
        folder = Path(self._checkpointer.save_dir)
        known = store.peek(folder / _FILE).get("best", {})
        if known.get("metric") == self._metric and known["done"] <= self.trainer.start_iter:
            self.best = known["value"]
        before = measured_before(folder, self._metric, self.trainer.start_iter)
        if before and before[-1][0] == self.trainer.start_iter - 1 and before[-1][1] > self.best:
            self._save(before[-1][1], self.trainer.start_iter)  # a kill came between evaluation and file

    def after_evaluation(self, metrics: dict[str, float]) -> None:
        """Compare, and save."""
        if self._metric not in metrics:
            self._warn(metrics)
        elif metrics[self._metric] > self.best:
            self._save(metrics[self._metric], self.done)

    def _save(self, value: float, done: int) -> None:
        self.best = value
        best = {"metric": self._metric, "value": value, "done": done}
        self._checkpointer.save("model_best", tag=False, iteration=done - 1, best=best)
        words = "Iteration %d: %s %.2f is the best so far and kept as %s."
        logger.info(words, done, self._metric, value, _FILE)

    def _warn(self, metrics: dict[str, float]) -> None:
        if not self._warned:
            known = ", ".join(sorted(metrics))
            logger.warning(
                "RETHINK.WATCH.BEST_METRIC %s is not measured here. There are: %s.", self._metric, known
            )
        self._warned = True
