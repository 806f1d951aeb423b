"""Ending a training that no longer gets better."""

import math
from collections.abc import Iterable

from detectron2.engine import HookBase
from detectron2.utils import comm

from .evaluations import measured_before, measured_now


def fruitless(values: Iterable[tuple[bool, float]]) -> int:
    """Evaluations that count since the last new best value.

    `values` are pairs of whether it counts and the value, in order. One that does not count can be the best.
    """
    best, count = -math.inf, 0
    for counts, value in values:
        count = 0 if value > best else count + counts
        best = max(best, value)
    return count


class EarlyStopping(HookBase):
    """Stops training after `patience` evaluations, all behind the last drop, without a new best `metric`.

    AP leaps where the learning rate drops: a pause before that says nothing. In all processes.
    """

    def __init__(self, metric: str, patience: int, *, last_drop: int, eval_period: int, output_dir: str):
        """`last_drop` in iterations of this run, 0 where there is none; NaN values are as if not measured."""
        self._metric, self._patience, self._last_drop = metric, patience, last_drop
        self._eval_period, self._output_dir = eval_period, output_dir
        self._values: list[tuple[bool, float]] = []

    def before_train(self) -> None:
        """Look up the values before a resume."""
        before = measured_before(self._output_dir, self._metric, self.trainer.start_iter)
        self._values = [(at >= self._last_drop, value) for at, value in before]

    def after_step(self) -> None:
        """In the iterations of the host's EvalHook: the metric is on the main process, the end is for all."""
        done = self.trainer.iter + 1
        if done % self._eval_period or done == self.trainer.max_iter:
            return
        reason = next(filter(None, comm.all_gather(self._judge(done))), None)
        if reason:
            self.trainer.stop(reason)

    def _judge(self, done: int) -> str:
        value = measured_now(self.trainer.storage).get(self._metric, math.nan)
        if math.isnan(value):
            return ""
        self._values.append((done > self._last_drop, value))
        if fruitless(self._values) < self._patience:
            return ""
        best = max(value for _, value in self._values)
        return f"{self._metric} {value:.2f}, {self._patience} evaluations without more than {best:.2f}"
