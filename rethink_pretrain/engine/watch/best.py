"""The checkpoint of the best evaluation."""

import logging
import math
from pathlib import Path

from ...checkpoint import RethinkCheckpointer
from .evaluations import EvaluationHook, measured_before

logger = logging.getLogger(__name__)


class BestCheckpoint(EvaluationHook):
    """Saves model_best.pth whenever `metric` is higher than ever before. For the main process.

    A resume still starts from the last checkpoint, and knows the best value from metrics.json.
    """

    def __init__(self, metric: str, checkpointer: RethinkCheckpointer):
        """`metric` such as "bbox/AP"; NaN is never the best."""
        self._metric, self._checkpointer = metric, checkpointer
        self.best = -math.inf
        self._warned = False

    def before_train(self) -> None:
        """Look up the best value before a resume, unless there is no file of it."""
        folder = Path(self._checkpointer.save_dir)
        if (folder / "model_best.pth").is_file():
            before = measured_before(folder, self._metric, self.trainer.start_iter)
            self.best = max((value for _, value in before), default=-math.inf)

    def after_evaluation(self, metrics: dict[str, float]) -> None:
        """Compare, and save."""
        if self._metric not in metrics:
            self._warn(metrics)
        elif metrics[self._metric] > self.best:
            self.best = metrics[self._metric]
            self._checkpointer.save("model_best", tag=False, iteration=self.trainer.iter)
            words = "Iteration %d: %s %.2f is the best so far and kept as model_best.pth."
            logger.info(words, self.done, self._metric, self.best)

    def _warn(self, metrics: dict[str, float]) -> None:
        if not self._warned:
            known = ", ".join(sorted(metrics))
            logger.warning(
                "RETHINK.WATCH.BEST_METRIC %s is not measured here. There are: %s.", self._metric, known
            )
        self._warned = True
