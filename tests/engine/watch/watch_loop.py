"""The host's training loop without training: hooks see iterations, and evaluations as a test wrote them."""

import json

from detectron2.engine import TrainerBase, hooks
from detectron2.utils.events import EventStorage, JSONWriter
from torch import nn


class Loop(TrainerBase):
    """Runs `watched` hooks behind an evaluation that finds one of `values` after the other, every 2 steps."""

    period = 2

    def __init__(self, values, watched, output, *, start=0, length=None, model=None):
        """`values`: {"bbox": {"AP": 12.3}, ...} each; None is an evaluation without metrics."""
        super().__init__()
        self.start_iter = start
        self.max_iter = length if length is not None else start + self.period * len(values)
        self.model = model or nn.Linear(2, 2)
        self.stopped = ""
        results = iter(values)
        self.register_hooks(
            [
                hooks.EvalHook(self.period, lambda: next(results)),
                *watched,
                hooks.PeriodicWriter([JSONWriter(str(output / "metrics.json"))], 1),
            ]
        )

    def run_step(self):
        pass

    def stop(self, reason):
        self.stopped = reason

    def run(self):
        """As in our trainer; the host's loop cannot be stopped."""
        with EventStorage(self.start_iter) as self.storage:
            self.before_train()
            self.iter = self.start_iter
            while self.iter < self.max_iter:
                self.before_step()
                self.run_step()
                self.after_step()
                if self.stopped:
                    break
                self.iter += 1
            self.after_train()
        return self


def aps(*values):
    return [{"bbox": {"AP": value}} for value in values]


def write_metrics(folder, *points, metric="bbox/AP"):
    """metrics.json of an earlier session; `points` are (iteration, value)."""
    rows = [json.dumps({"iteration": at, metric: value}) for at, value in points]
    (folder / "metrics.json").write_text("\n".join(rows) + "\n")
