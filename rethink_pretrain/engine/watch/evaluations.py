"""What the evaluations of a run have measured: the one of this iteration, and those before a resume."""

from pathlib import Path

from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

from ...analysis.runs import MAIN_METRICS, read_metrics, series


def measured_now(storage: EventStorage) -> dict[str, float]:
    """Metrics of the evaluation in the storage's iteration, {} where there was none."""
    now = {
        name: value for name, (value, at) in storage.latest().items() if at == storage.iter and "/" in name
    }
    return now if any(map(_is_main, now)) else {}


def measured_before(output_dir: str | Path, metric: str, iteration: int) -> list[tuple[int, float]]:
    """(iteration, value) of `metric`, NaN left out, that metrics.json holds from before `iteration`.

    A checkpoint would not know the evaluation that follows it in the same iteration.
    """
    path = Path(output_dir, "metrics.json")
    if iteration == 0 or not path.is_file():
        return []
    points = zip(*series(read_metrics(path), metric), strict=True)
    return [(at, value) for at, value in points if at < iteration]


def is_evaluated(path: Path, iteration: int) -> bool:
    """Whether the metrics.json at `path` holds an evaluation in that iteration."""
    rows = read_metrics(path) if path.is_file() else []
    return any(row["iteration"] == iteration and any(map(_is_main, row)) for row in rows)


def _is_main(name: str) -> bool:
    return name.endswith(MAIN_METRICS)


class EvaluationHook(HookBase):
    """Acts once after each evaluation. Metrics are in the storage of the main process alone."""

    _last = -1

    def after_step(self) -> None:
        """Calls `after_evaluation` where there was one in this iteration."""
        self._look()

    def after_train(self) -> None:
        """The last evaluation takes place here, unless training was stopped right after one."""
        self._look()

    def after_evaluation(self, metrics: dict[str, float]) -> None:
        """For subclasses: `metrics` are "bbox/AP" and the like."""
        raise NotImplementedError

    @property
    def done(self) -> int:
        """Iterations of training that the evaluated model has seen."""
        return min(self.trainer.iter + 1, self.trainer.max_iter)

    def _look(self) -> None:
        storage = self.trainer.storage
        metrics = measured_now(storage)
        if metrics and storage.iter > self._last:
            self._last = storage.iter
            self.after_evaluation(metrics)
